"""Pair terms by name. A new one is a file in this folder, and its name in both lines below."""

from typing import Literal

from scschnet.nn.pair_term.contract import PairTerm, add_to_atoms
from scschnet.nn.pair_term.data import DataRepulsion
from scschnet.nn.pair_term.zbl import ZBL

RepulsionName = Literal["none", "zbl", "data"]
PAIR_TERMS: dict[str, type[PairTerm]] = {"zbl": ZBL, "data": DataRepulsion}

__all__ = ["PAIR_TERMS", "ZBL", "DataRepulsion", "PairTerm", "RepulsionName", "add_to_atoms"]
