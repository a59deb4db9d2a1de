"""`scschnet predict`: what a trained model says of frames, written beside them."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import ase.io
import tyro
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError, all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from tqdm import tqdm

from scschnet.calculator import ERROR_BARS, ScSchNetCalculator
from scschnet.commands.line import Device, Run, failed, out_option, parse
from scschnet.device import check_device
from scschnet.files import replacing
from scschnet.kinds import Kind, expect
from scschnet.quantities import QUANTITIES


@dataclass(frozen=True)
class Options:
    """Energy, forces, for a cell with a volume stress, and properties of every frame, with labels or without.

    Frames are read and written one by one, so that a trajectory of any length fits. What a frame holds stays in it;
    labels of its own are kept as REF_energy, REF_forces, REF_stress and REF_ before names of properties. Every atom
    gets its unfamiliarity, if the model has statistics of its training set: above 1 it is stranger than 99 % of the
    held-out atoms; and, if the model knows its errors or is a committee, error bars: energy_std and, per atom,
    energies_std and forces_std.
    """

    run: Run
    """Run folder (its best.pt is taken), checkpoint file, committee folder or exported file."""
    frames: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FRAMES")]
    """File of structures or trajectory that ASE reads (extxyz, xyz, db, traj, LAMMPS dump with elements, ...)."""
    out: Annotated[Path, out_option()]
    """Extended XYZ file to write, .extxyz or .xyz."""
    device: Device = "cpu"
    """Where to compute: cpu, cuda (the first GPU) or cuda:1 (the second)."""


OPTIONS = Options


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict as the command line says; returns the exit status, 0 done or 1 failed.

    Args:
        arguments: without the program's name; None: those of the process. Wrong usage ends the
            process with status 2.
    """
    options = parse(Options, "predict", arguments)
    try:
        n_frames = _predict(options)
    except (OSError, ValueError, RuntimeError) as failure:
        return failed(failure, options)
    print(f"{options.out}: {n_frames} frames")
    return 0


def _predict(options: Options) -> int:
    if options.out.suffix not in (".extxyz", ".xyz"):
        raise ValueError(f"`--out` must end in .extxyz or .xyz, got {options.out}")
    check_device(options.device)
    expect(options.run, Kind.RUN, Kind.CHECKPOINT, Kind.COMMITTEE, Kind.EXPORTED)
    expect(options.frames, Kind.STRUCTURES, Kind.OTHER)
    calculator = ScSchNetCalculator(options.run, device=options.device)
    n_frames = 0
    frames = tqdm(read_frames(options.frames), unit=" frames", disable=None, leave=False)
    with replacing(options.out) as temporary:
        with temporary.open("w", encoding="utf-8") as stream:
            for atoms in frames:
                try:
                    predicted = _with_results(atoms, calculator)
                except ValueError as failure:
                    raise ValueError(
                        f"frame {n_frames} of {options.frames}: {failure}"
                    ) from failure
                ase.io.write(stream, predicted, format="extxyz")
                n_frames += 1
        if not n_frames:
            raise ValueError(f"{options.frames} holds no structure")
    return n_frames


def read_frames(file: Path) -> Iterator[Atoms]:
    """The frames of a file, one by one.

    Args:
        file: of any format that ASE reads.

    Raises:
        ValueError: if ASE cannot read it.
    """
    try:
        yield from ase.io.iread(file, index=":")
    except (ase.io.formats.UnknownFileTypeError, KeyError, IndexError, AttributeError) as failure:
        raise ValueError(f"ASE cannot read {file}: {failure}") from failure


def _with_results(atoms: Atoms, calculator: ScSchNetCalculator) -> Atoms:
    """The frame with the model's results as its energy, forces and stress; its own under other names."""
    known = dict(atoms.calc.results) if atoms.calc is not None else {}
    for quantity in QUANTITIES:
        if quantity.name in known:
            place = atoms.arrays if quantity.per_atom else atoms.info
            place[f"REF_{quantity.name}"] = known[quantity.name]
    atoms.calc = calculator
    results = {}
    if "energy" in calculator.implemented_properties:
        results["forces"] = atoms.get_forces()  # brings the energy along
        results["energy"] = atoms.get_potential_energy()
        with suppress(PropertyNotImplementedError):  # a cell without volume
            results["stress"] = atoms.get_stress()
    for name in calculator.names_of_properties():
        if name in known or name in atoms.info:
            atoms.info[f"REF_{name}"] = known.get(name, atoms.info.get(name))
        atoms.info.pop(name, None)
        with suppress(PropertyNotImplementedError):  # of molecules alone
            place = results if name in all_properties else atoms.info
            place[name] = calculator.get_property(name, atoms)
    if calculator.unfamiliarity is not None:
        atoms.arrays["unfamiliarity"] = calculator.unfamiliarity.copy()
    results |= {name: calculator.results[name] for name in ERROR_BARS if name in calculator.results}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms
