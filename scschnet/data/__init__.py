"""Structures and their labels: reading, batching, splitting. Everything inside is eV and Å."""

from scschnet.data import embedded
from scschnet.data.batch import Batch, collate
from scschnet.data.readers import read, write_hdf5
from scschnet.data.split import Split, load_split, random_split, save_split
from scschnet.data.structure import StructureSet
from scschnet.data.summary import summary_table

__all__ = [
    "Batch",
    "Split",
    "StructureSet",
    "collate",
    "embedded",
    "load_split",
    "random_split",
    "read",
    "save_split",
    "summary_table",
    "write_hdf5",
]
