"""Who may use whom: imports of the package and includes of the sources against one table."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Packages and modules of scschnet -> what of scschnet they may import (themselves always).
ALLOWED = {
    "_C": set(),
    "ops": {"_C"},
    "neighbors": {"_C", "ops"},
    "units": set(),
    "archive": set(),
    "files": set(),
    "kinds": {"archive"},
    "nn": {"ops"},
    "data": {"neighbors", "units", "files", "kinds"},
    "checkpoint": {"nn", "units", "archive", "files", "kinds"},
    "evaluate": {"nn", "data", "checkpoint", "units", "files", "kinds"},
    "hosts": {"ops", "nn", "checkpoint", "export", "units"},
    "calculator": {"nn", "data", "neighbors", "checkpoint", "units"},
    "analysis": {
        "ops",
        "nn",
        "data",
        "neighbors",
        "checkpoint",
        "units",
        "files",
        "kinds",
        "evaluate",
    },
    "report": {"analysis", "nn", "data", "checkpoint", "units", "files", "kinds", "evaluate"},
    "train": {"ops", "nn", "data", "checkpoint", "units", "files", "kinds", "evaluate"},
    "export": {"nn", "checkpoint", "units", "archive", "files", "kinds"},
    "info": {"export", "files", "kinds"},
    "lammps": {"files"},
}
# Third-party packages that only some rooms may use.
ONLY_IN = {
    "ase": {
        "calculator",
        "neighbors",
        "data.readers",
        "data.summary",
        "units",
        "evaluate",
        "analysis.runs",
        "analysis.bonds",
        "report",
        "train.setup",
        "export.metadata",
    },
    "matplotlib": {"analysis", "report"},
    "h5py": {"data.readers"},
    "tyro": {
        "train.config",
        "data.__main__",
        "evaluate.__main__",
        "analysis.__main__",
        "analysis.commands",
        "report.__main__",
        "export.__main__",
    },
}
# Command lines draw what their libraries compute.
# Pruning trains.
EXCEPTIONS = {
    ("train.__main__", "analysis"),
    ("train.__main__", "report"),
    ("evaluate.__main__", "analysis"),
    ("analysis.prune", "train"),
}


def modules():
    for path in sorted((ROOT / "scschnet").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / "scschnet").with_suffix("").parts)
        if name not in ("__init__", "__main__"):
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
    for imported in imports(path):
        top, *rest = imported.split(".")
        if top == "scschnet" and rest and rest[0] not in (room, "__version__"):
            assert rest[0] in ALLOWED[room] or (name, rest[0]) in EXCEPTIONS, imported
        if top in ONLY_IN:
            allowed = any(name == place or name.startswith(f"{place}.") for place in ONLY_IN[top])
            assert allowed, f"{name} must not import {top}"


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("core", r"torch|ATen|c10|pybind11|Python\.h|numpy"),
        ("torch", r"Python\.h|pybind11|numpy"),
        ("python", r"torch|ATen|c10"),
    ],
)
def test_cpp_includes(folder, forbidden):
    sources = [
        p for p in (ROOT / "csrc" / folder).rglob("*") if p.suffix in (".cpp", ".hpp", ".cu")
    ]
    assert sources
    for path in sources:
        for include in re.findall(r'#include [<"]([^>"]+)[>"]', path.read_text()):
            assert not re.search(rf"(^|/)({forbidden})", include), f"{path.name} includes {include}"
