"""torch-sim: a trained model behind its model interface. Needs `pip install torch-sim-atomistic`."""

import os

import torch
from torch import Tensor
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from scschnet import ops
from scschnet.committee import load
from scschnet.nn import SchNet
from scschnet.nn.committee import Committee


class ScSchNetModel(ModelInterface):  # type: ignore[misc]
    """A trained model for torch-sim; many systems are evaluated as one batch.

    Args:
        path_or_model: run folder, checkpoint file, committee folder, or a model or committee.
        dtype: of positions and results, float64 or float32; the network runs in the model's own.

    Raises:
        ValueError: when called: if a system holds an element the model does not know.
    """

    def __init__(
        self,
        path_or_model: str | os.PathLike[str] | SchNet | Committee,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if isinstance(path_or_model, (SchNet, Committee)):
            model = path_or_model
        else:
            model = load(path_or_model)
        self.model = model.requires_grad_(False).eval()
        self._dtype = dtype
        self._device = torch.device("cpu")
        self._compute_stress = self._compute_forces = True
        self._memory_scales_with = "n_atoms_x_density"
        self.register_buffer("_known", torch.tensor(model.config.elements))

    def forward(self, state: SimState | dict) -> dict[str, Tensor]:
        """Evaluate all systems of a state.

        Args:
            state: torch-sim's state, or its fields in a dict.

        Returns:
            energy (n_systems,) eV; forces (n_atoms, 3) eV/Å; stress (n_systems, 3, 3) eV/Å^3, tension positive, NaN
            for a system without volume. Of a committee besides energy_std (n_systems,) eV, energies_std (n_atoms,)
            eV and forces_std (n_atoms,) eV/Å.
        """
        if isinstance(state, dict):
            state = SimState(**state, masses=torch.ones_like(state["positions"][:, 0]))
        numbers = state.atomic_numbers.long()
        unknown = numbers[~torch.isin(numbers, self._known)].unique()
        if len(unknown):
            raise ValueError(
                f"`atomic_numbers` must hold only {self._known.tolist()}, the elements of the model, got "
                f"{unknown.tolist()}"
            )
        positions, cells = state.positions.double(), state.row_vector_cell.double().contiguous()
        idx_m = state.system_idx
        atom_ptr = torch.zeros(len(cells) + 1, dtype=torch.int64)
        atom_ptr[1:] = torch.bincount(idx_m, minlength=len(cells)).cumsum(0)
        pbc = torch.as_tensor(state.pbc).expand(len(cells), 3).contiguous()
        idx_i, idx_j, shifts, _ = ops.neighbor_list(
            positions, atom_ptr, cells, pbc, self.model.config.cutoff
        )
        with torch.no_grad():
            found = self.model(
                positions, numbers, idx_m, cells, idx_i, idx_j, shifts, forces=True, stress=True
            )
        names = ("energy", "forces", "stress", "energy_std", "energies_std", "forces_std")
        return {name: found[name].to(self._dtype) for name in names if name in found}
