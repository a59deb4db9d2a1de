"""The page about clusters, docs/lammps.md: its inputs run, its batch script runs, its commands and options exist."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from lammps_host import environment, read_dump, run
from test_lammps import water
from test_lammps_uncertainty import model_file as committee_file
from test_lammps_unfamiliarity import model_file

pytestmark = pytest.mark.slow  # LAMMPS, and a compiler for its plugin

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "lammps.md").read_text()
RESTART, HALT, UNCERTAIN = re.findall(r"```lammps\n(.*?)```", PAGE, re.S)
(SCRIPT,) = (text for text in re.findall(r"```bash\n(.*?)```", PAGE, re.S) if "#SBATCH" in text)


@pytest.fixture
def place(tmp_path):
    """Structure and model under the names of the page; types 1 and 2 are hydrogen and oxygen."""
    s = water()
    atoms = ase.Atoms(s.numbers, s.positions, cell=s.cell, pbc=True)
    options = {"format": "lammps-data", "specorder": ["H", "O"], "masses": True}
    ase.io.write(tmp_path / "water.data", atoms, **options)
    shutil.copy(model_file(), tmp_path / "water.pt")
    return tmp_path


def short(script: str) -> str:
    return script.replace("1000 water", "10 water").replace("2000 upto", "20 upto")


def first_job() -> str:
    """The input before the restart: the same with a structure and a pair style."""
    lines = short(RESTART).splitlines()
    assert lines[0].startswith("read_restart")
    return "\n".join(["units metal", "read_data water.data", "pair_style scschnet", *lines[1:], ""])


def test_a_second_job_goes_on_where_the_first_stopped(place):
    run(place, first_job().replace("20 upto", "10 upto"), ranks=2)
    assert (place / "water.restart.10").exists()
    out = run(place, short(RESTART))
    assert re.search(r"\n\s+10 .*\n(.*\n)*?\s+20 ", out)
    assert (place / "water.restart.20").exists()


def test_a_run_stops_where_the_model_has_seen_nothing(place):
    script = first_job().replace("run          20", f"{HALT}thermo 10\nrun          20")
    assert "c_worst" in run(place, script)
    assert "Fix halt condition for fix-id stop met" in run(
        place, script.replace("> 3.0", "> 0.0"), check=False
    )


def read_frames(place: Path) -> list[np.ndarray]:
    """Uncertain frames, elements as numbers."""
    text = (place / "uncertain.lammpstrj").read_text()
    (place / "numbers").write_text(text.replace(" H ", " 1 ").replace(" O ", " 8 "))
    return read_dump(place / "numbers")


def test_error_bars_in_files_and_as_what_stops_a_run(place):
    shutil.copy(committee_file(), place / "water.pt")
    script = first_job().replace("run          20", f"{UNCERTAIN}thermo 10\nrun          20")
    script = script.replace("v_worst > 0.5", "v_worst > 1e6")
    everywhere = script.replace("c_bars[4] < 0.2", "c_bars[4] < 0.0")
    out = run(place, everywhere, ranks=2)
    assert "c_bars[4]" in out
    title, *rows = (place / "model_devi.out").read_text().splitlines()[1:]
    columns = "max_devi_v min_devi_v avg_devi_v max_devi_f min_devi_f avg_devi_f"
    assert title == f"# step {columns}"
    values = np.array([row.split() for row in rows], dtype=float)
    assert values[:, 0].tolist() == [0, 10, 20]
    frames = read_frames(place)
    for (_, *_, largest, smallest, mean), frame in zip(values, frames, strict=True):
        bars = frame[:, -1]
        found = [bars.max(), bars.min(), bars.mean()]
        np.testing.assert_allclose([largest, smallest, mean], found, rtol=1e-4)

    median = np.median(frames[0][:, -1])
    some = everywhere.replace("thresh c_bars > 0.2", f"thresh c_bars > {median}")
    between = np.sort(values[:, 4])[:2].mean()
    some = some.replace("c_bars[4] < 0.0", f"c_bars[4] < {between}")
    run(place, some)
    assert len(read_frames(place)) == 2
    lines = (place / "atoms.lammpstrj").read_text().splitlines()
    assert lines[lines.index("ITEM: NUMBER OF ATOMS") + 1] == "96"
    stopped = run(place, script.replace("v_worst > 1e6", "v_worst > 0.0"), check=False)
    assert "Fix halt condition for fix-id stop met" in stopped


def test_the_batch_script(place):
    (place / "in.water").write_text(first_job())
    script = re.sub(r"(?m)^(module|\. ~).*\n", "", SCRIPT)
    assert len(script.splitlines()) == len(SCRIPT.splitlines()) - 2
    variables = environment() | {"SLURM_NTASKS": "2"}
    variables.pop("OMP_NUM_THREADS")
    done = subprocess.run(
        ["bash", "-ec", script], cwd=place, env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    log = (place / "water.log").read_text()
    assert "using 1 OpenMP thread(s) per MPI task" in done.stdout
    assert "1 by 1 by 2 MPI processor grid" in log or "2 MPI" in done.stdout


def test_an_input_can_be_read_without_a_run(place):
    assert "lmp -in in.water -skiprun" in PAGE
    (place / "in.water").write_text(first_job())
    done = subprocess.run(
        ["lmp", "-in", "in.water", "-skiprun"], cwd=place, env=environment(), capture_output=True
    )
    assert done.returncode == 0
    assert not (place / "water.restart.20").exists()


def test_commands_and_options_exist():
    """Each command that the page calls knows the options it is called with."""
    called = re.findall(r"scschnet (lammps|export|info)( build)?((?: --[a-z-]+| -o)?)", PAGE)
    assert {name for name, _, _ in called} == {"lammps", "export", "info"}
    for name, command, option in set(called) | {("export", "", " --portable")}:
        words = [sys.executable, "-m", "scschnet", name, *command.split(), "--help"]
        done = subprocess.run(words, capture_output=True, text=True, env=dict(os.environ))
        assert done.returncode == 0, done.stderr
        assert option.strip() in done.stdout


def test_numbers_of_the_page_are_those_of_the_code():
    source = ROOT / "scschnet" / "lammps" / "src" / "masses.hpp"
    (tolerance,) = re.findall(r"mass_tolerance = ([\d.]+);", source.read_text())
    assert f"within {tolerance} g/mol" in PAGE
    results = (ROOT / "benchmarks" / "lammps" / "RESULTS.md").read_text()
    for atoms, ratio in (("1,536", 1.6), ("12,288", 1.7)):
        found = re.search(rf"\| {atoms} \| float32 \| 2 rank\(s\).*?\| ([\d.]+)x", results)
        assert found is not None
        assert np.isclose(float(found[1]), ratio, atol=0.06)
