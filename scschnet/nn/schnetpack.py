"""SchNet models of SchNetPack 2.2: their weights, copied into ours."""

import math
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from scschnet.nn.config import ModelConfig, Skip
from scschnet.nn.model import SchNet

_REPRESENTATION = "representation"
_BASIS = "representation.radial_basis"
_CUTOFF = "representation.cutoff_fn.cutoff"
_EMBEDDING = "representation.embedding.weight"

# Ours on the left, SchNetPack's on the right.
_BLOCK = {
    "input.weight": "in2f.weight",
    "filter_generator.hidden.weight": "filter_network.0.weight",
    "filter_generator.hidden.bias": "filter_network.0.bias",
    "filter_generator.output.weight": "filter_network.1.weight",
    "filter_generator.output.bias": "filter_network.1.bias",
    "hidden.weight": "f2out.0.weight",
    "hidden.bias": "f2out.0.bias",
    "output.weight": "f2out.1.weight",
    "output.bias": "f2out.1.bias",
}
_READOUT = {
    "hidden.weight": "outnet.0.weight",
    "hidden.bias": "outnet.0.bias",
    "output.weight": "outnet.1.weight",
    "output.bias": "outnet.1.bias",
}


def from_schnetpack(
    state_dict: Mapping[str, Tensor],
    *,
    elements: Iterable[int],
    energy_unit: float,
    readout_activation: str,
    skip: Skip = "plain",
) -> SchNet:
    """Our model with the weights of a SchNet trained by SchNetPack 2.2.

    Copies a `NeuralNetworkPotential` made of `SchNet` (`GaussianRBF` from zero, `CosineCutoff`, as
    many filters as features), one `Atomwise` energy with one hidden layer of half the features,
    `Forces`, and `AddOffsets`. SchNetPack need not be installed.

    Energies and forces are those of SchNetPack to rounding, with two differences in favor of ours:
    offsets are summed in float64 (SchNetPack sums them in the dtype of its buffers, so that 192
    atoms of water are off by 0.6 eV in float32), and the centers of the Gaussians are exact
    (SchNetPack rounds them to float32 even in a float64 model, which changes forces by about 1e-6
    of their rms).

    A `state_dict` does not hold everything: the unit of energy, the activation of `Atomwise` and
    the elements of the training set must be given. Some things cannot be checked here, so compare
    one energy: lengths must be in Å, `Atomwise` must sum over atoms, and `AddOffsets` must be
    extensive, with `add_mean` and `add_atomrefs` on where its mean and atomrefs are not zero.

    Example:
        Where SchNetPack is installed:

            model = torch.load("best_model", weights_only=False)
            torch.save(model.state_dict(), "weights.pt")

        and then anywhere:

            from_schnetpack(
                torch.load("weights.pt"),
                elements=[1, 6, 8],
                energy_unit=scschnet.units.ENERGY["kcal/mol"],
                readout_activation="shifted_softplus",
            )

    Args:
        state_dict: `NeuralNetworkPotential.state_dict()`, as tensors by name, all weights float32
            or all float64; that is then the dtype of the model.
        elements: atomic numbers the model was trained on, in any order.
        energy_unit: the energy unit of the SchNetPack model, in eV.
        readout_activation: activation given to `Atomwise`. Only "shifted_softplus" is supported;
            SchNetPack's default is silu, and must be refused rather than copied wrongly.
        skip: `plain` for SchNet; `weighted` for sc-SchNet with every contribution weight one, which
            is the same function and can be trained further.

    Returns:
        The model, with energies in eV, in training mode as any new module.

    Raises:
        ValueError: if an argument is out of range, or the weights belong to a model that cannot be
            copied; the message names the key, what was expected and what came.
        TypeError: if an entry of `state_dict` is not a tensor, or not of the dtype of the others.
    """
    if readout_activation != "shifted_softplus":
        raise ValueError(
            f"`readout_activation` must be shifted_softplus, the only one supported, "
            f"got {readout_activation}"
        )
    if not (energy_unit > 0.0 and math.isfinite(energy_unit)):
        raise ValueError(f"`energy_unit` must be positive and finite, got {energy_unit}")
    weights = _Weights(state_dict)
    config = _read_config(weights, elements, skip)
    model = SchNet(config, w_init="one").to(weights.dtype)
    with torch.no_grad():
        _copy_network(model, weights)
        _copy_offsets(model, weights, energy_unit)
    weights.check_empty()
    return model


class _Weights:
    """A state dict that remembers what has been taken, and checks it on the way."""

    def __init__(self, state_dict: Mapping[str, Tensor]) -> None:
        self._rest = dict(state_dict)
        self._names = sorted(map(str, state_dict))
        self.dtype = self[_EMBEDDING].dtype
        if self.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"`{_EMBEDDING}` must be float32 or float64, got {self.dtype}")

    def __getitem__(self, key: str) -> Tensor:
        """The entry `key`, which stays."""
        if key not in self._rest:
            raise ValueError(f"`state_dict` must have the key {key}, got {self._nearest(key)}")
        value = self._rest[key]
        if not isinstance(value, Tensor):
            raise TypeError(f"`{key}` must be a tensor, got {type(value).__name__}")
        return value.detach()

    def _nearest(self, key: str) -> str:
        """Up to three keys of the state dict that begin like `key`, for a message."""
        tasks = [name for name in self._names if name.startswith(f"model.{_REPRESENTATION}.")]
        if tasks:
            return f"{tasks[0]}: take `model.state_dict()` of the task, without the prefix model."
        parts = key.split(".")
        for n in range(len(parts) - 1, -1, -1):
            begin = "".join(f"{part}." for part in parts[:n])
            if found := [name for name in self._names if name.startswith(begin)]:
                return ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        return "no keys"

    def shape(self, key: str, n_axes: int) -> tuple[int, ...]:
        """The shape of the entry `key`, which stays."""
        shape = tuple(self[key].shape)
        if len(shape) != n_axes:
            raise ValueError(f"`{key}` must have {n_axes} axes, got shape {shape}")
        return shape

    def matching(self, pattern: str) -> list[re.Match[str]]:
        """The matches of keys not taken yet, in their order."""
        return [found for key in self._rest if (found := re.fullmatch(pattern, key))]

    def take(self, key: str, shape: tuple[int, ...]) -> Tensor:
        """The entry `key`, of a given shape and finite; it is then gone."""
        value = self[key]
        if tuple(value.shape) != shape:
            raise ValueError(f"`{key}` must have shape {shape}, got {tuple(value.shape)}")
        if not value.is_floating_point():
            raise TypeError(f"`{key}` must hold real numbers, got {value.dtype}")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"`{key}` must be finite, got a value that is not")
        del self._rest[key]
        return value

    def take_weight(self, key: str, shape: tuple[int, ...]) -> Tensor:
        """As `take`, and of the dtype that all weights share."""
        value = self.take(key, shape)
        if value.dtype != self.dtype:
            raise TypeError(f"`{key}` must be {self.dtype} as {_EMBEDDING}, got {value.dtype}")
        return value

    def check_empty(self) -> None:
        """Refuse a model with parts that were not copied."""
        if self._rest:
            raise ValueError(
                "`state_dict` must hold nothing but a SchNet with Gaussian basis and cosine "
                "cutoff, one Atomwise output with one hidden layer, and AddOffsets, "
                f"got also {', '.join(sorted(self._rest))}"
            )


def _read_config(weights: _Weights, elements: Iterable[int], skip: Skip) -> ModelConfig:
    """The options of the model: sizes from the shapes of weights, basis and cutoff function from their buffers."""
    n_rows, n_features = weights.shape(_EMBEDDING, 2)
    blocks = weights.matching(rf"{_REPRESENTATION}\.interactions\.(\d+)\..*")
    (n_rbf,) = weights.shape(f"{_BASIS}.offsets", 1)
    cutoff = _shortest_decimal(float(weights.take(_CUTOFF, (1,))))
    rbf_range = _check_basis(weights, n_rbf)
    config = ModelConfig(
        elements=tuple(sorted(set(elements))),
        n_features=n_features,
        n_interactions=max((int(block[1]) + 1 for block in blocks), default=0),
        n_rbf=n_rbf,
        cutoff=cutoff,
        rbf_range=None if rbf_range == cutoff else rbf_range,
        cutoff_function="cosine",
        skip=skip,
    )
    if config.elements[-1] >= n_rows:
        raise ValueError(
            f"`elements` must be below {n_rows}, the rows of {_EMBEDDING}, "
            f"got {config.elements[-1]}"
        )
    return config


def _check_basis(weights: _Weights, n_rbf: int) -> float:
    """The last center, Å. All centers and widths must equal ours up to SchNetPack's rounding."""
    if n_rbf < 2:
        raise ValueError(f"`{_BASIS}.offsets` must have at least 2 centers, got {n_rbf}")
    centers = weights.take(f"{_BASIS}.offsets", (n_rbf,)).double().cpu()
    widths = weights.take(f"{_BASIS}.widths", (n_rbf,)).double().cpu()
    last = _shortest_decimal(float(centers[-1]))
    if not last > 0.0:
        raise ValueError(f"`{_BASIS}.offsets` must end at a positive distance, got {last}")
    spacing = last / (n_rbf - 1)
    expected = {
        "offsets": (centers, torch.linspace(0.0, last, n_rbf, dtype=torch.float64)),
        "widths": (widths, torch.full_like(widths, spacing)),
    }
    for name, (found, value) in expected.items():
        worst = int((found - value).abs().argmax())
        if abs(found[worst] - value[worst]) > 1e-5 * spacing:
            raise ValueError(
                f"`{_BASIS}.{name}` must be those of Gaussians evenly spaced from 0 to {last} Å, "
                f"{float(value[worst]):.6g} at {worst}, got {float(found[worst]):.6g}"
            )
    return last


def _copy_network(model: SchNet, weights: _Weights) -> None:
    """Embedding, interaction blocks and readout."""
    rows = weights.take_weight(_EMBEDDING, weights.shape(_EMBEDDING, 2))
    n = min(len(rows), len(model.embedding.weight))
    model.embedding.weight[1:n] = rows[1:n]  # no atom has the number 0
    names = {
        f"interactions.{t}.{ours}": f"{_REPRESENTATION}.interactions.{t}.{theirs}"
        for t in range(model.config.n_interactions)
        for ours, theirs in _BLOCK.items()
    }
    outputs = weights.matching(r"(output_modules\.\d+)\.outnet\.0\.weight")
    prefix = outputs[0][1] if outputs else "output_modules.0"
    names |= {f"readout.{ours}": f"{prefix}.{theirs}" for ours, theirs in _READOUT.items()}
    parameters = dict(model.named_parameters())
    for ours, theirs in names.items():
        parameter = parameters[ours]
        parameter.copy_(weights.take_weight(theirs, tuple(parameter.shape)))


def _copy_offsets(model: SchNet, weights: _Weights, energy_unit: float) -> None:
    """Mean and atomrefs of every AddOffsets, which SchNetPack adds one after the other."""
    offsets = model.offsets
    offsets.scale.fill_(energy_unit)
    for found in weights.matching(r"(postprocessors\.\d+)\.mean"):
        mean = weights.take(found[0], (1,))
        offsets.shift += energy_unit * mean.double().squeeze(0)
    for found in weights.matching(r"(postprocessors\.\d+)\.atomref"):
        (n,) = weights.shape(found[0], 1)
        atomref = weights.take(found[0], (n,)).double()
        largest = max(model.config.elements)
        if n <= largest:
            raise ValueError(
                f"`{found[0]}` must reach element {largest} of `elements`, got shape ({n},)"
            )
        n = min(n, len(offsets.atomref))
        offsets.atomref[:n] += energy_unit * atomref[:n]


def _shortest_decimal(value: float) -> float:
    """The six-digit number that float32 rounds to `value`, if any: 5.3 for 5.300000190734863."""
    decimal = float(f"{value:.6g}")
    same = torch.tensor(decimal, dtype=torch.float32) == torch.tensor(value, dtype=torch.float32)
    return decimal if bool(same) else value
