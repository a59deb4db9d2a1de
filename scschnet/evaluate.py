"""Predictions of a model for many structures, and their errors; `python -m scschnet.evaluate`."""

import json as json_format
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from ase.data import chemical_symbols
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from scschnet import data as data_sets
from scschnet.checkpoint import checkpoint_path, load
from scschnet.data import StructureSet, collate, load_split
from scschnet.files import replacing
from scschnet.nn import SchNet
from scschnet.units import energy_factor, stress_factor

MAX_ATOMS_PER_BATCH = 1024


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of structures, in the order in which they were asked for.

    Args:
        energy: (n_structures,), eV.
        forces: (n_atoms, 3), eV/Å, or None if not asked for.
        stress: (n_structures, 3, 3), eV/Å^3, or None if not asked for.
    """

    energy: NDArray[np.float64]
    forces: NDArray[np.float64] | None
    stress: NDArray[np.float64] | None


@dataclass(frozen=True)
class Error:
    """Error of one quantity over `n` numbers: mean absolute and root mean square."""

    mae: float
    rmse: float
    n: int


def predict(
    model: SchNet,
    structures: StructureSet,
    indices: ArrayLike | None = None,
    *,
    forces: bool = True,
    stress: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Predictions:
    """Evaluate a model on structures, a few at a time, where its parameters are.

    Args:
        model: left in the mode (training or evaluation) it is in.
        structures: the set.
        indices: which of them, in which order; None: all.
        forces: whether to predict forces.
        stress: whether to predict stress.
        progress: called with the number of structures that have just been done.

    Returns:
        Predictions; bit for bit the same for the same model, set and indices on one machine.
    """
    chosen = np.arange(len(structures)) if indices is None else np.asarray(indices, dtype=np.int64)
    device = next(model.parameters()).device
    parts: dict[str, list[NDArray[np.float64]]] = {"energy": [], "forces": [], "stress": []}
    for some in _chunks(structures, chosen):
        batch = collate(structures, some, model.config.cutoff).to(device)
        with torch.no_grad():
            result = model(**batch.inputs, forces=forces, stress=stress)
        for name, found in parts.items():
            if name in result:
                found.append(result[name].cpu().numpy())
        if progress is not None:
            progress(len(some))
    return Predictions(
        energy=np.concatenate(parts["energy"]) if len(chosen) else np.zeros(0),
        forces=_joined(parts["forces"], (0, 3)) if forces else None,
        stress=_joined(parts["stress"], (0, 3, 3)) if stress else None,
    )


def error(predicted: NDArray[np.float64], label: NDArray[np.float64]) -> Error:
    """Error of predictions where there is a label (not NaN), over single numbers.

    Args:
        predicted: any shape.
        label: same shape; NaN where there is none.
    """
    difference = (predicted - label)[~np.isnan(label)]
    if difference.size == 0:
        return Error(float("nan"), float("nan"), 0)
    return Error(
        mae=float(np.abs(difference).mean()),
        rmse=float(np.sqrt(np.square(difference).mean())),
        n=int(difference.size),
    )


def errors(predictions: Predictions, labels: StructureSet) -> dict[str, Error]:
    """Errors of every quantity that was predicted and has labels.

    Args:
        predictions: of all structures of `labels`, in its order.
        labels: the structures themselves.

    Returns:
        energy (eV per structure), forces (eV/Å per component), stress (eV/Å^3 per component).
    """
    found = {}
    for name in ("energy", "forces", "stress"):
        predicted, label = getattr(predictions, name), getattr(labels, name)
        if predicted is not None and label is not None:
            found[name] = error(predicted, label)
    return found


def errors_in_detail(predictions: Predictions, labels: StructureSet) -> dict[str, Error]:
    """Errors in total, of the energy per atom, and of the forces on each element.

    Args:
        predictions: of all structures of `labels`, in its order.
        labels: the structures themselves.

    Returns:
        As `errors`, with energy_per_atom (eV) after energy, and forces_H, forces_C ... (eV/Å) after
        forces.
    """
    found: dict[str, Error] = {}
    for name, total in errors(predictions, labels).items():
        found[name] = total
        if name == "energy":
            n_atoms = np.maximum(labels.n_atoms, 1)
            found["energy_per_atom"] = error(
                predictions.energy / n_atoms, np.asarray(labels.energy) / n_atoms
            )
        if name == "forces":
            assert predictions.forces is not None and labels.forces is not None
            for z in labels.elements:
                atoms = labels.atomic_numbers == z
                found[f"forces_{chemical_symbols[z]}"] = error(
                    predictions.forces[atoms], labels.forces[atoms]
                )
    return found


def in_units(name: str, found: Error) -> dict[str, Any]:
    """An error as JSON: n, and MAE and RMSE in eV (and Å) and in kcal/mol (and Å); stress also in GPa.

    Args:
        name: a key of `errors_in_detail`.
        found: the error.
    """
    scaled = {
        unit: {"mae": found.mae * factor, "rmse": found.rmse * factor}
        for unit, factor in _units(name).items()
    }
    return {"n": found.n, **scaled}


def _units(name: str) -> dict[str, float]:
    """Unit to its value per eV, eV/Å or eV/Å^3; the first two are shown."""
    kcal = 1.0 / energy_factor("kcal/mol")
    if name == "stress":
        return {"eV/Å^3": 1.0, "GPa": 1.0 / stress_factor("GPa"), "kcal/mol/Å^3": kcal}
    length = "/Å" if name.startswith("forces") else ""
    return {f"eV{length}": 1.0, f"kcal/mol{length}": kcal}


def _chunks(structures: StructureSet, indices: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Split `indices`, in order, into parts of at most MAX_ATOMS_PER_BATCH atoms (or one structure)."""
    start, atoms = 0, 0
    for position, size in enumerate(structures.n_atoms[indices]):
        if position > start and atoms + size > MAX_ATOMS_PER_BATCH:
            yield indices[start:position]
            start, atoms = position, 0
        atoms += int(size)
    if start < len(indices):
        yield indices[start:]


def _joined(parts: list[NDArray[np.float64]], empty: tuple[int, ...]) -> NDArray[np.float64]:
    return np.concatenate(parts) if parts else np.zeros(empty)


Part = Literal["all", "train", "val", "test"]


def _argument(metavar: str) -> Any:
    """An option that need not be given; its default, None, says nothing to a reader."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


@dataclass(frozen=True)
class Options:
    """Errors of a trained model on a set of structures with labels.

    Without --data: on the test part of the run's own data. A table goes to standard output.
    """

    run: tyro.conf.Positional[Path]
    """Run folder (its best.pt is taken) or checkpoint file."""
    data: Annotated[Path | None, _argument("FILE")] = None
    """Structures and labels to compare with."""
    units: Annotated[str | None, _argument("UNITS")] = None
    """Units of a file that does not state them, for example 'kcal/mol, Angstrom'."""
    energy_key: Annotated[str | None, _argument("NAME")] = None
    """Which energy to compare with where the file holds several, for example U0."""
    part: Annotated[Part | None, _argument("{all,train,val,test}")] = None
    """Part of the run's split.npz; if not given: all of --data, or test of the run's own data."""
    json: Annotated[Path | None, _argument("OUT")] = None
    """Write the errors to this file, as JSON."""
    plot: Annotated[Path | None, _argument("OUT")] = None
    """Draw predicted against reference into this file, .png, .pdf or .svg."""
    device: str = "cpu"
    """cpu, cuda or cuda:1."""


@dataclass(frozen=True, eq=False)
class _Source:
    """Structures to evaluate on, and words that say which these are."""

    structures: StructureSet
    name: str
    part: str


def main(arguments: list[str] | None = None) -> int:
    """Evaluate as the command line says; returns the exit status, 0 done or 1 failed.

    Args:
        arguments: without the program's name; None: those of the process. Wrong usage ends the
            process with status 2.
    """
    options = tyro.cli(Options, prog="python -m scschnet.evaluate", args=arguments)
    try:
        _evaluate(options)
    except (OSError, ValueError, RuntimeError) as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    return 0


def _evaluate(options: Options) -> None:
    from scschnet.analysis.parity import plot_parity
    from scschnet.analysis.plots import check_format

    if options.plot is not None:
        check_format(options.plot)  # before the work, not after it
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"`device` must be cpu, torch finds no CUDA device, got {options.device}")
    file = checkpoint_path(options.run)
    model = load(file).to(options.device)
    source = _read(options, file.parent)
    _check(model, source)
    labels = source.structures
    with tqdm(
        total=len(labels), unit=" structures", disable=not sys.stderr.isatty(), leave=False
    ) as bar:
        predictions = predict(
            model,
            labels,
            forces=bool(labels.labeled["forces"].any()),
            stress=bool(labels.labeled["stress"].any()),
            progress=bar.update,
        )
    found = errors_in_detail(predictions, labels)
    print(_table(file, model, source, found))
    if options.json is not None:
        content = {
            "checkpoint": str(file),
            "data": source.name,
            "part": source.part,
            "n_structures": len(labels),
            "n_atoms": len(labels.positions),
            **{name: in_units(name, value) for name, value in found.items()},
        }
        with replacing(options.json) as temporary:
            temporary.write_text(json_format.dumps(content, indent=2, ensure_ascii=False) + "\n")
        print(options.json)
    if options.plot is not None:
        print(plot_parity(predictions, labels, options.plot))


def _read(options: Options, run: Path) -> _Source:
    """The structures the options ask for, from --data or as the run folder says."""
    config = _run_options(run)
    units, energy_key = options.units, options.energy_key
    if options.data is None:
        if config is None:
            raise ValueError(
                f"name a file with --data: {run} is no run folder, it has no config.toml"
            )
        name, part = config["data"], options.part or "test"
        units, energy_key = (
            units or config["units"] or None,
            energy_key or config["energy_key"] or None,
        )
        if name and not Path(name).is_file():
            raise FileNotFoundError(
                f"the data of the run, {name}, are not there; name a file with --data"
            )
    else:
        name, part = str(options.data), options.part or "all"
    if not name:
        structures, name = data_sets.embedded.load(), "embedded MD17 ethanol"
    else:
        structures = data_sets.read(name, units=units, energy_key=energy_key)
    if part != "all":
        structures = _part(structures, run / "split.npz", part)
    elif (
        config is not None
        and config["data"]
        and Path(config["data"]).resolve() == Path(name).resolve()
    ):
        print(
            "note: these are the run's own data, training part included; --part test leaves it out",
            file=sys.stderr,
        )
    return _Source(structures, name, part)


def _part(structures: StructureSet, split: Path, part: str) -> StructureSet:
    if not split.is_file():
        raise FileNotFoundError(
            f"`part` {part} needs the split of the run, but there is no {split}"
        )
    indices = getattr(load_split(split, len(structures)), part)
    if not len(indices):
        raise ValueError(f"the {part} part in {split} is empty; take another --part, or --data")
    return structures.select(indices)


def _run_options(run: Path) -> dict[str, str] | None:
    """Where the data of a run come from, or None if the folder is none of a run."""
    file = run / "config.toml"
    if not file.is_file():
        return None
    try:
        config = tomllib.loads(file.read_text())
    except tomllib.TOMLDecodeError as failure:
        raise ValueError(f"{file} is not valid TOML: {failure}") from failure
    return {name: str(config.get(name, "")) for name in ("data", "units", "energy_key")}


def _check(model: SchNet, source: _Source) -> None:
    """Stop where a model cannot be compared with the set."""
    structures = source.structures
    known = np.array(model.config.elements)
    unknown = np.setdiff1d(structures.elements, known)
    if unknown.size:
        strange = np.unique(structures.idx_m[np.isin(structures.atomic_numbers, unknown)])
        raise ValueError(
            f"{source.name} must hold only {_symbols(known)}, the elements the model was trained on, "
            f"got {_symbols(unknown)} in {len(strange):,} of {len(structures):,} structures"
        )
    if not any(has.any() for has in structures.labeled.values()):
        raise ValueError(f"{source.name} holds no energy, forces or stress to compare with")


def _symbols(numbers: NDArray[np.int64]) -> str:
    return ", ".join(chemical_symbols[z] for z in numbers)


def _table(file: Path, model: SchNet, source: _Source, found: dict[str, Error]) -> str:
    """Errors for people to read."""
    config, structures = model.config, source.structures
    kind = "sc-SchNet" if config.skip == "weighted" else "SchNet"
    blocks = f"{config.n_interactions} block{'' if config.n_interactions == 1 else 's'}"
    part = "" if source.part == "all" else f", {source.part} part"
    lines = [
        f"{file}: {kind}, {blocks}, cutoff {config.cutoff:g} Å",
        f"{source.name}{part}: {len(structures):,} structures, {len(structures.positions):,} atoms",
        "",
        f"{'':12}{'MAE':>11}{'RMSE':>11}{'':14}{'MAE':>11}{'RMSE':>11}{'':14}{'n':>11}",
    ]
    for name, value in found.items():
        title, _, detail = name.partition("_")
        row = f"{'  ' + detail.replace('_', ' ') if detail else title:12}"
        for unit, factor in list(_units(name).items())[:2]:
            row += f"{value.mae * factor:#11.4g}{value.rmse * factor:#11.4g} {unit:13}"
        lines.append(f"{row}{value.n:11,}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
