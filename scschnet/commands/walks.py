"""`scschnet analysis walks`: its options, and what it prints and writes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from scschnet.analysis import plots
from scschnet.analysis.tables import table_beside
from scschnet.analysis.walks import BODIES, WalkSummary, plot_walks, summarize_walks
from scschnet.checkpoint import load
from scschnet.commands.line import Run, optional, out_option
from scschnet.data import evenly, read
from scschnet.kinds import Kind, expect
from scschnet.nn import SchNet
from scschnet.runs.run import in_float64, read_run


@dataclass(frozen=True)
class Walks:
    """Relevance of bonds, angles and torsions for the energy: the network's own two-, three- and four-body terms.

    Layer-wise relevance propagation along walks from atom to atom through the blocks (GNN-LRP, rule LRP-0). The relevance
    of a set of atoms is that of all walks that visit these and no others; relevances add up to the energy above its zero.
    Draws the sums over bonds, pairs, angles, torsions and what is left; the CSV has them by elements.
    """

    run: Run
    """Run folder; with --frames a checkpoint file, too, such as that of a model taken over from SchNetPack."""
    frames: Annotated[Path | None, optional("FILE")] = None
    """File of structures; else some that the run held out."""
    units: Annotated[str, optional("UNITS")] = ""
    """Units of a file that does not state them, for example 'kcal/mol, Angstrom'."""
    out: Annotated[Path, out_option()] = Path("walks.png")
    """Figure to write: .png, .pdf or .svg."""
    n_frames: int = 5
    """Structures, taken evenly from the file or the held-out ones."""
    bodies: int = BODIES
    """Largest number of atoms in a set, 1 to 4."""

    def __call__(self) -> None:
        """Take apart, draw, write and print."""
        plots.check_format(self.out)
        if self.n_frames < 1:
            raise ValueError(f"`n_frames` must be at least 1, got {self.n_frames}")
        if self.frames is None:
            run = read_run(self.run)
            model: SchNet = run.model
            structures = run.held_out
        else:
            expect(self.run, Kind.RUN, Kind.CHECKPOINT)
            expect(self.frames, Kind.STRUCTURES, Kind.OTHER, option="--frames")
            model = in_float64(load(self.run))
            structures = read(self.frames, units=self.units or None)
        found = summarize_walks(model, evenly(structures, 10**9, self.n_frames), self.bodies)
        plot_walks(found, self.out)
        print(walks_table(found))
        print(f"\n{self.out}\n{table_beside(self.out)}")


def walks_table(found: WalkSummary) -> str:
    """Sums of relevances by kind, as text."""
    lines = [f"{'sets of atoms':16}{'relevance eV':>14}{'± frames':>10}{'sum of |R| eV':>15}"]
    for kind, sums, sizes in found.by_kind():
        lines.append(f"{kind:16}{sums.mean():14.3f}{sums.std():10.3f}{sizes.mean():15.3f}")
    for name, values in (("more atoms", found.rest), ("all", found.totals)):
        lines.append(f"{name:16}{values.mean():14.3f}{values.std():10.3f}")
    lines.append(f"completeness: off by {found.off:.1e} of the sum of |R|")
    return "\n".join(lines)
