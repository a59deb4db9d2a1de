"""Readout heads by kind. A new one is a file in this folder, and its name in the line below."""

from scschnet.nn.head.contract import Head
from scschnet.nn.head.dipole import DipoleHead, DipoleNormHead
from scschnet.nn.head.extent import ExtentHead
from scschnet.nn.head.sums import MeanHead, SumHead

HEADS: dict[str, type[Head]] = {
    "sum": SumHead,
    "mean": MeanHead,
    "dipole": DipoleHead,
    "dipole_norm": DipoleNormHead,
    "extent": ExtentHead,
}

__all__ = ["HEADS", "Head"]
