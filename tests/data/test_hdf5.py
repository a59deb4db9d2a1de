"""Our own file: round trip, memory maps, atomic writing, damaged and foreign files."""

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scschnet.data import StructureSet, collate, embedded, read, write_hdf5

DATA = Path(__file__).parents[1] / "files"
ARRAYS = ("positions", "atomic_numbers", "atom_ptr", "cells", "pbc", "energy", "forces", "stress")


def random_set(sizes: list[int], labels: list[str], seed: int = 0) -> StructureSet:
    rng = np.random.default_rng(seed)
    n_atoms, n_structures = sum(sizes), len(sizes)
    made = {
        "energy": rng.normal(size=n_structures),
        "forces": rng.normal(size=(n_atoms, 3)),
        "stress": rng.normal(size=(n_structures, 3, 3)),
        "atomref": rng.normal(size=10),
        "weights": rng.random(n_structures),
        "isolated": rng.random(n_structures) < 0.5,
    }
    return StructureSet(
        10 * rng.normal(size=(n_atoms, 3)),
        rng.integers(1, 10, n_atoms),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        30 * np.eye(3) + rng.normal(size=(n_structures, 3, 3)),
        rng.random((n_structures, 3)) < 0.5,
        info={"name": "Ångström"},
        **{label: made[label] for label in labels},
    )


def assert_same(one: StructureSet, other: StructureSet) -> None:
    for name in (*ARRAYS, "atomref", "weights", "isolated"):
        expected, got = getattr(one, name), getattr(other, name)
        assert (expected is None) == (got is None), name
        if expected is not None:
            np.testing.assert_array_equal(got, expected)
            assert got.dtype == expected.dtype


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(1, 4), max_size=5),
    st.sets(st.sampled_from(["energy", "forces", "stress", "atomref", "weights", "isolated"])),
    st.booleans(),
)
def test_round_trip_is_exact(tmp_path, sizes, labels, memory_map):
    structures = random_set(sizes, sorted(labels))
    write_hdf5(tmp_path / "set.h5", structures)
    back = read(tmp_path / "set.h5", memory_map=memory_map)
    assert_same(structures, back)
    assert back.info["name"] == "Ångström"


def test_partial_labels_stay(tmp_path):
    structures = random_set([2, 1, 3], ["energy", "forces"])
    structures.energy[1] = np.nan
    structures.forces[:2] = np.nan
    write_hdf5(tmp_path / "set.h5", structures)
    back = read(tmp_path / "set.h5")
    assert back.labeled["energy"].tolist() == [True, False, True]
    assert back.labeled["forces"].tolist() == [False, True, True]


def test_provenance_survives_two_conversions(tmp_path):
    write_hdf5(tmp_path / "a.h5", read(DATA / "qm9_first20.npz"))
    write_hdf5(tmp_path / "b.h5", read(tmp_path / "a.h5"))
    info = read(tmp_path / "b.h5").info
    assert info["converted from"] == "qm9_first20.npz" and info["units before"] == "Ha, Å"
    assert info["file"] == "b.h5" and info["format"] == "HDF5"
    with h5py.File(tmp_path / "b.h5") as file:
        assert file["energy"].attrs["unit"].decode() == "eV"
        assert file["positions"].attrs["unit"].decode() == "Å" and file.attrs["version"] == 1
        assert all(item.chunks is None for item in file.values())


def test_memory_map_stays_on_disk_and_batches_like_the_set(tmp_path):
    structures = embedded.load()
    write_hdf5(tmp_path / "set.h5", structures)
    mapped = read(tmp_path / "set.h5", memory_map=True)
    base = mapped.positions
    while not isinstance(base, np.memmap):
        base = base.base
        assert base is not None
    assert not mapped.positions.flags.writeable and mapped.positions.flags.aligned
    one, other = (collate(s, [5, 1999, 0], 5.0) for s in (structures, mapped))
    for name in ("positions", "forces", "energy", "idx_j", "shifts"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_written_under_a_temporary_name_and_renamed(tmp_path, monkeypatch):
    write_hdf5(tmp_path / "set.h5", random_set([2], ["energy"]))
    before = (tmp_path / "set.h5").read_bytes()

    def full_disk(*_arguments, **_named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(h5py.File, "create_dataset", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_hdf5(tmp_path / "set.h5", random_set([3], ["energy"]))
    assert os.listdir(tmp_path) == ["set.h5"]
    assert (tmp_path / "set.h5").read_bytes() == before


def test_folder_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match="must be an existing folder, got none"):
        write_hdf5(tmp_path / "absent" / "set.h5", random_set([1], []))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.attrs.__setitem__("format", "x"), "must be written by `scschnet data"),
        (lambda f: f.attrs.__setitem__("version", 2), "must have format version 1, got 2"),
        (lambda f: f.attrs.__setitem__("info", "{"), "must carry its info as JSON"),
        (lambda f: f.attrs.__setitem__("info", "[]"), "must carry its info as a JSON object"),
        (lambda f: f.__delitem__("cells"), "must have a dataset `cells`, got none"),
        (lambda f: f["energy"].attrs.__setitem__("unit", "Ha"), "must be in eV, got Ha"),
        (lambda f: f["pbc"].__setitem__((0, 0), 3), "`pbc` in set.h5 must hold 0 and 1, got 3"),
        (
            lambda f: f["positions"].__setitem__((1, 0), np.inf),
            "`positions` must be finite, got inf",
        ),
        (lambda f: f["forces"].__setitem__((1, 0), np.nan), "`forces` must be finite, got nan"),
        (
            lambda f: f["weights"].__setitem__(1, -2),
            "must be finite and not negative, got -2.0 in st",
        ),
        (
            lambda f: f["isolated"].__setitem__(1, 2),
            "`isolated` in set.h5 must hold 0 and 1, got 2",
        ),
        (lambda f: f["atom_ptr"].__setitem__(1, 7), "`atom_ptr` must rise from 0 to 3"),
        (lambda f: f["atomic_numbers"].__setitem__(1, 0), "`atomic_numbers` must lie between"),
    ],
)
def test_files_that_do_not_follow_the_format(tmp_path, change, message):
    labels = ["energy", "forces", "weights", "isolated"]
    write_hdf5(tmp_path / "set.h5", random_set([2, 1], labels))
    with h5py.File(tmp_path / "set.h5", "r+") as file:
        change(file)
        for dataset in file.values():
            dataset.attrs["crc32"] = zlib.crc32(dataset[...])
    with pytest.raises(ValueError) as caught:
        read(tmp_path / "set.h5")
    assert message in str(caught.value)


def test_weights_and_isolated_atoms_follow_their_structures():
    structures = random_set([2, 1, 3], ["energy", "weights", "isolated"])
    part = structures.select([2, 0, 2])
    np.testing.assert_array_equal(part.weights, structures.weights[[2, 0, 2]])
    np.testing.assert_array_equal(part.isolated, structures.isolated[[2, 0, 2]])


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_weights_must_be_usable(weight):
    with pytest.raises(ValueError, match=f"not negative, got {weight} in structure 1"):
        StructureSet(np.zeros((2, 3)), np.array([1, 1]), np.arange(3), weights=[1.0, weight])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": np.zeros(2, np.float32)}, "`energy` in set.h5 must be float64 numbers"),
        ({"data": np.zeros(2), "chunks": (1,)}, "`energy` in set.h5 must be stored contiguously"),
        ({"shape": (2,), "dtype": "f8"}, "`energy` in set.h5 must be whole"),
        ({"data": np.zeros(3)}, "`energy` must have shape (2,), got (3,)"),
    ],
)
def test_datasets_stored_otherwise(tmp_path, options, message):
    write_hdf5(tmp_path / "set.h5", random_set([2, 1], []))
    with h5py.File(tmp_path / "set.h5", "r+") as file:
        dataset = file.create_dataset("energy", **options)
        dataset.attrs["unit"] = "eV"
        dataset.attrs["crc32"] = zlib.crc32(dataset[...])
    with pytest.raises(ValueError) as caught:
        read(tmp_path / "set.h5")
    assert message in str(caught.value)


def test_options_that_do_not_fit(tmp_path):
    write_hdf5(tmp_path / "set.h5", random_set([2], ["energy"]))
    assert len(read(tmp_path / "set.h5", units="eV, Å")) == 1
    with pytest.raises(ValueError, match=r"set\.h5 declares energy in eV, got Ha"):
        read(tmp_path / "set.h5", units="Ha")
    with pytest.raises(ValueError, match="`energy_key` must be left out for a file of hdf5"):
        read(tmp_path / "set.h5", energy_key="energy")


@pytest.mark.parametrize("name", ["positions", "energy", "forces", "atom_ptr", "cells", "pbc"])
def test_altered_data_are_errors(tmp_path, name):
    write_hdf5(tmp_path / "set.h5", random_set([2, 1], ["energy", "forces"]))
    with h5py.File(tmp_path / "set.h5") as file:
        offset = file[name].id.get_offset()
    content = bytearray((tmp_path / "set.h5").read_bytes())
    content[offset] ^= 1
    (tmp_path / "set.h5").write_bytes(content)
    with pytest.raises(ValueError, match=f"`{name}` in set.h5 must have its checksum, got altered"):
        read(tmp_path / "set.h5")


@pytest.mark.parametrize("memory_map", [False, True])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_files_cut_short_are_errors(tmp_path, kept, memory_map):
    write_hdf5(tmp_path / "set.h5", random_set([20, 10], ["energy", "forces"]))
    content = (tmp_path / "set.h5").read_bytes()
    (tmp_path / "set.h5").write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"set\.h5(` must be a whole HDF5 file| is an empty file)"):
        read(tmp_path / "set.h5", memory_map=memory_map)


def test_hdf5_of_other_programs(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["R"] = np.zeros((2, 3))
        file.attrs["info"] = json.dumps({})
    with pytest.raises(ValueError, match="got another HDF5 file"):
        read(tmp_path / "other.h5")


WRITE = """
import resource, sys
import numpy as np
from scschnet.data import embedded
from scschnet.data.readers import write_hdf5

frames = embedded.load().select(np.arange(40))
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    write_hdf5(sys.argv[1], frames)
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [0, 100, 2048, 4096, 10_000, 25_000])
def test_a_file_that_finds_no_room(tmp_path, limit):
    """A limit of the process does what a full disk does: HDF5 alone would end the process."""
    path = tmp_path / "f.h5"
    path.write_text("old")
    command = [sys.executable, "-c", WRITE, str(path), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"cannot write {path}: File too large\n" in done.stdout
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["f.h5"]
