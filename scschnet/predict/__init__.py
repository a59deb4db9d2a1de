"""What a trained model says of structures, from Python; `scschnet predict` writes it beside frames of any number."""

import os

from scschnet.callable import let_call
from scschnet.committee import load
from scschnet.data.readers.given import Structures, structures_of
from scschnet.evaluate import Predictions, check_elements
from scschnet.evaluate import predict as predict_set
from scschnet.nn import SchNet
from scschnet.nn.committee import Committee

__all__ = ["predict"]


def predict(
    model: SchNet | Committee | str | os.PathLike[str],
    structures: Structures,
    *,
    forces: bool = True,
    stress: bool = False,
    units: str | None = None,
    device: str = "cpu",
) -> Predictions:
    """Energy, forces and stress of many structures at once, in batches.

    For molecular dynamics take `ScSchNetCalculator`, which keeps neighbors from step to step.

    Args:
        model: a model or committee, a run folder (its best.pt is taken), a checkpoint or a committee folder.
        structures: a set, one or several of ASE's Atoms, or a file, read whole. Labels are not looked at.
        forces: whether to predict forces.
        stress: whether to predict stress.
        units: of a file that does not state them, for example 'kcal/mol, Angstrom'.
        device: where to compute: cpu, cuda or cuda:1; the model is moved there.

    Returns:
        energy (n_structures,), eV, or None of a model without one; forces (n_atoms of all structures, 3), eV/Å, or
        None; stress (n_structures, 3, 3), eV/Å^3, or None; of a committee energy_std (n_structures,), eV, and with the
        forces forces_std (n_atoms of all structures,), eV/Å; properties of the model, each in its unit. The same bits for the same model and structures on one machine.

    Raises:
        FileNotFoundError, TypeError, ValueError: if the model or the structures cannot be read, or they hold
            elements that the model was not trained on.
    """
    network = (model if isinstance(model, (SchNet, Committee)) else load(model)).to(device)
    chosen = structures_of(structures, units)
    check_elements(network, chosen)
    return predict_set(network, chosen, forces=forces, stress=stress)


let_call(__name__, predict)
