"""Who may use whom: imports of the package and includes of the sources against one table."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Packages and modules of scschnet -> what of scschnet they may import (themselves always).
LEAVES = {
    "archive",
    "callable",
    "device",
    "units",
    "properties",
    "quantities",
    "elements",
    "files",
    "kinds",
}
ALLOWED = {
    "_C": set(),
    "ops": {"_C"},
    "neighbors": {"_C", "ops"},
    **{leaf: {"units", "archive", "properties"} for leaf in LEAVES},
    "nn": {"ops", "elements", "properties"},
    "data": {"neighbors", *LEAVES},
    "checkpoint": {"nn", *LEAVES},
    "committee": {"nn", "checkpoint", *LEAVES},
    "runs": {"nn", "data", "checkpoint", *LEAVES},
    "evaluate": {"ops", "nn", "data", "checkpoint", "runs", *LEAVES},
    "train": {"ops", "nn", "data", "checkpoint", "committee", "runs", "evaluate", *LEAVES},
    "analysis": {"ops", "nn", "data", "neighbors", "checkpoint", "runs", "evaluate", *LEAVES},
    "report": {"nn", "data", "checkpoint", "runs", "evaluate", "analysis", *LEAVES},
    "export": {"nn", "checkpoint", "committee", "runs", *LEAVES},
    "predict": {"nn", "data", "checkpoint", "committee", "evaluate", *LEAVES},
    "calculator": {"ops", "nn", "data", "neighbors", "checkpoint", "committee", "export", *LEAVES},
    "hosts": {"ops", "nn", "committee", "export", *LEAVES},
    "select": {
        "nn",
        "committee",
        "data",
        "neighbors",
        "checkpoint",
        "evaluate",
        "calculator",
        *LEAVES,
    },
    "lammps": LEAVES,
}
ALLOWED["commands"] = set(ALLOWED)
# What `python -m scschnet.X` runs: nothing but a call of scschnet.commands.X.
SHIMS = {"info", "doctor"}
# Third-party packages that only some rooms may use.
ONLY_IN = {
    "ase": {
        "calculator",
        "neighbors",
        "data.readers",
        "data.summary",
        "units",
        "elements",
        "nn.pair_term",
        "nn.head",
        "analysis",
        "report.molecule",
        "train.setup",
        "commands.predict",
        "commands.doctor",
        "commands.select",
        "select",
        "commands.modes",
    },
    "matplotlib": {"analysis", "report"},
    "h5py": {"data.readers"},
    "tyro": {"commands"},
}


def modules():
    """Name and path of every module, a package by its own name."""
    for path in sorted((ROOT / "scschnet").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / "scschnet").with_suffix("").parts)
        if name != "__init__":
            yield pytest.param(name.removesuffix(".__init__"), path, id=name)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize(("name", "path"), list(modules()))
def test_python_imports(name, path):
    room = name.split(".")[0]
    if name.endswith("__main__") or name in SHIMS:
        assert {".".join(imported.split(".")[:2]) for imported in imports(path)} == {
            "scschnet.commands"
        }
        return
    for imported in imports(path):
        top, *rest = imported.split(".")
        if top == "scschnet" and rest and rest[0] not in (room, "__version__"):
            assert rest[0] in ALLOWED[room], imported
        if top in ONLY_IN:
            allowed = any(name == place or name.startswith(f"{place}.") for place in ONLY_IN[top])
            assert allowed, f"{name} must not import {top}"


LAMMPS_SOURCES = "scschnet/lammps/src"


def includes(folder: str, stems: str = ".*") -> list[tuple[str, str]]:
    """File and what it includes, of the C++ and CUDA sources and headers in a folder."""
    kinds = (".cpp", ".hpp", ".h", ".cu", ".cuh")
    paths = [path for path in sorted((ROOT / folder).rglob("*")) if path.suffix in kinds]
    return [
        (path.name, include)
        for path in paths
        if re.fullmatch(stems, path.stem)
        for include in re.findall(r'#include [<"]([^>"]+)[>"]', path.read_text())
    ]


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("csrc/core", r"torch|ATen|c10|pybind11|Python\.h|numpy|lammps\.h|atom\.h"),
        ("csrc/torch", r"Python\.h|pybind11|numpy|lammps\.h|atom\.h"),
        ("csrc/python", r"torch|ATen|c10"),
        (LAMMPS_SOURCES, r"Python\.h|pybind11|numpy|core"),
    ],
)
def test_cpp_includes(folder, forbidden):
    found = includes(folder)
    assert found
    for name, include in found:
        assert not re.search(rf"(^|/)({forbidden})", include), f"{name} includes {include}"


def test_all_kinds_of_sources_are_read():
    names = {name for folder in ("csrc", LAMMPS_SOURCES) for name, _ in includes(folder)}
    assert {Path(name).suffix for name in names} >= {".cpp", ".hpp", ".h", ".cu", ".cuh"}


@pytest.mark.parametrize(
    ("stems", "allowed"),
    [("rows|pairs|masses|unit_styles", ""), ("row_exchange", r"|mpi\.h")],
)
def test_parts_of_the_plugin_that_know_neither_lammps_nor_torch(stems, allowed):
    found = includes(LAMMPS_SOURCES, stems)
    assert found
    own = rf"({stems}|rows)\.hpp"
    for name, include in found:
        assert re.fullmatch(rf"[a-z_]+|{own}{allowed}", include), f"{name} includes {include}"
