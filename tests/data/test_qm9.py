"""QM9's original archive and the list of uncharacterized molecules.

The archives are written here in the published layout, from the real numbers of 20 molecules, with
Mathematica's exponents; charges, frequencies, SMILES and InChI, which are not read, are made up.
"""

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from ase.data import chemical_symbols

from scschnet.data import read
from scschnet.data.readers import read_excluded

DATA = Path(__file__).parents[1] / "files"
PROPERTIES = ("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv")


def mathematica(value: float) -> str:
    """Small numbers as QM9 writes them, -6.12*^-6, and others plainly."""
    if value != 0 and abs(value) < 1e-3:
        mantissa, exponent = f"{value:.9e}".split("e")
        return f"{mantissa}*^{int(exponent)}"
    return f"{value:.10f}"


def qm9_file(index: int) -> str:
    """Molecule `index` (from 1) in the layout of dsgdb9nsd_XXXXXX.xyz."""
    with np.load(DATA / "qm9_first20.npz") as file:
        atoms = slice(file["offset"][index - 1], file["offset"][index])
        numbers, positions = file["Z"][atoms], file["R"][atoms].astype(float)
        values = "\t".join(repr(float(file[name][index - 1])) for name in PROPERTIES)
    rows = [
        f"{chemical_symbols[z]}\t" + "\t".join(map(mathematica, xyz)) + "\t-0.1\n"
        for z, xyz in zip(numbers, positions, strict=True)
    ]
    header = f"{len(numbers)}\ngdb {index}\t157.7\t157.7\t157.7\t{values}\t\n"
    return header + "".join(rows) + "1341.3\t1562.6\nC\tC\t\nInChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4\n"


def written(path: Path, files: dict[str, str], mode: str = "w:bz2") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content.encode())
            archive.addfile(member, io.BytesIO(content.encode()))
    return path


def molecules(indices) -> dict[str, str]:
    return {f"dsgdb9nsd_{index:06d}.xyz": qm9_file(index) for index in indices}


@pytest.mark.parametrize(("name", "mode"), [("q.tar.bz2", "w:bz2"), ("q.tar.gz", "w:gz")])
@pytest.mark.parametrize("key", ["U0", "G", "gap"])
def test_equals_the_same_molecules_from_the_archive_of_arrays(tmp_path, name, mode, key):
    order = np.random.default_rng(0).permutation(20) + 1
    path = written(tmp_path / name, molecules(order), mode)
    assert any("*^-" in text for text in molecules(order).values())
    got, expected = read(path, energy_key=key), read(DATA / "qm9_first20.npz", energy_key=key)
    for array in ("atomic_numbers", "atom_ptr", "energy"):
        np.testing.assert_array_equal(getattr(got, array), getattr(expected, array))
    np.testing.assert_allclose(got.positions, expected.positions, rtol=0, atol=1e-10)
    assert got.info["theory"] == "B3LYP/6-31G(2df,p)" and got.info["energy key"] == key
    if key == "gap":
        assert got.atomref is None
    else:
        np.testing.assert_allclose(got.atomref, expected.atomref, rtol=1e-15)


def test_uncompressed_archive_under_any_name(tmp_path):
    assert len(read(written(tmp_path / "3195389", molecules([3]), "w"))) == 1


def test_exclude_by_file_or_numbers(tmp_path):
    path = written(tmp_path / "q.tar.bz2", molecules([1, 2, 3, 4]))
    listed = tmp_path / "plain.txt"
    listed.write_text("2\n4\n\n")
    for exclude in ([2, 4], listed, str(listed), np.array([4, 2])):
        structures = read(path, exclude=exclude)
        assert structures.n_atoms.tolist() == [5, 3]
        assert structures.info["molecules"] == "4 in the archive, 2 excluded"


def test_other_members_are_counted(tmp_path):
    path = written(tmp_path / "q.tar.bz2", molecules([1]) | {"readme.txt": "hello"})
    assert read(path).info["ignored"].startswith("1 archive members")


def test_published_list_has_nine_header_lines_and_a_footer(tmp_path):
    header = "".join(f"header {line}\n" for line in range(9))
    path = tmp_path / "uncharacterized.txt"
    path.write_text(header + "    58   C#N   0.1\n   133885  CC\n\n 2 compounds\n")
    assert read_excluded(path) == [58, 133885]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "list.txt must list molecule numbers, got none"),
        ("h\n" * 9 + "x 1\nfooter\n", "line 10 of list.txt must begin with a molecule number"),
        ("0\n", "must begin with a molecule number from 1 to 133885, got '0'"),
        ("133886\n", "got '133886'"),
        ("5\n5\n", "list.txt must list each molecule once"),
    ],
)
def test_lists_that_do_not_follow_the_format(tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ValueError) as caught:
        read_excluded(tmp_path / "list.txt")
    assert message in str(caught.value)


GOOD = qm9_file(1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            GOOD.replace("5\ngdb", "6\ngdb"),
            "dsgdb9nsd_000001.xyz must be a QM9 xyz file, got fewer",
        ),
        (GOOD.replace("\t13.21", ""), "got 14 properties, expected 15"),
        (GOOD.replace("C\t", "Xx\t", 1), "must be a QM9 xyz file, got 'Xx'"),
        (GOOD.replace("*^", "^"), "could not convert string to float"),
        (GOOD.replace("5\ngdb", "five\ngdb"), "invalid literal for int()"),
        ("", "must be a QM9 xyz file"),
        (GOOD.replace("-40.47893", "nan"), "`energy` must be finite, got nan in structure 0"),
    ],
)
def test_malformed_molecules(tmp_path, content, message):
    path = written(tmp_path / "q.tar.bz2", {"dsgdb9nsd_000001.xyz": content})
    with pytest.raises(ValueError) as caught:
        read(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("mode", ["w", "w:bz2", "w:gz"])
@pytest.mark.parametrize("kept", [0.4, 0.75, 0.9])
def test_archives_cut_short_are_errors(tmp_path, mode, kept):
    path = written(tmp_path / "q.tar", molecules([1, 2, 3, 4, 5, 6, 7]), mode)
    content = path.read_bytes()
    size = int(kept * len(content))
    path.write_bytes(content[: size - size % 512] if mode == "w" else content[:size])
    if mode == "w" and not any(content[size - 1024 : size]):
        assert len(read(path)) == 7  # only padding is gone
        return
    with pytest.raises(ValueError, match=r"`q\.tar` must be a whole tar archive"):
        read(path)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_damaged_headers_do_not_hide_the_molecules_behind_them(tmp_path, mode):
    """tarfile alone takes a damaged header, or one of zeros, for the end of the archive."""
    path = written(tmp_path / "q.tar", molecules([1, 2, 3, 4, 5]), "w")
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        offsets = [member.offset for member in archive]
    pack = gzip.compress if mode == "w:gz" else bytes
    damages = {"bit": lambda header: header[:150] + bytes([header[150] ^ 1]) + header[151:]}
    damages["zeros"] = lambda _: bytes(512)
    for k, offset in enumerate(offsets):
        for damage in damages.values():
            header = damage(whole[offset : offset + 512])
            path.write_bytes(pack(whole[:offset] + header + whole[offset + 512 :]))
            told = r"`q\.tar` must be a whole tar archive"
            told += rf", but its file number {k + 1} cannot be read" if k else ""
            with pytest.raises(ValueError, match=told):
                read(path)


def test_archives_of_something_else(tmp_path):
    with pytest.raises(ValueError, match="must hold dsgdb9nsd_XXXXXX"):
        read(written(tmp_path / "q.tar.gz", {"a.txt": "a"}, "w:gz"))
    (tmp_path / "q.tar").write_text("no archive")
    with pytest.raises(ValueError, match="must be a whole tar archive"):
        read(tmp_path / "q.tar")
    twice = written(tmp_path / "t.tar", molecules([1]) | {"b/dsgdb9nsd_000001.xyz": GOOD}, "w")
    with pytest.raises(ValueError, match="must hold each molecule once, got b/dsgdb9nsd_000001"):
        read(twice)


def test_options_that_do_not_fit(tmp_path):
    path = written(tmp_path / "q.tar", molecules([1]), "w")
    with pytest.raises(ValueError, match="`energy_key` must be one of U0, U, H, G, homo"):
        read(path, energy_key="alpha")
    with pytest.raises(ValueError, match="`forces_key` must be left out for a file of qm9"):
        read(path, forces_key="F")
    with pytest.raises(ValueError, match=r"q\.tar declares energy in Ha, got eV"):
        read(path, units="eV, Å")
