"""Structures and their labels: reading, batching, splitting. Everything inside is eV and Å."""

from scschnet.data import embedded
from scschnet.data.batch import Batch, collate
from scschnet.data.habits import label_hint
from scschnet.data.join import join
from scschnet.data.readers import read, write_hdf5
from scschnet.data.readers.atoms import from_atoms
from scschnet.data.split import Split, evenly, load_split, random_split, save_split
from scschnet.data.structure import StructureSet
from scschnet.data.summary import summary_table
from scschnet.data.usable import check_usable

__all__ = [
    "Batch",
    "Split",
    "StructureSet",
    "check_usable",
    "collate",
    "embedded",
    "evenly",
    "from_atoms",
    "join",
    "label_hint",
    "load_split",
    "random_split",
    "read",
    "save_split",
    "summary_table",
    "write_hdf5",
]
