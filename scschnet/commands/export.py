"""`scschnet export`: options, and what is printed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from scschnet.commands.line import Device, Runs, failed, optional, out_option, parse
from scschnet.export.writer import Dtype, Format, Host, export


@dataclass(frozen=True)
class Options:
    """Write a trained model to a file for LAMMPS, C++ programs and other hosts.

    scschnet info FILE prints what such a file is.
    """

    runs: Runs
    """Run folder (its best.pt is taken) or checkpoint file; a committee folder, or several runs: their mean and error bars."""
    out: Annotated[Path, out_option()]
    """File to write, for example ethanol.pt."""
    dtype: Annotated[Dtype | None, optional("{float32,float64}")] = None
    """Precision of the network; if not given: as trained. Everything around it is float64."""
    portable: bool = False
    """Plain torch operators only: slower, no message passing between processes, needs no library of scschnet."""
    format: Format = "torchscript"
    """torchscript, or pt2: the pair call alone, compiled by AOTInductor for this machine (minutes)."""
    host: Host = "any"
    """gromacs: inputs, units and outputs of GROMACS' NNPot interface; openmm-torch: those of its TorchForce."""
    atomic_numbers: Annotated[tuple[int, ...] | None, optional("Z [Z ...]")] = None
    """For openmm-torch: of all particles of the system, in their order."""
    device: Device = "cpu"
    """Where the model lies in the file: cpu, or cuda with --portable."""


OPTIONS = Options


def main(arguments: Sequence[str] | None = None) -> int:
    """Export as the command line says; returns the exit status, 0 done or 1 failed.

    Args:
        arguments: without the program's name; None: those of the process. Wrong usage ends the
            process with status 2.
    """
    options = parse(Options, "export", arguments)
    try:
        metadata = export(
            options.runs[0] if len(options.runs) == 1 else options.runs,
            options.out,
            dtype=options.dtype,
            portable=options.portable,
            format=options.format,
            host=options.host,
            atomic_numbers=options.atomic_numbers,
            device=options.device,
        )
    except (OSError, ValueError, RuntimeError) as failure:
        return failed(failure, options)
    bars = metadata.get("error_bars")
    what = f"committee of {bars['n_members']}, " if bars and "n_members" in bars else ""
    print(
        f"{options.out}: {what}{', '.join(metadata['symbols'])}, {metadata['n_interactions']} blocks, cutoff "
        f"{metadata['cutoff']:g} Å, {metadata['dtype']}"
    )
    return 0
