"""What fixes the shape and the function of a model."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

from torch import nn

from scschnet.nn.basis import RADIAL_BASES, RadialBasisName
from scschnet.nn.cutoff import CUTOFF_FUNCTIONS, CutoffFunctionName
from scschnet.nn.head import HEADS
from scschnet.nn.pair_term import PAIR_TERMS, RepulsionName
from scschnet.properties import Property, checked, parse_property

Skip = Literal["weighted", "plain"]

# The options of `ModelConfig` that name a class; what can be named is what is registered.
REGISTRIES: dict[str, Collection[str]] = {
    "radial_basis": RADIAL_BASES,
    "cutoff_function": CUTOFF_FUNCTIONS,
    "repulsion": ("none", *PAIR_TERMS),
}

MAX_Z = 118
MOST = 10_000  # features, blocks or functions
SHORTEST, LONGEST = 0.01, 1000.0  # Å, for a cutoff


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes the shape and the function of a model; stored in every checkpoint."""

    elements: tuple[int, ...]  # atomic numbers the model was made for, ascending
    n_features: int = 128  # features per atom, and filters per convolution
    n_interactions: int = 6  # interaction blocks L
    n_rbf: int = 25  # functions of the radial basis
    cutoff: float = 5.0  # Å, pairs beyond it do not exist for the model
    rbf_range: float | None = None  # Å, center of the last Gaussian; None: the cutoff
    cutoff_function: CutoffFunctionName = "cosine"
    skip: Skip = "weighted"  # weighted: sc-SchNet, plain: SchNet
    radial_basis: RadialBasisName = "gaussian"
    repulsion: RepulsionName = "none"  # pair term that is added to the network's energy
    heads: tuple[
        Property, ...
    ] = ()  # properties beside the energy; may be given as "mu" or "NAME:KIND", too
    energy: bool = True  # whether it was trained on energies or forces; if not, it has none

    def __post_init__(self) -> None:
        object.__setattr__(self, "elements", tuple(int(z) for z in self.elements))
        heads = (parse_property(p) if isinstance(p, str) else Property(*p) for p in self.heads)
        object.__setattr__(self, "heads", tuple(checked(given) for given in heads))
        if not self.elements or list(self.elements) != sorted(set(self.elements)):
            raise ValueError(f"`elements` must be ascending and distinct, got {self.elements}")
        if self.elements[0] < 1 or self.elements[-1] > MAX_Z:
            raise ValueError(f"`elements` must lie between 1 and {MAX_Z}, got {self.elements}")
        for name, least in (("n_features", 2), ("n_interactions", 0), ("n_rbf", 2)):
            if not least <= getattr(self, name) <= MOST:
                raise ValueError(
                    f"`{name}` must lie between {least} and {MOST}, got {getattr(self, name)}"
                )
        for name, length in (("cutoff", self.cutoff), ("rbf_range", self.rbf_range)):
            if length is not None and not SHORTEST <= length <= LONGEST:
                raise ValueError(
                    f"`{name}` must lie between {SHORTEST:g} and {LONGEST:g} Å, got {length:g}"
                )
        for head in self.heads:
            if hasattr(nn.ModuleDict, head.name):
                raise ValueError(f"`properties` must not be named {head.name}, a word of torch's")
            if head.kind not in HEADS:
                raise ValueError(
                    f"`properties` {head.name} must be of one of the kinds {', '.join(HEADS)}, got {head.kind}"
                )
        if not self.energy and not self.heads:
            raise ValueError("`heads` must name a property, since there is no energy, got none")
        for name, choices in get_type_hints(ModelConfig).items():
            if get_args(choices) and getattr(choices, "__origin__", None) is Literal:
                known = REGISTRIES.get(name, get_args(choices))
                check_choice(name, getattr(self, name), tuple(known))


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise ValueError unless an option has one of the values it may have."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(str, choices))}, got {value}")
