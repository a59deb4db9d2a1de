"""Cutoff functions by name. A new one is a file in this folder, and its name in both lines below."""

from typing import Literal

from scschnet.nn.cutoff.contract import CutoffFunction
from scschnet.nn.cutoff.cosine import CosineCutoff
from scschnet.nn.cutoff.none import NoCutoff

CutoffFunctionName = Literal["cosine", "none"]
CUTOFF_FUNCTIONS: dict[str, type[CutoffFunction]] = {"cosine": CosineCutoff, "none": NoCutoff}

__all__ = ["CUTOFF_FUNCTIONS", "CosineCutoff", "CutoffFunction", "CutoffFunctionName", "NoCutoff"]
