"""The .pt2 file: the pair call compiled ahead of time by AOTInductor, for the time after TorchScript.

Inputs: atomic_numbers (n_atoms,), idx_i, idx_j (n_pairs,) int64, r_ij (n_pairs, 3) float64, and `local` (n_local,) bool,
of which only the length counts. Outputs: `outputs`, in this order, float64. Ghosts are one cutoff deep and exchanged
between blocks, as in `Potential.forward_pairs` with `halo`. scschnet's operators stay calls, so that the file needs
libscschnet_ops.so, and torch must be of the minor version it was compiled with.
"""

import io
from typing import Any, cast

import torch
from torch import Tensor, nn

from scschnet.export.potential import FullPotential
from scschnet.export.torchscript import torchscript_deprecation_ignored
from scschnet.nn.error_bars import NAMES

# All arithmetic that counts is inside of scschnet's operators, which choose their instructions when they run; the rest
# is compiled for any CPU of the kind, quickly.
OPTIONS: dict[str, Any] = {
    "aot_inductor.package": True,
    "aot_inductor.compile_wrapper_opt_level": "O1",
    "cpp.simdlen": 1,
    "cpp.march": "",
}


def outputs(has_statistics: bool, has_error_bars: bool = False) -> tuple[str, ...]:
    """Names of the results, in order.

    Args:
        has_statistics: whether the model has statistics of its training set.
        has_error_bars: whether it has statistics of its errors.
    """
    always = ("energy", "energies", "forces", "virial", "correction_norms")
    scores = ("unfamiliarity",) if has_statistics else ()
    return (*always, *scores, *(NAMES if has_error_bars else ()))


class PairCall(nn.Module):
    """The pair call with tensors alone.

    Args:
        potential: what is evaluated; its results are not checked, that is up to the host.
    """

    def __init__(self, potential: FullPotential) -> None:
        super().__init__()
        self.potential = potential
        self.outputs = outputs(potential.has_statistics, potential.has_error_bars)
        potential.checked = False
        potential.weights.kept = False

    def forward(
        self, atomic_numbers: Tensor, idx_i: Tensor, idx_j: Tensor, r_ij: Tensor, local: Tensor
    ) -> tuple[Tensor, ...]:
        """Args: as in the module's docstring. Returns: `outputs`."""
        result = self.potential.forward_pairs(
            atomic_numbers, idx_i, idx_j, r_ij, local.shape[0], True
        )
        return tuple(result[name] for name in self.outputs)


def compile_pairs(potential: FullPotential, extra: dict[str, str]) -> bytes:
    """Compile a potential's pair call; takes a C++ compiler and about half a minute.

    Args:
        potential: what is evaluated.
        extra: records to store beside, name and content.

    Returns:
        The content of a .pt2 file.
    """
    from torch._inductor import aot_compile
    from torch.export import Dim, export
    from torch.export.pt2_archive._package import package_pt2

    n_atoms, n_pairs, n_local = (Dim(name, min=2) for name in ("n_atoms", "n_pairs", "n_local"))
    # Every example a tensor of its own: one that stands twice is taken for one input.
    z, i, j = (torch.zeros(n, dtype=torch.int64) for n in (5, 7, 7))
    example = (z, i, j, torch.ones(7, 3, dtype=torch.float64), torch.zeros(3, dtype=torch.bool))
    shapes = ({0: n_atoms}, {0: n_pairs}, {0: n_pairs}, {0: n_pairs}, {0: n_local})
    program = export(PairCall(potential), example, dynamic_shapes=shapes, strict=False)
    with torchscript_deprecation_ignored():  # parts of torch use it
        files = aot_compile(cast(Any, program.module()), example, options=OPTIONS)
    content = io.BytesIO()
    package_pt2(content, aoti_files={"model": cast(Any, files)}, extra_files=extra)
    return content.getvalue()
