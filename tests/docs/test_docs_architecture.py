"""docs/architecture.md is true: paths, rooms and registries are as it says, and its recipes are carried out."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import get_args, get_type_hints

import numpy as np
import pytest
import test_seams
import torch
from conftest import make_model, make_structures
from test_layering import ALLOWED

from scschnet import export
from scschnet.data import collate
from scschnet.export.torchscript import torchscript_deprecation_ignored
from scschnet.nn.basis import RADIAL_BASES
from scschnet.nn.cutoff import CUTOFF_FUNCTIONS
from scschnet.nn.head import HEADS
from scschnet.nn.pair_term import PAIR_TERMS
from scschnet.train import loop

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text()
PAGES = ["docs/architecture.md", "docs/derivation.md"]
PAGES += [f"csrc/{folder}/README.md" for folder in ("core", "core/cuda", "torch")]
SUFFIXES = r"\.(?:py|cpp|hpp|cu|cuh|h|md|toml)"
REGISTRY_OF = {
    "RADIAL_BASES": RADIAL_BASES,
    "CUTOFF_FUNCTIONS": CUTOFF_FUNCTIONS,
    "PAIR_TERMS": PAIR_TERMS,
    "HEADS": HEADS,
}
BLOCKS = re.findall(r"```python\n# (new file|added to) (\S+)\n(.*?)```", PAGE, re.S)
CLASSES = {"basis": "LorentzianBasis", "cutoff": "PolynomialCutoff", "pair_term": "BornMayer"}
CLASSES["head"] = "QuadrupoleHead"


def without_programs(text: str) -> str:
    """A page without its blocks of Python, which name files that do not exist yet."""
    return re.sub(r"```python\n.*?```", "", text, flags=re.S)


def located(page: str, path: str) -> Path:
    beside = (ROOT / page).parent / path
    return beside if beside.exists() else ROOT / path


def section(heading: str) -> str:
    """The text below a heading, up to the next one of its level."""
    level = heading.split()[0]
    _, _, rest = PAGE.partition(f"\n{heading}\n")
    assert rest, heading
    return re.split(rf"\n{level} ", rest)[0]


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page):
    """Links, from the folder of the page; and paths in backticks, from the root of the repository or from there."""
    text = without_programs((ROOT / page).read_text())
    links = re.findall(r"\]\(([^)#]+)\)", text)
    paths = re.findall(rf"`((?:[\w.-]+/)+[\w.-]*{SUFFIXES}|(?:csrc|scschnet|tests)/[\w./]+)`", text)
    assert len(links) + len(paths) > 5
    missing = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    missing += [path for path in paths if not located(page, path).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_names_are_in_the_files_that_are_said_to_hold_them(page):
    """`name` in [`path`](...): the file contains the word."""
    text = without_programs((ROOT / page).read_text())
    names = r"((?:`\w+`(?:, | and )?)+)\s+(?:in|of)\s+\[?`([\w./]+" + SUFFIXES + ")`"
    pairs = re.findall(names, text)
    missing = [
        (name, path)
        for found, path in pairs
        for name in re.findall(r"\w+", found.replace(" and ", " "))
        if not re.search(rf"\b{name}\b", located(page, path).read_text())
    ]
    assert not missing


def test_classes_exist():
    sources = "".join(path.read_text() for path in (ROOT / "scschnet").rglob("*.py"))
    names = re.findall(r"the class\s+`(\w+)`", PAGE)
    assert names
    assert not [name for name in names if not re.search(rf"^class {name}\b", sources, re.M)]


def test_the_map_holds_all_rooms():
    """Every folder and module of the package has its line, which names only rooms that it may import."""
    _, _, table = section("## The map").partition("| in `scschnet` |")
    table, _, _ = table.partition("\n\n")
    rows = re.findall(r"^\| `(\w+)` \|.*\|(.*)\|$", table, re.M)
    there = {p.stem for p in (ROOT / "scschnet").iterdir() if is_room(p)}
    assert {name for name, _ in rows} == there
    for name, read in rows:
        allowed = ALLOWED.get(name, {"commands"})  # a module beside the rooms calls a command
        assert set(re.findall(r"`(\w+)`", read)) <= allowed, name


def is_room(path: Path) -> bool:
    if path.is_dir():
        return (path / "__init__.py").exists()
    return path.suffix == ".py" and not path.stem.startswith("__")


def test_registries_hold_what_the_page_says():
    rows = re.findall(r"^\| [\w ]+ \| `([A-Z_]+)` in .*\| ([^|]*) \| `(\w+)` \|$", PAGE, re.M)
    assert [name for name, _, _ in rows] == list(REGISTRY_OF)
    for name, members, option in rows:
        assert re.findall(r"`(\w+)`", members) == list(REGISTRY_OF[name])
        assert option in make_model().config.__dataclass_fields__


def test_optimizers_are_those_of_the_page():
    (names,) = re.findall(r"The choices are (.*?)\.", section("### An optimizer"))
    kind = get_type_hints(loop.TrainConfig)["optimizer"]
    assert re.findall(r"`(\w+)`", names) == list(get_args(kind))


# ---- the recipes


def module_from(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def with_lines(source: str, lines: str) -> str:
    """A registry after the edit: imports come first, and assignments get what stands behind `...`."""
    imports = []
    for line in lines.splitlines():
        if line.startswith("from "):
            imports.append(line)
            continue
        (found,) = re.findall(r"^(\w+) = .*[\[{]\.\.\., (.*)[\]}]$", line)
        name, new = found
        source, n = re.subn(
            rf"^({name}\b.* = .*[\[{{])([^\]}}]*)([\]}}])$",
            lambda old, new=new: old[1] + f"{old[2].rstrip().rstrip(',')}, {new}" + old[3],
            source,
            flags=re.M,
        )
        assert n == 1, f"{name} is not assigned in the registry"
    first, _, rest = source.partition("\nfrom ")
    return "\n".join([first, *imports, f"from {rest}"])


@pytest.fixture
def carried_out(tmp_path, monkeypatch):
    """The four recipes of the page, carried out: new files, and lines of registries. The classes, by their seam."""
    found = {}
    for what, path, text in BLOCKS:
        name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        seam = path.split("/")[2]
        copy = tmp_path / f"{name}.py"
        if what == "new file":
            monkeypatch.setitem(sys.modules, name, None)  # forgotten after the test
            copy.write_text(text)
            found[seam] = getattr(module_from(copy, name), CLASSES[seam])
            continue
        copy.write_text(with_lines((ROOT / path).read_text(), text))
        monkeypatch.setitem(sys.modules, f"edited_{seam}", None)
        edited = module_from(copy, f"edited_{seam}")
        (registry,) = set(re.findall(r"^([A-Z_]+)\b", text, re.M))
        new = getattr(edited, registry)
        assert new.items() > REGISTRY_OF[registry].items()
        (choice,) = re.findall(r"^(\w+Name)\b", text, re.M) or [None]
        assert choice is None or set(get_args(getattr(edited, choice))) - {"none"} <= set(new)
        assert choice is None or set(new) <= set(get_args(getattr(edited, choice)))
        for key in new.keys() - REGISTRY_OF[registry].keys():
            monkeypatch.setitem(REGISTRY_OF[registry], key, new[key])
            assert new[key] is found[seam]
    monkeypatch.setitem(test_seams.REGISTRIES, "repulsion", ("none", *PAIR_TERMS))
    return found


def test_the_examples_fulfil_the_contracts(carried_out):
    assert carried_out.keys() == CLASSES.keys()
    test_seams.test_a_radial_basis_can_be_tabulated(carried_out["basis"], 20, 5.0)
    test_seams.test_a_cutoff_function_is_what_the_operators_evaluate(carried_out["cutoff"], 5.0)
    test_seams.test_a_pair_term_fulfils_its_contract(carried_out["pair_term"])
    test_seams.test_a_head_fulfils_its_contract(carried_out["head"])


def test_a_model_of_the_examples_alone(carried_out, tmp_path):
    """Basis, cutoff function, pair term and head in one model: fused, composed and exported agree."""
    names = {"radial_basis": "lorentzian", "cutoff_function": "polynomial"}
    names |= {"repulsion": "born_mayer", "heads": ("q:quadrupole",)}
    model = make_model(torch.float64, filters="spline", **names).requires_grad_(False)
    model.refine_filters()
    structures = make_structures()
    one = collate(structures, np.array([3]), 4.0)
    fused = model(**one.inputs)
    moved = one.inputs | {"positions": one.positions.clone().requires_grad_()}
    composed = model(**moved)
    path = tmp_path / "model.pt"
    export(model, path)
    with torchscript_deprecation_ignored():
        file = torch.jit.load(str(path))
    pbc = torch.tensor(structures.pbc[3])
    exported = file(one.positions, one.atomic_numbers, one.cells[0], pbc)
    for key in ("energies", "forces"):
        torch.testing.assert_close(fused[key], composed[key].detach(), rtol=0, atol=1e-10)
        torch.testing.assert_close(exported[key], fused[key], rtol=0, atol=1e-9)
    torch.testing.assert_close(exported["q"], fused["q"][0], rtol=1e-9, atol=1e-9)
