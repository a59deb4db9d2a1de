"""Every option of a training: one dataclass, its presets, and how it is written into a run folder and read again."""

import dataclasses
import difflib
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tomli_w

from scschnet.files import replacing
from scschnet.kinds import COMMITTEE_OPTIONS, Kind, expect
from scschnet.nn.basis import RadialBasisName
from scschnet.nn.cutoff import CutoffFunctionName
from scschnet.nn.head import HEADS
from scschnet.nn.pair_term import RepulsionName
from scschnet.properties import Property, parse_properties
from scschnet.quantities import NAMES

PresetName = Literal["quick", "md17", "md17-long", "paper-md17", "paper-qm9"]
Schedule = Literal["sgdr", "cosine", "plateau", "constant"]

EMBEDDED = "embedded MD17 ethanol"
# Options that mean nothing for a model that is trained already, and those that are for such a model alone.
OF_FRESH_WEIGHTS = ("w_init", "readout_start", "output_scale", "atomic_energies")
OF_INIT = ("init_fingerprint", "offsets", "new_elements")
LISTS = ("data", "data_weights")
# Options of how data are read, beside `properties`.
READING = ("units", *(f"{name}_key" for name in NAMES))
# What options were, in effect, in runs from before there was a choice.
FIXED_BEFORE: dict[str, Any] = {
    "optimizer": "adam",
    "loss": "total",
    "stress_weight": 0.0,
    "repulsion": "none",
}


# Options that may differ when a run is resumed; any other change would be another run.
MAY_CHANGE_ON_RESUME = (
    "epochs",
    "patience",
    "device",
    "threads",
    "log_every",
    "step",
    "tensorboard",
    "wandb",
)
MOST = 10**12  # of anything that is counted
# Options that say where something lies; what lies there has a fingerprint.
PLACES = ("data", "split_file", "out", "init_from")


@dataclass(frozen=True)
class PresetOptions:
    """Which defaults."""

    preset: PresetName = "quick"
    """Set of defaults: quick (minutes), md17 (for MD17), md17-long (the same, four times as long), paper-md17 and
    paper-qm9 (as in arXiv:1810.09751)."""


@dataclass(frozen=True)
class DataOptions:
    """What is trained on, and how it is divided."""

    data: tuple[str, ...] = ()
    """Files of structures to train on (npz, xyz, extxyz, db, h5, tar), one or more; none: the embedded MD17 ethanol frames."""
    data_weights: tuple[float, ...] = ()
    """How much each file counts in the loss, one number a file, such as 1 5; none: all alike. Multiplies weights of structures."""
    energy_key: str = ""
    """Name of the energy in the file, for example U0 or REF_energy; empty: the file's default."""
    forces_key: str = ""
    """Name of the forces in the file, for example REF_forces; empty: the file's default."""
    stress_key: str = ""
    """Name of the stress in the file, or of a virial, which is converted; empty: the file's default."""
    properties: tuple[str, ...] = ()
    """What to train on: names such as mu homo r2 (QM9's), NAME:KIND (sum, mean, dipole, dipole_norm, extent) for values taken as they stand, and energy, forces, stress, which are left out unless named; empty: these three alone."""
    units: str = ""
    """Units of a file that does not state them, for example 'kcal/mol, Angstrom', or ase (eV, Å)."""
    n_train: int | float = 950
    """Structures to train on: a number, or a fraction such as 0.8; a set too small for the default is divided 8:1:1."""
    n_val: int | float = 50
    """Structures that tell which epoch is the best: a number, or a fraction such as 0.1."""
    n_test: int | float = 0
    """Structures for the test errors at the end: a number, or a fraction; 0: all that are left."""
    split_file: str = ""
    """.npz with the indices train, val, test; instead of a random split by --n-train, --n-val, --n-test and the seed."""
    seed: int = 0
    """Seed of the initial weights, of the order of the batches and, unless --split-seed is given, of the split."""
    split_seed: int = -1
    """Seed of the split; -1: that of --seed. Models of a committee share --split-seed and differ in --seed."""
    committee: int = 1
    """Members of a committee, trained one after another with the seeds --seed, --seed + 1, ... on one split; their deviations are error bars."""
    atomic_energies: str = ""
    """Energies of isolated atoms, eV, such as 'H=-13.6 O=-2041.8'; empty: those in the data, else fitted."""


@dataclass(frozen=True)
class BeginningOptions:
    """A trained model to begin from, on new structures or on old and new ones; a good learning rate is then --lr 1e-3."""

    init_from: str = ""
    """Run folder or checkpoint whose model is trained further, instead of fresh weights; its shape is taken over."""
    init_fingerprint: str = ""
    """Fingerprint that the file of --init-from must have; empty: any, and the training writes down which one it was."""
    offsets: Literal["keep", "refit"] = "keep"
    """Energies of atoms in the model of --init-from: keep them (labels of the same method), or refit them to the new labels (of another)."""
    new_elements: Literal["refuse", "add"] = "refuse"
    """Elements that the model of --init-from does not know: refuse them, or add them with fresh embeddings."""


@dataclass(frozen=True)
class ModelOptions:
    """The network."""

    skip: Literal["weighted", "plain"] = "weighted"
    """weighted: sc-SchNet, which learns how much each block contributes; plain: SchNet, where all contribute alike."""
    w_init: Literal["uniform", "random", "one"] = "uniform"
    """Start of the L+1 contribution weights: uniform (each 1/(L+1)), random (sum 1), one (each 1)."""
    n_features: int = 64
    """Features per atom, and filters per convolution."""
    n_interactions: int = 6
    """Interaction blocks, L."""
    radial_basis: RadialBasisName = "gaussian"
    """Functions of the distance from which filters are made."""
    n_rbf: int = 25
    """Number of these functions."""
    cutoff: float = 5.0
    """Cutoff radius, Å; pairs beyond it do not exist for the model."""
    rbf_range: float = 0.0
    """Center of the last Gaussian, or where the Bessel functions end, Å; 0: the cutoff."""
    cutoff_function: CutoffFunctionName = "cosine"
    """Weight of a pair by its distance: smooth to zero at the cutoff (cosine), or one for every pair (none)."""
    repulsion: Literal["auto", RepulsionName] = "auto"
    """Repulsion added to the network's energy: below the shortest distances of the training structures (data), or that of nuclei below bonding distances (zbl); auto: data where a structure is periodic, else none."""
    filters: Literal["spline", "dense"] = "spline"
    """How filters are evaluated: interpolated in tables (spline), or by the network for every pair (dense, slow)."""
    output_scale: Literal["energy", "forces"] = "forces"
    """What scales the network's output: the spread of the energy per atom, or the rms of the forces times 1 Å."""
    readout_start: Literal["xavier", "matched"] = "xavier"
    """First layer of the readout: drawn by Xavier's rule (xavier), or that times (L+1) / sum of the contribution weights, so that outputs start as large as SchNet's (matched)."""


@dataclass(frozen=True)
class LossOptions:
    """What is made small."""

    loss: Literal["per_atom", "total"] = "per_atom"
    """per_atom: errors of energy and virial are divided by the number of atoms; total: errors of energy and stress as they are (paper)."""
    rho: float = 0.9
    """Weight of the energy: the loss is rho MSE(energy) + (1 - rho) MSE(force components); 1 trains on energies alone."""
    stress_weight: float = -1.0
    """Weight of the stress: adds stress_weight MSE(stress) to the loss; 0 leaves it out; -1: 1 if every structure has stress, else 0."""
    property_weights: str = ""
    """Weights of properties in the loss, such as 'mu=2 homo=0.5', times the mean square error over that of the training labels around their offsets; 1 where not named."""


@dataclass(frozen=True)
class OptimizationOptions:
    """How, and for how long."""

    epochs: int = 60
    """Passes over the training structures."""
    batch_size: int = 10
    """Structures per step."""
    optimizer: Literal["muon", "adam"] = "muon"
    """muon: orthogonal steps for weight matrices, Adam for all other parameters; adam: Adam for everything."""
    lr: float = 4e-3
    """Initial learning rate."""
    schedule: Schedule = "cosine"
    """How the learning rate falls: sgdr (cosine with warm restarts), cosine (once to zero), plateau (shrinks when the validation loss no longer falls), constant."""
    restart_period: int = 50
    """Epochs between the warm restarts of sgdr."""
    ema: float = 0.99
    """Decay of the moving average of the parameters that is validated and saved; 0: none."""
    clip: float = 5.0
    """Gradients are clipped at this multiple of the running median of their norm; 0: never."""
    patience: int = 0
    """Stop after so many epochs without a better validation loss; 0: never."""


@dataclass(frozen=True)
class MachineOptions:
    """Where, and in which precision."""

    dtype: Literal["float32", "float64"] = "float32"
    """Floating point type of the network; energies and forces are summed in float64 anyway."""
    device: str = "cpu"
    """Where to compute: cpu, cuda (the first GPU) or cuda:1 (the second)."""
    threads: int = 0
    """CPU threads; 0: one for batches of less than 500 atoms, otherwise torch's own choice."""
    step: Literal["auto", "resident", "eager"] = "auto"
    """How a step is taken: resident (the data stay on the device; on a GPU a step is one CUDA graph), eager (batch by batch), auto (resident on a GPU, eager on the CPU)."""


@dataclass(frozen=True)
class OutputOptions:
    """What is written and shown."""

    out: str = ""
    """Run folder to create; empty: runs/<name of the data>, with a number if that exists."""
    log_every: int = 0
    """Epochs from one printed line to the next where there is no terminal for a bar; 0: about 50 lines a run."""
    tensorboard: bool = False
    """Write losses, errors and contribution weights of every epoch for TensorBoard, too, into the run folder."""
    wandb: bool = False
    """Send them to Weights & Biases, too; WANDB_MODE=offline keeps them in the run folder."""


@dataclass(frozen=True)
class TrainConfig(  # fields come in the order of the classes from the last to the first
    OutputOptions,
    MachineOptions,
    OptimizationOptions,
    LossOptions,
    ModelOptions,
    BeginningOptions,
    DataOptions,
    PresetOptions,
):
    """Every option of a training; the defaults are those of the preset `quick`. Each group is a class of its own."""

    @classmethod
    def from_preset(cls, preset: PresetName, **options: Any) -> "TrainConfig":
        """Options with the defaults of a preset, which `TrainConfig(preset=...)` would name, but not apply.

        Args:
            preset: quick, md17, md17-long, paper-md17 or paper-qm9.
            options: what differs from it, by the names below.

        Raises:
            ValueError: if there is no such preset, or a value is out of range.
            TypeError: if there is no such option.
        """
        return cls(**{**PRESETS.get(preset, {}), **options, "preset": preset})

    def __post_init__(self) -> None:
        if isinstance(self.data, str):  # one file, as in Python or in a file of options
            object.__setattr__(self, "data", (self.data,) if self.data else ())
        for name in LISTS:  # TOML has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_data()
        self._check_init()
        for name, kind in get_type_hints(TrainConfig).items():
            choices = get_args(kind) if get_origin(kind) is Literal else ()
            if choices and getattr(self, name) not in choices:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        for name, fewest in (("n_train", 1), ("n_val", 1), ("n_test", 0)):
            value = getattr(self, name)
            if not (0.0 < value < 1.0 or (fewest <= value <= MOST and value == int(value))):
                raise ValueError(
                    f"`{name}` must be at least {fewest}, or a fraction between 0 and 1, got {value}"
                )
        at_least = {"seed": 0, "split_seed": -1, "epochs": 1, "batch_size": 1}
        at_least |= {"restart_period": 1, "patience": 0, "threads": 0, "clip": 0, "log_every": 0}
        at_least |= {"rbf_range": 0, "committee": 1}
        for name, least in at_least.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}")
            if not getattr(self, name) <= MOST:
                raise ValueError(f"`{name}` must be at most {MOST:.0e}, got {getattr(self, name)}")
        if not (self.stress_weight >= 0 or self.stress_weight == -1):
            raise ValueError(f"`stress_weight` must be at least 0, or -1, got {self.stress_weight}")
        if not 0.0 <= self.rho <= 1.0:
            raise ValueError(f"`rho` must lie between 0 and 1, got {self.rho}")
        if not 0.0 <= self.ema < 1.0:
            raise ValueError(f"`ema` must lie between 0 and 1, 1 excluded, got {self.ema}")
        if not 0.0 < self.lr < float("inf"):
            raise ValueError(f"`lr` must be positive, got {self.lr}")
        for given in self.heads:
            if given.kind not in HEADS:
                raise ValueError(
                    f"`properties` {given.name} must be of one of the kinds {', '.join(HEADS)}, got {given.kind}"
                )
        if not any(weight for weight in self.label_weights.values()):
            raise ValueError(
                f"`properties` must leave something to train on, got {' '.join(self.properties)} with a "
                f"`rho` of {self.rho:g}"
            )

    @property
    def heads(self) -> tuple[Property, ...]:
        """The properties beside energy, forces and stress."""
        return parse_properties(text for text in self.properties if text not in NAMES)

    def _check_data(self) -> None:
        weights = self.data_weights
        if weights and len(weights) != len(self.data):
            raise ValueError(
                f"`data_weights` must be one number for each of {len(self.data)} files in `data`, got {len(weights)}"
            )
        if not all(0.0 <= weight < float("inf") for weight in weights):
            raise ValueError(f"`data_weights` must be finite and not negative, got {weights}")
        if weights and not any(weights):
            raise ValueError("`data_weights` must not all be zero: nothing would be trained on")
        if len(set(self.data)) < len(self.data):
            raise ValueError(f"`data` must not name a file twice, got {' '.join(self.data)}")

    def _check_init(self) -> None:
        for name in OF_FRESH_WEIGHTS if self.init_from else OF_INIT:
            if getattr(self, name) != getattr(TrainConfig, name):
                why = "is for fresh weights: leave it out with" if self.init_from else "needs"
                raise ValueError(f"`{name}` {why} `init_from`, got {getattr(self, name)!r}")

    @property
    def label_weights(self) -> dict[str, float]:
        """Weight of every quantity in the loss; zero: not trained on. (Of stress -1 until it is resolved.)"""
        weights = {"energy": self.rho, "forces": 1.0 - self.rho, "stress": self.stress_weight}
        if self.properties:
            weights = {name: w if name in self.properties else 0.0 for name, w in weights.items()}
        return weights | {given.name: 1.0 for given in self.heads} | self._property_weights()

    @property
    def has_energy(self) -> bool:
        """Whether the model is trained on energies or their derivatives."""
        return any(self.label_weights[name] != 0 for name in NAMES)

    def _property_weights(self) -> dict[str, float]:
        """Those of the option."""
        weights = {}
        names = [given.name for given in self.heads]
        for part in self.property_weights.replace(",", " ").split():
            name, _, text = part.partition("=")
            try:
                weight = float(text)
            except ValueError:
                weight = math.nan
            if name not in names or not 0.0 < weight < math.inf:
                raise ValueError(
                    "`property_weights` must be like 'mu=2 homo=0.5', positive and of `properties`, "
                    f"got {part!r}"
                )
            weights[name] = weight
        return weights

    @property
    def source(self) -> str:
        """Words that say where the structures come from."""
        return ", ".join(self.data) or EMBEDDED


# What each preset changes of the defaults above. `md17` keeps the paper's model, with half the features and wider
# Gaussians, and was chosen on validation errors: benchmarks/paper/RESULTS.md. The paper does not state rho, epochs,
# cutoff and Gaussians: those are SchNetPack's of the time (0.1; all pairs, no cutoff function, 25 Gaussians up to
# 5 Å). Clipping is ours: without it a warm restart can lose the network for good.
ALL_PAIRS = {"cutoff": 30.0, "rbf_range": 5.0, "cutoff_function": "none"}
TOTAL = {"loss": "total", "stress_weight": 0.0}
MD17: dict[str, Any] = {
    "n_features": 128,
    **ALL_PAIRS,
    "n_rbf": 17,
    "output_scale": "energy",
    "readout_start": "matched",
    **TOTAL,
    "rho": 0.02,
    "epochs": 40,
}
PRESETS: dict[str, dict[str, Any]] = {
    "quick": {},
    "md17": MD17,
    "md17-long": {**MD17, "epochs": 160},
    "paper-md17": {
        "n_features": 256,
        **ALL_PAIRS,
        **TOTAL,
        "rho": 0.1,
        "epochs": 2000,
        "batch_size": 50,
        "optimizer": "adam",
        "lr": 5e-4,
        "schedule": "sgdr",
        "ema": 0.0,
    },
    "paper-qm9": {
        "n_train": 105_000,
        "n_val": 5_000,
        "n_features": 256,
        **ALL_PAIRS,
        "output_scale": "energy",
        **TOTAL,
        "rho": 1.0,
        "epochs": 1000,
        "batch_size": 100,
        "optimizer": "adam",
        "lr": 1e-4,
        "schedule": "sgdr",
        "ema": 0.0,
    },
}


def read_config(path: Path) -> dict[str, Any]:
    """Read options from a TOML file.

    Args:
        path: the file.

    Returns:
        Option name to value.

    Raises:
        ValueError: if the file is missing or no TOML, or names an unknown option (the nearest valid
            name is given) or a value of the wrong type.
    """
    try:
        options = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read the options in {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not valid TOML: it is no text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from error
    known = {field.name: field for field in dataclasses.fields(TrainConfig)}
    for name, value in options.items():
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"{path}: unknown option `{name}`; the nearest valid one is `{nearest}`"
            )
        default: object = known[name].default
        if name in LISTS:
            options[name] = _listed(path, name, value)
            continue
        if name in ("n_train", "n_val", "n_test") and type(value) is float:
            continue
        if isinstance(default, tuple) and type(value) is list:
            options[name] = tuple(str(one) for one in value)
        elif isinstance(default, float) and type(value) is int:
            options[name] = float(value)
        elif type(value) is not type(default):
            raise ValueError(f"{path}: `{name}` must be {type(default).__name__}, got {value!r}")
    return options


def _listed(path: Path, name: str, value: object) -> tuple[Any, ...]:
    """The value of an option that holds several; one file may stand without brackets."""
    values: list[Any] = value if isinstance(value, list) else [value] if value != "" else []
    wanted: tuple[type, ...] = (str,) if name == "data" else (int, float)
    if not all(type(one) in wanted for one in values):
        raise ValueError(f"{path}: `{name}` must be a list of {wanted[-1].__name__}, got {value!r}")
    return tuple(values)


def read_run_config(folder: Path) -> TrainConfig:
    """The options of a run; those that its config.toml does not name have the value that was fixed before.

    Args:
        folder: the run folder.

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if the path is something else, or its options cannot be read.
    """
    expect(folder, Kind.RUN)
    file = folder / "config.toml"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} is no run folder: it has no config.toml")
    return _read_all(file)


def read_committee_config(folder: Path) -> TrainConfig:
    """The options of a committee, as `read_run_config` those of a run.

    Args:
        folder: the committee folder.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the path is something else, or its options cannot be read.
    """
    expect(folder, Kind.COMMITTEE)
    return _read_all(folder / COMMITTEE_OPTIONS)


def _read_all(file: Path) -> TrainConfig:
    options = FIXED_BEFORE | read_config(file)
    return TrainConfig(**(PRESETS.get(options.get("preset", ""), {}) | options))


def write_config(path: Path, config: TrainConfig) -> None:
    """Write every option as TOML; `read_config` reads it back."""
    with replacing(path) as temporary:
        temporary.write_text(tomli_w.dumps(dataclasses.asdict(config)), encoding="utf-8")
