"""Exported models: one file that programs without scschnet's Python run.

A file is what torch.jit.save writes, with extra records:

    extra/scschnet.json     what the file says about itself, see `scschnet.export.metadata`
    extra/extension_libs    path of the operator library, for GROMACS; not in portable files

Its module has two calls, `forward` for hosts that bring positions and `forward_pairs` for hosts that bring pairs, see
`scschnet.export.potential.Potential`. Files for GROMACS and openmm-torch have a `forward` of their own, see
`scschnet.export.gromacs` and `scschnet.export.openmm_torch`, and a .pt2 file the pair call alone, see
`scschnet.export.compiled`.
"""

from scschnet.callable import let_call
from scschnet.export.exported import ExportedModel, load_exported
from scschnet.export.writer import export

__all__ = ["ExportedModel", "export", "load_exported"]

let_call(__name__, export)
