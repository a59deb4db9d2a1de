"""Readout heads by name. A new one is a file in this folder, and its name in the line below."""

from scschnet.nn.head.contract import Head

HEADS: dict[str, type[Head]] = {}

__all__ = ["HEADS", "Head"]
