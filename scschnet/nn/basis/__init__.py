"""Radial bases by name. A new one is a file in this folder, and its name in both lines below."""

from typing import Literal

from scschnet.nn.basis.bessel import BesselBasis
from scschnet.nn.basis.contract import RadialBasis
from scschnet.nn.basis.gaussian import GaussianBasis

RadialBasisName = Literal["gaussian", "bessel"]
RADIAL_BASES: dict[str, type[RadialBasis]] = {"gaussian": GaussianBasis, "bessel": BesselBasis}

__all__ = ["RADIAL_BASES", "BesselBasis", "GaussianBasis", "RadialBasis", "RadialBasisName"]
