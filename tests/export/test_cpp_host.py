"""Exported models in C++ programs without Python: the same numbers, and one sentence for every mistake."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import ase.data
import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from conftest import make_model

import scschnet
from scschnet.calculator import ScSchNetCalculator
from scschnet.checkpoint import Checkpoint, save_checkpoint
from scschnet.data import embedded
from scschnet.evaluate.norm_statistics import norm_statistics
from scschnet.export import export, load_exported
from scschnet.nn.unfamiliarity import KEY
from scschnet.units import ENERGY

pytestmark = pytest.mark.slow  # compiles programs

SOURCE = Path(__file__).parents[2] / "csrc/tests/hosts"
KEYS = [
    "energy",
    "energies",
    "forces",
    "virial",
    "correction_norms",
    "layer_energies",
    "base_energies",
    "atom_virial",
]
ERROR_BARS = [
    *("energy_std", "energies_std", "forces_std", "virial_std"),
    *("energy_deviations", "forces_deviations", "virial_deviations"),
]
# The structure that csrc/tests/hosts/exported_model.cpp evaluates.
POSITIONS = [[0, 0, 0], [1.1, 0.1, 0], [-0.4, 1.0, 0.2], [0.1, -0.5, 1.3], [3.5, 1.0, 1.0]]
NUMBERS = [8, 1, 6, 1, 8]
CELL = [[4.5, 0.0, 0.0], [1.5, 5.0, 0.0], [-0.7, 1.1, 6.0]]


def run(*command, **options) -> subprocess.CompletedProcess:
    """Run a program with next to no environment: nothing of this Python process helps it."""
    environment = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [str(part) for part in command], env=environment, capture_output=True, text=True, **options
    )


def cmake(*arguments) -> subprocess.CompletedProcess:
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    program = shutil.which("cmake", path=places)
    assert program, "cmake is part of the extra `test`"
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def prefix() -> str:
    command = [sys.executable, "-m", "scschnet", "--cmake-prefix"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def programs(prefix, tmp_path_factory) -> Path:
    """Folder of the programs in csrc/tests/hosts and examples/cpp_host, built as their users build them."""
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler")
    build = tmp_path_factory.mktemp("hosts")
    for command in (
        ["-S", SOURCE, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}"],
        ["--build", build, "--parallel", "2"],
    ):
        done = cmake(*command)
        assert done.returncode == 0, done.stdout + done.stderr
    return build


@pytest.fixture(scope="module")
def model():
    """A network with float64 tables, on the grid that the export will choose."""
    model = make_model(filters="spline")
    model.refine_filters()
    return model


@pytest.fixture(scope="module")
def files(model, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    names = ("full", "portable", "single", "gromacs", "scored", "scored_portable", "committee")
    files = {name: folder / f"{name}.pt" for name in names}
    export(model, files["full"])
    export(model, files["portable"], portable=True)
    export(model, files["single"], dtype="float32")
    export(model, files["gromacs"], host="gromacs")
    frames = embedded.load().select(range(20))
    metadata = {KEY: norm_statistics(model, frames, frames).to_json()}
    save_checkpoint(folder / "best.pt", Checkpoint(model, metadata))
    export(folder / "best.pt", files["scored"])
    export(folder / "best.pt", files["scored_portable"], portable=True)
    export([model, make_model(seed=1, filters="spline")], files["committee"])
    return files


def in_python(file: Path, atoms: Atoms, **extras) -> dict[str, np.ndarray]:
    result = load_exported(file).forward(
        torch.tensor(atoms.positions),
        torch.tensor(atoms.numbers),
        torch.tensor(np.asarray(atoms.cell)),
        torch.tensor(atoms.pbc),
        **extras,
    )
    return {name: tensor.numpy() for name, tensor in result.items()}


def structure(pbc=(True, True, False)) -> Atoms:
    return Atoms(NUMBERS, POSITIONS, cell=CELL, pbc=pbc)


def write_xyz(path: Path, atoms: Atoms, comment: str | None = None) -> Path:
    """Every digit of the positions, which ASE would round."""
    if comment is None:
        lattice = " ".join(repr(float(x)) for x in np.ravel(atoms.cell))
        flags = " ".join("T" if periodic else "F" for periodic in atoms.pbc)
        comment = f'Properties=species:S:1:pos:R:3 Lattice="{lattice}" energy=1.0 pbc="{flags}"'
    rows = [
        " ".join([symbol, *(repr(float(x)) for x in position)])
        for symbol, position in zip(atoms.symbols, atoms.positions, strict=True)
    ]
    path.write_text("\n".join([str(len(atoms)), comment, *rows]) + "\n")
    return path


def host_results(output: str) -> dict[str, tuple[float, np.ndarray]]:
    """Energy and forces under each of the headings that cpp_host prints."""
    blocks = re.findall(
        r"^(\D+) (-?[\d.]+) eV\n((?: +-?[\d.]+){3}\n(?:.*\n)*?)(?=\S)", output, re.M
    )
    return {
        name: (float(energy), np.array(rows.split(), dtype=float).reshape(-1, 3))
        for name, energy, rows in blocks
    }


# ---- the example


@pytest.mark.parametrize("kind", ["full", "portable", "single"])
@pytest.mark.parametrize("pbc", [(False, False, False), (True, True, False), (True, True, True)])
def test_host_prints_the_numbers_of_python(programs, files, tmp_path, kind, pbc):
    atoms = structure(pbc)
    done = run(
        programs / "cpp_host/cpp_host", files[kind], write_xyz(tmp_path / "atoms.xyz", atoms), 0
    )
    assert done.returncode == 0, done.stderr
    expected = in_python(files[kind], atoms)
    results = host_results(done.stdout)
    for name in ("energy", "from pairs"):
        energy, forces = results[name]
        tolerance = 1e-10 if kind != "single" else 1e-5  # the pairs come in another order
        assert energy == pytest.approx(float(expected["energy"]), abs=tolerance)
        np.testing.assert_allclose(forces, expected["forces"], rtol=0, atol=tolerance)


def test_host_prints_the_numbers_of_the_model_in_training(programs, files, model, tmp_path):
    atoms = structure()
    done = run(
        programs / "cpp_host/cpp_host", files["full"], write_xyz(tmp_path / "atoms.xyz", atoms), 0
    )
    atoms.calc = ScSchNetCalculator(model)
    energy, forces = host_results(done.stdout)["energy"]
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
    np.testing.assert_allclose(forces, atoms.get_forces(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["scored", "scored_portable"])
def test_host_prints_the_largest_score_of_ase(programs, files, tmp_path, kind):
    atoms = structure()
    xyz = write_xyz(tmp_path / "atoms.xyz", atoms)
    done = run(programs / "cpp_host/cpp_host", files[kind], xyz, 0)
    found = re.search(r"^largest unfamiliarity ([\d.]+), of atom (\d+); above 1", done.stdout, re.M)
    atoms.calc = ScSchNetCalculator(files[kind].with_name("best.pt"))
    atoms.get_potential_energy()
    scores = atoms.calc.unfamiliarity
    assert float(found[1]) == pytest.approx(scores.max(), rel=1e-12, abs=1e-10)
    assert int(found[2]) == np.argmax(scores)
    assert "unfamiliarity" not in run(programs / "cpp_host/cpp_host", files["full"], xyz, 0).stdout


def test_host_conserves_energy_on_the_trajectory_of_python(programs, files, tmp_path):
    atoms = structure()
    done = run(programs / "cpp_host/cpp_host", files["full"], write_xyz(tmp_path / "a.xyz", atoms))
    drift = float(re.search(r"100 steps of 0.5 fs: .* within ([\d.e+-]+) eV", done.stdout)[1])
    energy, forces = host_results(done.stdout)["last"]

    masses = ase.data.atomic_masses[atoms.numbers][:, None]
    step, velocities = 0.5 * ase.units.fs, np.zeros_like(atoms.positions)
    now = in_python(files["full"], atoms)
    total = [float(now["energy"])]
    for _ in range(100):
        velocities += step / 2 * now["forces"] / masses
        atoms.positions += step * velocities
        now = in_python(files["full"], atoms)
        velocities += step / 2 * now["forces"] / masses
        total.append(float(now["energy"]) + float((masses * velocities**2).sum() / 2))
    assert energy == pytest.approx(float(now["energy"]), abs=1e-8)
    np.testing.assert_allclose(forces, now["forces"], rtol=0, atol=1e-8)
    assert drift == pytest.approx(np.abs(np.subtract(total, total[0])).max(), abs=1e-8)
    assert drift < 0.01 * abs(float(now["energy"]) - total[0])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "the first line must be the number of atoms"),
        ("two\n\n", "the first line must be the number of atoms"),
        ("2\n\nH 0 0 0\n", "atom 1 must be an element and 3 numbers"),
        ("1\n\nH 0 zero 0\n", "atom 0 must be an element and 3 numbers"),
        ("1\n\nN 0 0 0\n", "atom 0 is N, an element that the model does not know"),
        ('1\nLattice="1 2 3"\nH 0 0 0\n', "Lattice must hold 9 numbers, got 1 2 3"),
        ('1\nLattice="1 0 0 0 1 0 0 0 1" pbc="T F"\nH 0 0 0\n', "pbc must hold 3 of T and F"),
        ('1\nLattice="1 0 0 2 0 0 0 0 1"\nH 0 0 0\n', "`cell` must"),
    ],
)
def test_host_refuses_structures(programs, files, tmp_path, content, sentence):
    (tmp_path / "atoms.xyz").write_text(content)
    done = run(programs / "cpp_host/cpp_host", files["full"], tmp_path / "atoms.xyz")
    assert done.returncode == 1
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_host_explains_its_use(programs, files, tmp_path):
    assert run(programs / "cpp_host/cpp_host", files["full"]).returncode == 2
    done = run(programs / "cpp_host/cpp_host", files["full"], tmp_path / "none.xyz")
    assert done.stderr == f"cpp_host: there is no readable file {tmp_path / 'none.xyz'}\n"


def test_no_program_needs_libpython(programs):
    library = next(
        Path(folder) / "libscschnet_ops.so"
        for folder in scschnet.__path__
        if (Path(folder) / "libscschnet_ops.so").is_file()
    )
    for binary in (library, programs / "cpp_host/cpp_host"):
        listing = run("ldd", binary).stdout
        assert "libtorch_cpu" in listing
        assert "python" not in re.sub(r"=> \S+", "", listing)


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        (None, "there is no torch in {}: set SCSCHNET_TORCH_DIR to the folder that"),
        ("1.13.0", "scschnet was compiled with torch {built}, but {} holds 1.13.0"),
    ],
)
def test_package_needs_the_torch_it_was_compiled_with(prefix, tmp_path, version, sentence):
    torch_folder = tmp_path / "torch"
    if version is not None:
        (torch_folder / "lib").mkdir(parents=True)
        (torch_folder / "version.py").write_text(f"__version__ = '{version}'\n")
        for name in ("c10", "torch_cpu", "torch"):
            (torch_folder / f"lib/lib{name}.so").touch()
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.21)\nproject(host LANGUAGES NONE)\n"
        "find_package(scschnet REQUIRED)\n"
    )
    done = cmake(
        *("-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}"),
        f"-DSCSCHNET_TORCH_DIR={torch_folder}",
    )
    assert done.returncode != 0
    expected = sentence.format(torch_folder, built=scschnet._C.build_torch)
    assert expected in " ".join(done.stderr.split())


# ---- the class


@pytest.mark.parametrize("kind", ["full", "portable", "scored", "scored_portable", "committee"])
def test_all_results(programs, files, kind):
    done = run(programs / "exported_model", "results", files[kind])
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[-3:] == [["threads", "same"], ["layouts", "same"], ["extras", "none"]]
    periodic = in_python(files[kind], structure(), layers=True, atom_virial=True)
    molecule = in_python(files[kind], structure(pbc=False), layers=True, atom_virial=True)
    keys = [*KEYS, "unfamiliarity"] if "scored" in kind else KEYS
    keys = [*KEYS, *ERROR_BARS] if kind == "committee" else keys
    assert [name for name, *_ in lines[:-3]] == keys + keys
    for expected, results in ((periodic, lines[: len(keys)]), (molecule, lines[len(keys) : -3])):
        for name, *values in results:
            np.testing.assert_allclose(
                np.array(values, dtype=float), expected[name].ravel(), rtol=0, atol=1e-10
            )


def test_description(programs, files):
    done = run(programs / "exported_model", "describe", files["single"])
    first, metadata = done.stdout.split("\n", 1)
    assert first == "full float32 4 2 8 1 6 8 H C O embedding block 1 block 2"
    assert json.loads(metadata) == load_exported(files["single"]).metadata


MISTAKES = [
    "`positions` must have shape [5, 3], got [5, 2]",
    "`positions` must be float64 or float32, got int32",
    "`positions` must be a tensor, got none",
    "`atomic_numbers` must have shape [5], got [4]",
    "`atomic_numbers` must be int64, got int32",
    "`atomic_numbers` must be elements of the model, 1 6 8, got 7 (atom 0)",
    "`cell` must have shape [3, 3], got [9]",
    "the model could not be evaluated: `cell`",
    "`pbc` must be bool, got int64",
    "the model could not be evaluated: `positions` must be finite",
    "the model could not be evaluated: atoms must lie on different points, got two on the same one",
    "`idx_j` must have shape [2], got [1]",
    "`r_ij` must be float64, got float32",
    "the model could not be evaluated: `idx_i` must ascend",
    "the model could not be evaluated: `idx_i` and `idx_j` must lie between 0 and the number of atoms, 5",
    "`n_local` must lie between 0 and the number of atoms, 5, got 6",
    "the host has registered no halo",
    "the model could not be evaluated: the host gave up",
    "`device` must be one that torch knows, for example cpu, got toaster",
]


def test_mistakes(programs, files):
    done = run(programs / "exported_model", "mistakes", files["full"])
    said = done.stdout.splitlines()
    assert len(said) == len(MISTAKES), done.stdout + done.stderr
    for sentence, expected in zip(said, MISTAKES, strict=True):
        assert expected in sentence


# ---- files


def load(programs: Path, paths: list[Path]) -> list[str]:
    """What loading each file is answered, all in one process; it must survive them."""
    done = run(programs / "exported_model", "load", *paths)
    assert done.returncode == 0, (done.returncode, done.stdout.splitlines()[-1:], done.stderr)
    answers = [line.split("\t") for line in done.stdout.splitlines()]
    assert [path for path, _ in answers] == [str(path) for path in paths]
    return [answer for _, answer in answers]


def rewrite(source: Path, target: Path, change) -> Path:
    """A copy with right checksums; `change` maps name and content of each record to a new content or None."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change(name.partition("/")[2], old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def with_metadata(source: Path, target: Path, **changes) -> Path:
    def change(name: str, content: bytes) -> bytes:
        if name != "extra/scschnet.json":
            return content
        metadata = json.loads(content) | changes
        return json.dumps({k: v for k, v in metadata.items() if v is not ...}).encode()

    return rewrite(source, target, change)


def other_files(folder: Path, model, files: dict[str, Path]) -> dict[Path, str]:
    """Files that are no exported models, and what is to be said about each."""
    (folder / "text.pt").write_text("a text, not a model")
    (folder / "empty.pt").write_text("")
    with zipfile.ZipFile(folder / "foreign.pt", "w") as archive:
        archive.writestr("readme.txt", "a zip archive")
    torch.save({"weights": torch.zeros(3)}, folder / "torch.pt")
    save_checkpoint(folder / "best.pt", Checkpoint(model))
    content = files["full"].read_bytes()
    (folder / "short.pt").write_bytes(content[: len(content) // 2])
    flipped = bytearray(content)
    with zipfile.ZipFile(files["full"]) as archive:
        records = [r for r in archive.infolist() if r.compress_type == zipfile.ZIP_STORED]
        tables = archive.read(max(records, key=lambda record: record.file_size))
    flipped[content.index(tables) + 6] ^= 16
    (folder / "flipped.pt").write_bytes(flipped)
    return {
        folder / "none.pt": "there is no readable file",
        folder: "is a folder, not an exported model",
        folder / "text.pt": "it is no zip archive, or cut short",
        folder / "empty.pt": "it is no zip archive, or cut short",
        folder / "foreign.pt": "it is no archive of torch, or changed",
        folder / "torch.pt": "is a file of torch, but not an exported model of scschnet",
        folder / "best.pt": "is a checkpoint, not an exported model: run scschnet export on it",
        folder
        / "short.pt": "is not an exported model, or is damaged: it is no zip archive, or cut short",
        folder
        / "flipped.pt": "is not an exported model, or is damaged: the checksum of its record",
        files[
            "gromacs"
        ]: "was exported for gromacs, which calls it in its own way: export it without --host",
    }


METADATA = {
    "newer": (
        {"version": 2},
        "has export version 2, but this scschnet reads up to 1: install a newer",
    ),
    "strange": ({"format": "novel"}, "is a file of scschnet, but not an exported model"),
    "library": ({"operator_libraries": ["libmagic.so"]}, "needs the operators of libmagic.so"),
    "version": ({"version": 1.5}, "`version` must be a whole number"),
    "missing": ({"cutoff": ...}, "`cutoff` is missing"),
    "text": ({"cutoff": "5"}, "`cutoff` must be a number"),
    "negative": ({"cutoff": -1.0}, "`cutoff` must be positive"),
    "kind": ({"kind": "half"}, "`kind` must be full or portable"),
    "dtype": ({"dtype": "int8"}, "`dtype` must be float32 or float64"),
    "features": ({"n_features": 0}, "`n_features` must be positive"),
    "blocks": ({"n_interactions": -1, "layers": []}, "`n_interactions` must not be negative"),
    "layers": ({"layers": []}, "`layers` must be one more than `n_interactions`"),
    "names": ({"layers": [{}, {}, {}]}, "`name` is missing"),
    "elements": ({"elements": [8, 1, 6]}, "`elements` must ascend"),
    "none": ({"elements": [], "symbols": []}, "`elements` must ascend"),
    "symbols": ({"symbols": ["H"]}, "`symbols` must be as many as `elements`"),
    "numbers": ({"symbols": [1, 2, 3]}, "`symbols` must be strings"),
    "untrue": (
        {"elements": [7], "symbols": ["N"]},
        "cannot be used: the model could not be evaluated",
    ),
}

JSON = {
    '{"a": 1': "expected `,` or `}` at byte 7",
    "{'a': 1}": 'expected `"` at byte 1',
    "[1 2]": "expected `,` or `]` at byte 3",
    "[1] 2": "expected the end at byte 4",
    '{"a" 1}': "expected `:` at byte 5",
    "[01]": "expected a value at byte 1",
    "[1.]": "expected a number at byte 1",
    "[NaN]": "expected a value at byte 1",
    "[1e999]": "expected a number at byte 1",
    '["\\x"]': "expected an escape at byte 3",
    '["\\ud800"]': "expected a pair of surrogates at byte 8",
    '["\\u12g4"]': "expected four hexadecimal digits at byte 4",
    '["a': 'expected `"` at byte 3',
    "": "expected a value at byte 0",
    "[" * 1000: "expected less nesting at byte 65",
    "[]": "`format` is missing",
    '{"format": null}': "`format` must be a string",
}


def test_other_files_are_refused_with_one_sentence(programs, model, files, tmp_path):
    cases = other_files(tmp_path, model, files)
    for name, (changes, sentence) in METADATA.items():
        cases[with_metadata(files["full"], tmp_path / f"{name}.pt", **changes)] = sentence
    for k, (text, sentence) in enumerate(JSON.items()):

        def replace(name: str, content: bytes, text: str = text) -> bytes:
            return text.encode() if name == "extra/scschnet.json" else content

        cases[rewrite(files["full"], tmp_path / f"json{k}.pt", replace)] = sentence
    for (path, sentence), answer in zip(cases.items(), load(programs, list(cases)), strict=True):
        assert answer.startswith(str(path)) or str(path) in answer
        assert sentence in answer


def test_unknown_operators_and_methods_are_named(programs, files, tmp_path):
    def rename(old: bytes, new: bytes):
        return lambda name, content: content.replace(old, new) if name.endswith(".py") else content

    operator = rewrite(
        files["full"],
        tmp_path / "a.pt",
        rename(b"ops.scschnet.pair_rows", b"ops.scschnet.magic_rows"),
    )
    method = rewrite(
        files["full"], tmp_path / "b.pt", rename(b"def forward_pairs", b"def other_pairs")
    )
    code = rewrite(files["full"], tmp_path / "c.pt", rename(b"return", b"retrun"))
    answers = load(programs, [operator, method, code])
    assert (
        "needs the operator scschnet::magic_rows, which libscschnet_ops.so does not have"
        in answers[0]
    )
    assert "does not fit its metadata: it has no method forward_pairs" in answers[1]
    assert "cannot be loaded: " in answers[2]


def test_damaged_files_never_crash(programs, files, tmp_path):
    content = files["full"].read_bytes()
    rng = np.random.default_rng(0)
    paths = []
    for k, length in enumerate(rng.integers(0, len(content), 40)):
        paths.append(tmp_path / f"cut{k}.pt")
        paths[-1].write_bytes(content[:length])
    directory = (
        content.rfind(b"PK\1\2") - 400
    )  # half of the flips in the directory, where each byte counts
    for k in range(120):
        flipped = bytearray(content)
        position = rng.integers(0 if k % 2 else directory, len(content))
        flipped[position] ^= 1 << rng.integers(8)
        paths.append(tmp_path / f"flip{k}.pt")
        paths[-1].write_bytes(flipped)
    answers = load(programs, paths)
    assert all("is damaged" in answer for answer in answers[:40])
    refused = [answer for answer in answers[40:] if answer != "loaded"]
    assert len(refused) > 60  # the others hit padding, or dates and flags that say nothing
    assert all(answer.startswith(str(tmp_path)) for answer in refused)


def test_names_in_damaged_files_are_printable(programs, files, tmp_path):
    content = bytearray(files["full"].read_bytes())
    entry = content.rfind(b"PK\1\2")
    content[entry + 16] ^= 1  # its checksum
    content[entry + 46 + 14 : entry + 46 + 16] = b"\x8a\x1b"  # two letters of its name
    (tmp_path / "m.pt").write_bytes(content)
    (answer,) = load(programs, [tmp_path / "m.pt"])
    assert "is damaged: " in answer and answer.isprintable()


# ---- GROMACS


def gromacs(programs: Path, file: Path, atoms: Atoms, *options: str) -> np.ndarray:
    numbers = [len(atoms), *np.ravel(atoms.cell) / 10]
    for z, position in zip(atoms.numbers, atoms.positions, strict=True):
        numbers += [z, *position / 10]
    done = run(programs / "gromacs_nnpot", file, *options, input=" ".join(map(str, numbers)))
    assert done.returncode == 0, done.stderr
    calls = np.array([line.split() for line in done.stdout.splitlines()], dtype=float)
    assert (
        np.ptp(calls, axis=0).max() <= 1e-4 * np.abs(calls).max()
    )  # profiled, optimized: the same
    return calls[0]


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("periodic", [False, True])
def test_gromacs_gets_the_numbers_of_python(programs, model, files, tmp_path, portable, periodic):
    file = tmp_path / "gromacs.pt"
    export(model, file, host="gromacs", portable=portable)
    atoms = structure(pbc=periodic)
    result = gromacs(programs, file, atoms, *([] if periodic else ["open"]))
    expected = in_python(files["full"], atoms)
    per_ev = 1 / ENERGY["kJ/mol"]
    assert result[0] == pytest.approx(float(expected["energy"]) * per_ev, rel=2e-7)  # one float32
    forces = expected["forces"].ravel() * per_ev * 10
    np.testing.assert_allclose(result[1:], forces, rtol=0, atol=2e-5 * np.abs(forces).max())


def test_gromacs_is_told_of_the_library(files):
    with zipfile.ZipFile(files["gromacs"]) as archive:
        record = next(name for name in archive.namelist() if name.endswith("extra/extension_libs"))
        libraries = archive.read(record).decode().split(":")
    assert [Path(library).name for library in libraries] == ["libscschnet_ops.so"]
    assert Path(libraries[0]).is_file()
