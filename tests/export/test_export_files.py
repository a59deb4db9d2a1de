"""Exported files: what they say, who can open them, and what happens to damaged and foreign ones."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from conftest import make_model

import scschnet
from scschnet import ops
from scschnet.checkpoint import Checkpoint, save_checkpoint
from scschnet.commands.export import main
from scschnet.data import embedded
from scschnet.export import load_exported
from scschnet.export.exported import read_metadata
from scschnet.export.torchscript import torchscript_deprecation_ignored
from scschnet.units import ENERGY

ETHANOL = embedded.load().select([3])


def inputs() -> tuple[torch.Tensor, ...]:
    """A molecule of ethanol without a cell."""
    r, z = torch.tensor(ETHANOL.positions), torch.tensor(ETHANOL.atomic_numbers)
    return r, z, torch.zeros(3, 3, dtype=torch.float64), torch.zeros(3, dtype=torch.bool)


def small_model(**options):
    """As small as an exported file can be of use, so that every byte of it can be damaged."""
    options = {"n_features": 4, "n_interactions": 1, "n_rbf": 4, "cutoff": 3.0, **options}
    return make_model(filters="spline", **options).eval()


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def file(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("file") / "small.pt"
    scschnet.export(model, path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder with all that an export takes from it."""
    folder = tmp_path_factory.mktemp("runs") / "ethanol"
    folder.mkdir()
    config = {"data": "", "n_train": 95, "n_val": 5}
    metadata = {"epoch": 2, "best_val_loss": 0.25, "train_config": config}
    save_checkpoint(folder / "best.pt", Checkpoint(small_model(n_interactions=1), metadata))
    rows = ["epoch,layer,weight,mean_norm,normalized_weight,normalized_weight_std"]
    rows += [f"{e},{k},0.5,{10 * e + k},{e + 0.5 * k},0.1" for e in (1, 2, 3) for k in (0, 1)]
    (folder / "contributions.csv").write_text("\n".join(rows) + "\n")
    errors = {"n_test": 7, "energy": {"n": 7, "eV": {"mae": 0.01, "rmse": 0.02}}}
    (folder / "test.json").write_text(json.dumps(errors))
    return folder


# ---- metadata


def test_a_run_folder_tells_all_it_knows(run, tmp_path):
    written = scschnet.export(run, tmp_path / "m.pt")
    found = read_metadata(tmp_path / "m.pt")
    assert found == written == load_exported(tmp_path / "m.pt").metadata
    assert (found["format"], found["version"]) == ("scschnet-exported", 1)
    assert (found["kind"], found["host"]) == ("full", "any")
    assert (found["elements"], found["symbols"]) == ([1, 6, 8], ["H", "C", "O"])
    assert found["ghost_range"] == {"halo": 3.0, "wide": 3.0}
    assert found["units"] == {"energy": "eV", "length": "Angstrom"}
    assert found["dtype"] == "float64"
    assert found["operator_libraries"] == ["libscschnet_ops.so"]
    assert [layer["name"] for layer in found["layers"]] == ["embedding", "block 1"]
    weights = [layer["contribution_weight"] for layer in found["layers"]]
    assert weights == pytest.approx(scschnet.load(run).contribution_weights.tolist())
    assert [layer["mean_norm"] for layer in found["layers"]] == [20, 21]
    assert [layer["normalized_weight"] for layer in found["layers"]] == [2, 2.5]
    assert found["training"]["errors"]["energy"]["eV"]["mae"] == 0.01
    assert found["training"]["data"] == "embedded MD17 ethanol"
    assert found["training"]["config"]["n_train"] == 95
    assert found["versions"]["scschnet"] == scschnet.__version__
    assert found["versions"]["trained with torch"] == torch.__version__
    assert 0 < found["filters"]["error"] < 2e-6


def test_a_model_alone_knows_less(file):
    found = read_metadata(file)
    assert found["training"] == {}
    assert found["layers"][0]["mean_norm"] is None


def test_library_for_gromacs_is_there(file, tmp_path, model):
    with zipfile.ZipFile(file) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("extra/extension_libs"))
        library = Path(archive.read(name).decode())
    assert library.is_absolute() and library.name == "libscschnet_ops.so" and library.is_file()
    scschnet.export(model, tmp_path / "portable.pt", portable=True)
    with zipfile.ZipFile(tmp_path / "portable.pt") as archive:
        assert not [n for n in archive.namelist() if "extension_libs" in n]
    assert read_metadata(tmp_path / "portable.pt")["operator_libraries"] == []


def test_same_model_same_bytes(file, tmp_path, model):
    scschnet.export(model, tmp_path / "again.pt")
    assert (tmp_path / "again.pt").read_bytes() == file.read_bytes()


def test_weights_are_laid_out_when_a_file_is_loaded(tmp_path):
    """For the CPU that runs them, and so they are not in the file."""
    model = small_model(n_features=24, n_interactions=2)
    path = _exported(tmp_path, model)
    weights = load_exported(path).module.weights
    packed = ops.pack_schnet(weights.tables, weights.contribution_weights, weights.dense)
    assert torch.equal(weights.packed, packed)
    with zipfile.ZipFile(path) as archive:
        assert packed.nbytes not in [record.file_size for record in archive.infolist()]


# ---- precision and options


def test_float32(model, tmp_path):
    single = small_model().to(torch.float32).requires_grad_(False)
    scschnet.export(model, tmp_path / "m.pt", dtype="float32")
    scschnet.export(single, tmp_path / "n.pt")
    one, other = (load_exported(tmp_path / name) for name in ("m.pt", "n.pt"))
    assert one.metadata["dtype"] == other.metadata["dtype"] == "float32"
    found = one.forward(*inputs(), layers=True)
    for name, value in other.forward(*inputs(), layers=True).items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)
    atoms = scschnet.ScSchNetCalculator(single)
    exact = load_exported(_exported(tmp_path, single, dtype="float64")).forward(*inputs())
    torch.testing.assert_close(found["forces"], exact["forces"], rtol=1e-5, atol=1e-5)
    molecule = Atoms(inputs()[1].numpy(), inputs()[0].numpy(), calculator=atoms)
    np.testing.assert_allclose(found["forces"], molecule.get_forces(), rtol=1e-6, atol=1e-6)


def _exported(folder: Path, model, **options) -> Path:
    path = folder / "exported.pt"
    scschnet.export(model, path, **options)
    return path


def test_positions_in_float32_are_taken_as_they_are(file):
    r, *rest = inputs()
    exported = load_exported(file)
    found, exact = exported.forward(r.float(), *rest), exported.forward(r.float().double(), *rest)
    assert torch.equal(found["forces"], exact["forces"])


def test_the_model_is_left_as_it_was(tmp_path):
    model = small_model(n_interactions=2)
    model.filters = "dense"
    state = {name: value.clone() for name, value in model.state_dict().items()}
    scschnet.export(model, tmp_path / "m.pt", dtype="float32", portable=True)
    assert model.filters == "dense" and all(p.requires_grad for p in model.parameters())
    assert model.embedding.weight.dtype == torch.float64
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, "`dtype` must be one of float32, float64, got float16"),
        ({"format": "onnx"}, "`format` must be one of torchscript, pt2, got onnx"),
        ({"host": "amber"}, "`host` must be one of any, gromacs, openmm-torch, got amber"),
        ({"host": "openmm-torch"}, "`atomic_numbers` and `host` openmm-torch must be given togeth"),
        ({"atomic_numbers": [1]}, "`atomic_numbers` and `host` openmm-torch must be given togeth"),
        (
            {"host": "openmm-torch", "atomic_numbers": [1, 7]},
            "`atomic_numbers` must hold only H, C, O, the elements the model was trained on, got N",
        ),
        ({"device": "cuda"}, "`device` must be cpu: scschnet's operators run there"),
        ({"format": "pt2", "portable": True}, "`format` pt2 goes neither with `portable` nor"),
    ],
)
def test_wrong_options(model, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        scschnet.export(model, tmp_path / "m.pt", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda_device(model, tmp_path):
    with pytest.raises(
        ValueError, match="`device` must be cpu, torch finds no CUDA device, got cuda"
    ):
        scschnet.export(model, tmp_path / "m.pt", portable=True, device="cuda")


def test_filters_too_steep(tmp_path):
    model = small_model()
    with torch.no_grad():
        model.interactions[0].filter_generator.hidden.weight.mul_(1e5)
    with pytest.raises(ValueError, match="the model cannot be exported: no table reaches"):
        scschnet.export(model, tmp_path / "m.pt")


def test_an_error_leaves_the_old_file(model, tmp_path):
    path = tmp_path / "m.pt"
    path.write_bytes(b"old")
    path.chmod(0o444)
    with pytest.raises(FileNotFoundError, match="must be an existing folder"):
        scschnet.export(model, tmp_path / "absent" / "m.pt")
    with pytest.raises(FileNotFoundError, match="a run folder or a checkpoint, but there is no"):
        scschnet.export(tmp_path / "absent.pt", path)
    assert path.read_bytes() == b"old"


# ---- programs without scschnet

BARE = """
import json, sys, warnings
import numpy as np
import torch
warnings.simplefilter("ignore")
module = torch.jit.load(sys.argv[1])
with np.load(sys.argv[2]) as file:
    r, z, cell, pbc = (torch.from_numpy(file[k]) for k in ("r", "z", "cell", "pbc"))
found = module(r, z, cell, pbc, True, True)
assert not [name for name in sys.modules if name.startswith("scschnet")]
np.savez(sys.argv[3], **{name: value.numpy() for name, value in found.items()})
"""


def run_bare(code: str, *arguments: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd="/"
    )


def test_portable_file_opens_where_scschnet_is_not(tmp_path):
    """A crystal thinner than the cutoff, in a bare process: the model's numbers to 1e-10."""
    model = small_model(n_interactions=2).requires_grad_(False)
    path = _exported(tmp_path, model, portable=True)
    g = np.random.default_rng(1)
    cell = np.array([[2.6, 0.0, 0.0], [0.8, 3.9, 0.0], [0.1, -0.6, 4.5]])
    r, z, pbc = g.random((4, 3)) @ cell, np.array([1, 8, 6, 1]), np.array([True, True, True])
    np.savez(tmp_path / "in.npz", r=r, z=z, cell=cell, pbc=pbc)
    done = run_bare(BARE, path, tmp_path / "in.npz", tmp_path / "out.npz")
    assert done.returncode == 0, done.stderr
    full = load_exported(_exported(tmp_path, model))
    expected = full.forward(
        *map(torch.from_numpy, (r, z, cell, pbc)), layers=True, atom_virial=True
    )
    with np.load(tmp_path / "out.npz") as found:
        assert set(found) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-13, atol=1e-10, err_msg=name)


def test_full_file_without_the_library_says_what_is_missing(file, tmp_path):
    done = run_bare(BARE, file, "-", "-")
    assert done.returncode == 1
    assert "Unknown builtin op: scschnet::" in done.stderr


def test_full_file_runs_on_the_processor_alone(file):
    with pytest.raises(
        ValueError, match=r"`device` must be cpu for .* got cuda:1: exported with --portable,"
    ):
        load_exported(file, device="cuda:1")


def test_a_plain_torch_program_may_use_its_default_executor(file):
    """Without our loader torch optimizes after its first calls; numbers stay."""
    with torchscript_deprecation_ignored():
        module = torch.jit.load(str(file))
    exported = load_exported(file)
    r, z, cell, pbc = inputs()
    for n in (9, 5, 9, 2, 7, 1, 9):
        found = module(r[:n], z[:n], cell, pbc)
        expected = exported.forward(r[:n], z[:n], cell, pbc)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-12)


def test_our_loader_leaves_the_executor_of_others_alone(file):
    exported = load_exported(file)
    assert torch._C._get_graph_executor_optimize()
    exported.forward(*inputs())
    assert torch._C._get_graph_executor_optimize()


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("inference", [False, True])
def test_results_need_no_gradients(model, tmp_path, portable, inference):
    """Positions that ask for gradients, as GROMACS gives them; and a mode in which torch has none."""
    with torchscript_deprecation_ignored():
        module = torch.jit.load(str(_exported(tmp_path, model, portable=portable)))
    r, z, cell, pbc = inputs()
    expected = load_exported(tmp_path / "exported.pt").forward(r, z, cell, pbc)
    with torch.inference_mode(inference):
        for _ in range(3):
            found = module(r.requires_grad_(not inference), z, cell, pbc)
            assert not any(value.requires_grad for value in found.values())
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


# ---- GROMACS


@pytest.mark.parametrize("portable", [False, True])
def test_gromacs_file_takes_what_gromacs_gives(model, tmp_path, portable):
    """Inputs in its order, types and units; a tuple of energy and forces, kJ/mol and nm."""
    path = _exported(tmp_path, model, portable=portable, host="gromacs")
    with torchscript_deprecation_ignored():
        module = torch.jit.load(str(path)).eval()
    r, z, _, _ = inputs()
    box = torch.diag(torch.tensor([0.9, 0.8, 1.1]))
    positions = (0.1 * r).float().requires_grad_()
    energy, forces = module(positions, z.int(), box, torch.tensor([True, True, True]))
    assert not energy.requires_grad
    plain = tmp_path / "plain.pt"
    scschnet.export(model, plain)
    expected = load_exported(plain).forward(
        10.0 * positions.detach().double(), z, 10.0 * box.double(), torch.ones(3, dtype=torch.bool)
    )
    per_kj = ENERGY["kJ/mol"]
    assert float(energy) == pytest.approx(float(expected["energy"]) / per_kj, abs=1e-8)
    torch.testing.assert_close(forces, expected["forces"] * 10.0 / per_kj, rtol=1e-12, atol=1e-9)
    energy_open, _ = module(positions, z.int())
    expected = load_exported(plain).forward(10.0 * positions.detach().double(), z, *inputs()[2:])
    assert float(energy_open) == pytest.approx(float(expected["energy"]) / per_kj, abs=1e-8)


def test_gromacs_file_is_not_for_others(model, tmp_path):
    path = _exported(tmp_path, model, host="gromacs")
    with pytest.raises(ValueError, match=r"was exported for gromacs, .*: export it without --host"):
        load_exported(path)


# ---- wrong arguments


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": torch.zeros(9, 2)}, r"`positions` must have shape \(9, 3\), got \(9, 2\)"),
        ({"r": torch.zeros(9, 3).long()}, "`positions` must be float64 or float32, got int64"),
        ({"r": torch.zeros(9, 3)}, "atoms must lie on different points"),
        ({"r": torch.full((9, 3), torch.nan)}, "`positions` must be finite"),
        ({"z": torch.zeros(8).long()}, r"`atomic_numbers` must have shape \(9,\), got \(8,\)"),
        ({"z": torch.full((9,), 6).int()}, "`atomic_numbers` must be int64, got int32"),
        ({"z": torch.full((9,), 7)}, "must hold only H, C, O, the elements of the model, got 7"),
        ({"z": torch.full((9,), -3)}, "must hold only H, C, O, the elements of the model, got -3"),
        ({"z": torch.full((9,), 500)}, "must hold only H, C, O, .*, got 500"),
        ({"cell": torch.zeros(2, 3)}, r"`cell` must have shape \(3, 3\), got \(2, 3\)"),
        ({"pbc": torch.zeros(3)}, "`pbc` must be bool, got float32"),
        ({"pbc": torch.tensor([True, False, False])}, "`cell` must have .*independent vectors"),
    ],
)
def test_wrong_arguments(model, tmp_path, portable, change, message):
    exported = load_exported(_exported(tmp_path, model, portable=portable))
    arguments = dict(zip(("r", "z", "cell", "pbc"), inputs(), strict=True)) | change
    with pytest.raises(ValueError, match=message) as failure:
        exported.forward(*arguments.values())
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"z": torch.tensor([1, 7, 1])},
            "must hold only H, C, O, the elements of the model, got 7",
        ),
        ({"j": torch.tensor([1])}, r"`idx_j` must have shape \(2,\), got \(1,\)"),
        ({"r": torch.zeros(2, 3)}, "`r_ij` must be float64, got float32"),
        ({"r": torch.zeros(2, 3).double()}, "atoms must lie on different points"),
        ({"n": 4}, "`n_local` must lie between 0 and the number of atoms, 3, got 4"),
    ],
)
def test_wrong_pairs(model, tmp_path, portable, change, message):
    exported = load_exported(_exported(tmp_path, model, portable=portable))
    pairs = torch.tensor([[1.0, 0, 0], [0, 1.1, 0]], dtype=torch.float64)
    arguments = {
        "z": torch.tensor([1, 8, 1]),
        "i": torch.tensor([0, 1]),
        "j": torch.tensor([1, 2]),
        "r": pairs,
        "n": 3,
        **change,
    }
    with pytest.raises(ValueError, match=message):
        exported.forward_pairs(*arguments.values(), halo=False)


def test_ghosts_without_an_exchange(tmp_path):
    model = small_model(n_interactions=2)
    arguments = (
        torch.tensor([1, 8]),
        torch.tensor([0]),
        torch.tensor([1]),
        torch.tensor([[1.0, 0, 0]], dtype=torch.float64),
        1,
        True,
    )
    full = load_exported(_exported(tmp_path, model))
    with pytest.raises(ValueError, match="the host has registered no halo"):
        full.forward_pairs(*arguments)
    portable = load_exported(_exported(tmp_path, model, portable=True))
    with pytest.raises(ValueError, match="a portable file cannot exchange the features of"):
        portable.forward_pairs(*arguments)


# ---- damaged and foreign files


def rewritten(file: Path, to: Path, change: dict[str, bytes | None]) -> Path:
    """A sound archive with other records; None leaves one out."""
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(to, "w") as target:
        for name in source.namelist():
            content = change.get(name.partition("/")[2], source.read(name))
            if content is not None:
                target.writestr(name, content)
    return to


def with_metadata(file: Path, to: Path, **change: object) -> Path:
    metadata = {**read_metadata(file), **change}
    metadata = {name: value for name, value in metadata.items() if value is not None}
    return rewritten(file, to, {"extra/scschnet.json": json.dumps(metadata).encode()})


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no exported model at .*absent\.pt"):
        load_exported(tmp_path / "absent.pt")
    with pytest.raises(ValueError, match=r"is a folder, not an exported model: scschnet export"):
        load_exported(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PK\x03\x04 broken", b"PK\x05\x06" + bytes(18)]
)
def test_files_that_are_no_archives(tmp_path, content):
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.pt is "):
        load_exported(tmp_path / "m.pt")


def test_foreign_archives(tmp_path, model):
    path = tmp_path / "m.pt"
    save_checkpoint(path, Checkpoint(model))
    with pytest.raises(
        ValueError, match="is a checkpoint, not an exported model: run scschnet export"
    ):
        load_exported(path)
    torch.save({"a": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="is a file of torch, but not an exported model of scsch"):
        load_exported(path)
    with torchscript_deprecation_ignored():
        path.write_bytes(torch.jit.script(torch.nn.Linear(2, 2)).save_to_buffer())
    with pytest.raises(ValueError, match="is a file of torch, but not an exported model of scsch"):
        load_exported(path)
    np.savez(path.with_suffix(".npz"), a=np.ones(2))
    with pytest.raises(ValueError, match="is a zip archive, but not an exported model of scschnet"):
        load_exported(path.with_suffix(".npz"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "has export version 2, but this scschnet reads up to 1: install a newer"),
        ({"version": "1"}, "have no valid version, got 1"),
        ({"format": "other"}, "its metadata are not those of an exported model"),
        ({"cutoff": None}, "its metadata have no valid `cutoff`, got None"),
        ({"elements": "H"}, "its metadata have no valid `elements`, got H"),
        ({"elements": []}, r"its metadata name no valid elements, got \[\]"),
        ({"n_interactions": 2}, "its metadata must name 3 layers, got "),
        ({"operator_libraries": ["libother.so"]}, "needs the operators of libother.so, which"),
    ],
)
def test_metadata_of_others(file, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load_exported(with_metadata(file, tmp_path / "m.pt", **change))


def test_metadata_that_are_no_json(file, tmp_path):
    path = rewritten(file, tmp_path / "m.pt", {"extra/scschnet.json": b"{"})
    with pytest.raises(ValueError, match="its metadata are no JSON"):
        load_exported(path)
    path = rewritten(file, tmp_path / "m.pt", {"extra/scschnet.json": b"[1]"})
    with pytest.raises(ValueError, match="its metadata are not those of an exported model"):
        load_exported(path)


def test_operators_of_a_newer_scschnet(file, tmp_path):
    with zipfile.ZipFile(file) as archive:
        codes = {
            n.partition("/")[2]: archive.read(n).replace(b"schnet_evaluate(", b"schnet_evaluate2(")
            for n in archive.namelist()
            if n.endswith(".py")
        }
    path = rewritten(file, tmp_path / "m.pt", codes)
    with pytest.raises(ValueError, match="it needs the operator scschnet::schnet_evaluate2, which"):
        load_exported(path)


def test_a_module_without_the_calls(file, tmp_path):
    with torchscript_deprecation_ignored():
        other = torch.jit.script(torch.nn.Identity())
    with zipfile.ZipFile(file) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("scschnet.json"))
        extra = {"scschnet.json": archive.read(name).decode()}
    (tmp_path / "m.pt").write_bytes(other.save_to_buffer(_extra_files=extra))
    with pytest.raises(ValueError, match=r"m\.pt cannot be used: "):
        load_exported(tmp_path / "m.pt")


def test_a_missing_record(file, tmp_path):
    for name in ("data.pkl", "constants.pkl", "data/0", "version"):
        path = rewritten(file, tmp_path / "m.pt", {name: None})
        with pytest.raises(ValueError, match=r"m\.pt cannot be loaded: "):
            load_exported(path)


def assert_refused_or_whole(path: Path, data: bytes, whole: dict) -> bool:
    """Either one sentence about the file, or a model with every number right; returns whether it was refused."""
    path.write_bytes(data)
    message = ""
    try:
        found = load_exported(path)
    except ValueError as error:
        message = str(error)
    if message:
        assert message.startswith(f"{path} ") and "\n" not in message
        return True
    assert found.metadata == whole["metadata"]
    for name, value in found.forward(*inputs()).items():
        assert torch.equal(value, whole["results"][name])
    return False


@pytest.fixture(scope="module")
def whole(file) -> dict:
    exported = load_exported(file)
    return {"metadata": exported.metadata, "results": exported.forward(*inputs())}


def test_truncated_files(file, whole, tmp_path):
    data = file.read_bytes()
    rng = np.random.default_rng(0)
    cuts = sorted(
        {*range(200), *rng.integers(0, len(data), 200), *range(len(data) - 100, len(data))}
    )
    for cut in cuts:
        assert assert_refused_or_whole(tmp_path / "m.pt", data[:cut], whole), cut


def test_flipped_bits(file, whole, tmp_path):
    """Anywhere: records, paddings, local headers, directory. Most are noticed; the others change nothing."""
    data = file.read_bytes()
    rng = np.random.default_rng(1)
    directory = data.find(b"PK\x01\x02")
    places = [*rng.integers(0, directory, 400), *rng.integers(directory, len(data), 400)]
    refused = 0
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(8))
        refused += assert_refused_or_whole(tmp_path / "m.pt", bytes(flipped), whole)
    assert refused > len(places) / 3


def test_a_record_marked_as_a_folder_is_refused(file, tmp_path):
    """One bit of the directory, outside of all checksums: torch then reads whatever memory held before."""
    data = file.read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        n_records = len(archive.infolist())
    entry, seen = data.find(b"PK\x01\x02"), 0
    while entry >= 0:
        marked = bytearray(data)
        marked[entry + 38] |= 0x10
        (tmp_path / "m.pt").write_bytes(marked)
        with pytest.raises(ValueError, match=r"its record \S+ is marked as a folder"):
            load_exported(tmp_path / "m.pt")
        entry, seen = data.find(b"PK\x01\x02", entry + 4), seen + 1
    assert seen == n_records


def test_a_record_that_stands_twice_is_refused(file, tmp_path):
    """One bit of a name in the directory makes data/5 of data/1: what torch reads then would end the process."""
    data = bytearray(file.read_bytes())
    name = data.rfind(b"archive/data/1PK")
    data[name + len(b"archive/data/")] ^= ord("1") ^ ord("5")
    (tmp_path / "m.pt").write_bytes(data)
    with pytest.raises(ValueError, match=r"its record archive/data/5 stands twice"):
        load_exported(tmp_path / "m.pt")


def test_names_in_damaged_files_are_printable(file, tmp_path):
    """Both names of the first record and its checksum."""
    data = bytearray(file.read_bytes())
    entry = data.find(b"PK\x01\x02")
    for name in (30 + 9, entry + 46 + 9):
        data[name] = 0x1B
    data[entry + 16] ^= 1
    (tmp_path / "m.pt").write_bytes(data)
    with pytest.raises(
        ValueError, match=r"the checksum of its record archive.\S*\?\S* is"
    ) as failure:
        load_exported(tmp_path / "m.pt")
    assert str(failure.value).isprintable()


def test_every_flip_in_a_weight_is_noticed(file, whole, tmp_path):
    data = bytearray(file.read_bytes())
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        records = [i for i in archive.infolist() if "/data/" in i.filename and i.file_size > 8]
        weights = [archive.read(record)[:8] for record in records]
    assert len(records) > 10
    for weight in {w for w in weights if any(w)}:
        place = data.find(weight) + 3
        data[place] ^= 4
        assert assert_refused_or_whole(tmp_path / "m.pt", bytes(data), whole)
        data[place] ^= 4


# ---- command line


def test_command_line(run, tmp_path, capsys):
    path = tmp_path / "m.pt"
    assert main([str(run), "-o", str(path), "--dtype", "float32", "--portable"]) == 0
    assert capsys.readouterr().out == f"{path}: H, C, O, 1 blocks, cutoff 3 Å, float32\n"
    found = read_metadata(path)
    assert (found["kind"], found["dtype"]) == ("portable", "float32")


def test_command_line_fails_with_a_sentence(tmp_path, capsys):
    assert main([str(tmp_path / "absent"), "-o", str(tmp_path / "m.pt")]) == 1
    assert capsys.readouterr().err.startswith("error: expected a run folder or a checkpoint, ")
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path)])
    assert stop.value.code == 2
