"""Exported committees: the mean of the members and their deviations, in every kind and from every call."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_model
from test_export import FRAMES, arguments, expected, half_list
from test_export_files import BARE, run_bare

import scschnet
from scschnet.checkpoint import Checkpoint, save_checkpoint
from scschnet.commands.export import main as export_command
from scschnet.commands.info import main as info
from scschnet.data import embedded
from scschnet.evaluate.norm_statistics import norm_statistics
from scschnet.export import export, load_exported
from scschnet.export.torchscript import torchscript_deprecation_ignored
from scschnet.kinds import Kind, kind_of
from scschnet.nn import SchNet
from scschnet.nn.unfamiliarity import KEY
from scschnet.runs.run import read_run
from scschnet.units import ENERGY

KINDS = ("full", "portable")
TOLERANCE = 1e-10  # eV and eV/Å
N_MEMBERS = 3


def member(seed: int, **config) -> SchNet:
    return make_model(seed=seed, filters="spline", **config).eval().requires_grad_(False)


MEMBERS = [member(seed) for seed in range(N_MEMBERS)]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("committees")
    paths = {kind: folder / f"{kind}.pt" for kind in KINDS}
    for kind, path in paths.items():
        export(MEMBERS, path, portable=kind == "portable")
    return paths


def by_hand(name: str) -> dict[str, np.ndarray]:
    """Mean and root mean squares of what the members say in Python."""
    alone = [expected(model, FRAMES[name]) for model in MEMBERS]
    found = {}
    for key in ("energy", "energies", "forces", "virial", "correction_norms"):
        values = np.array([one[key].numpy() for one in alone])
        found[key] = values.mean(axis=0)
        squares = np.square(values - found[key])
        if key == "forces":
            squares = squares.sum(axis=2)
        if key != "correction_norms":
            found[f"{key}_std"] = np.sqrt(squares.mean(axis=0))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FRAMES)
def test_mean_and_deviations_of_the_members(files, name, kind):
    found = load_exported(files[kind]).forward(*arguments(FRAMES[name]), True, True)
    for key, value in by_hand(name).items():
        assert found[key].dtype == torch.float64, key
        if not np.isnan(value).any():  # an open structure has no stress in Python
            np.testing.assert_allclose(found[key], value, atol=TOLERANCE, rtol=1e-9, err_msg=key)
    sums = found["base_energies"] + found["layer_energies"].sum(0)
    torch.testing.assert_close(sums, found["energies"], atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_deviations_of_two_processes_add_up(files, kind):
    """Each has some of the atoms, sees the others as ghosts, and its share of forces and deviations."""
    committee, frame = load_exported(files[kind]), FRAMES["ethanol"]
    i, j, r = half_list(frame, 4.0)
    z, n = torch.tensor(frame.atomic_numbers), len(frame.atomic_numbers)
    whole = committee.forward_pairs(z, i, j, r, n, halo=False)
    forces = torch.zeros(n, 3, dtype=torch.float64)
    deviations = torch.zeros(N_MEMBERS, n, 3, dtype=torch.float64)
    energy = torch.zeros(N_MEMBERS, dtype=torch.float64)
    virial = torch.zeros(N_MEMBERS, 3, 3, dtype=torch.float64)
    for own in ([0, 3, 4, 7], [1, 2, 5, 6, 8]):
        order = torch.tensor(own + [k for k in range(n) if k not in own])
        place = torch.argsort(order)
        a, b = place[i], place[j]
        by_center = torch.argsort(a, stable=True)
        share = committee.forward_pairs(
            z[order], a[by_center], b[by_center], r[by_center], len(own), halo=False
        )
        forces[order] += share["forces"]
        deviations[:, order] += share["forces_deviations"]
        energy += share["energy_deviations"]
        virial += share["virial_deviations"]
    close = {"atol": TOLERANCE, "rtol": 0}
    torch.testing.assert_close(forces, whole["forces"], **close)
    of_atoms = deviations.square().sum(2).mean(0).sqrt()
    assert whole["forces_std"].min() > 1e-3
    torch.testing.assert_close(of_atoms, whole["forces_std"], **close)
    torch.testing.assert_close(energy.square().mean().sqrt(), whole["energy_std"], **close)
    torch.testing.assert_close(virial.square().mean(0).sqrt(), whole["virial_std"], **close)


def test_members_share_the_finest_filter_step(tmp_path):
    """One of them has steeper filters; on its grid all members are what they are alone."""
    smooth, steep = member(0), member(1)
    with torch.no_grad():
        for block in steep.interactions:
            block.filter_generator.hidden.weight.mul_(40.0)
    steps = []
    for model in (smooth, steep):
        model.refine_filters()
        steps.append(model.filter_step)
    assert steps[1] < steps[0]
    metadata = export([smooth, steep], tmp_path / "committee.pt")
    assert metadata["filters"]["step"] == steps[1]
    found = load_exported(tmp_path / "committee.pt").forward(*arguments(FRAMES["water"]))
    alone = [expected(model, FRAMES["water"]) for model in (smooth, steep)]
    forces = torch.stack([one["forces"] for one in alone]).mean(0)
    torch.testing.assert_close(found["forces"], forces, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_torch_alone_gives_error_bars(files, kind, tmp_path):
    r, z, cell, pbc = (tensor.numpy() for tensor in arguments(FRAMES["skewed"]))
    np.savez(tmp_path / "in.npz", r=r, z=z, cell=cell, pbc=pbc)
    code = BARE
    if kind == "full":
        library = next(
            Path(folder) / "libscschnet_ops.so"
            for folder in scschnet.__path__
            if (Path(folder) / "libscschnet_ops.so").is_file()
        )
        code = BARE.replace(
            'warnings.simplefilter("ignore")\n',
            f'warnings.simplefilter("ignore")\ntorch.ops.load_library("{library}")\n',
        )
    done = run_bare(code, files[kind], tmp_path / "in.npz", tmp_path / "out.npz")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as found:
        for key, value in by_hand("skewed").items():
            np.testing.assert_allclose(found[key], value, atol=TOLERANCE, rtol=1e-9, err_msg=key)


def test_files_for_other_hosts_give_the_mean(tmp_path):
    export(MEMBERS, tmp_path / "gromacs.pt", host="gromacs")
    with torchscript_deprecation_ignored():
        module = torch.jit.load(tmp_path / "gromacs.pt")
    r, z, _, _ = arguments(FRAMES["ethanol"])
    energy, forces = module(0.1 * r, z)
    kilojoule = 1.0 / ENERGY["kJ/mol"]  # per mol, of one eV
    np.testing.assert_allclose(energy / kilojoule, by_hand("ethanol")["energy"], rtol=1e-9)
    np.testing.assert_allclose(
        forces / (10 * kilojoule), by_hand("ethanol")["forces"], atol=1e-8, rtol=0
    )


# ---- folders and commands


def make_run(folder: Path, seed: int, **config) -> Path:
    folder.mkdir(parents=True)
    training = {
        "epoch": seed + 1,
        "train_config": {"data": "", "n_train": 9, "n_val": 2, "seed": seed},
    }
    save_checkpoint(folder / "best.pt", Checkpoint(member(seed, **config), training))
    return folder


@pytest.fixture
def committee(tmp_path) -> Path:
    """A folder as training leaves it, with calibrated error bars."""
    folder = tmp_path / "committee"
    for k in range(N_MEMBERS):
        make_run(folder / f"member-{k + 1}", k)
    (folder / "committee.toml").write_text(f"committee = {N_MEMBERS}\n")
    (folder / "error_bars.json").write_text(json.dumps({"energy": 2.0, "forces": 3.0}))
    return folder


def test_a_folder_and_its_members_give_the_same_mean(committee, tmp_path, capsys):
    members = [str(committee / f"member-{k + 1}") for k in range(N_MEMBERS)]
    assert export_command([*members, "-o", str(tmp_path / "members.pt")]) == 0
    assert export_command([str(committee), "-o", str(tmp_path / "folder.pt")]) == 0
    assert "folder.pt: committee of 3, H, C, O, 2 blocks" in capsys.readouterr().out
    frame = arguments(FRAMES["skewed"])
    one, other = (
        load_exported(tmp_path / f"{n}.pt").forward(*frame) for n in ("members", "folder")
    )
    assert torch.equal(one["forces"], other["forces"])
    torch.testing.assert_close(3.0 * one["forces_std"], other["forces_std"], rtol=1e-12, atol=0)
    torch.testing.assert_close(2.0 * one["energy_std"], other["energy_std"], rtol=1e-12, atol=0)
    torch.testing.assert_close(2.0 * one["energies_std"], other["energies_std"], rtol=1e-12, atol=0)
    torch.testing.assert_close(3.0 * one["virial_std"], other["virial_std"], rtol=1e-12, atol=0)


def test_what_a_file_says_of_itself(committee, tmp_path, capsys):
    bars = export(committee, tmp_path / "committee.pt")["error_bars"]
    assert bars["kind"] == "committee" and bars["n_members"] == 3
    assert bars["factors"] == {"energy": 2.0, "forces": 3.0}
    assert [training["epoch"] for training in bars["members"]] == [1, 2, 3]
    metadata = load_exported(tmp_path / "committee.pt").metadata
    assert metadata["training"] == {
        "data": "embedded MD17 ethanol",
        "config": {"data": "", "n_train": 9, "n_val": 2},
    }
    weights = [model.contribution_weights[1].item() for model in MEMBERS]
    assert metadata["layers"][1]["contribution_weight"] == pytest.approx(np.mean(weights))
    for path in (committee, tmp_path / "committee.pt"):
        assert info([str(path)]) == 0
        said = capsys.readouterr().out
        assert "deviations of a committee of 3 from its mean, times 2 for energies and 3" in said
    assert "exported (full, TorchScript" in said
    assert export(MEMBERS[0], tmp_path / "one.pt")["error_bars"] is None
    info([str(tmp_path / "one.pt")])
    assert "error bars  none; scschnet analysis error-bars RUN adds some" in capsys.readouterr().out


def test_scores_of_unfamiliar_atoms_are_the_mean_over_the_members(tmp_path):
    ethanol = embedded.load().select(range(60))
    paths = [tmp_path / f"{k}.pt" for k in range(2)]
    for k, path in enumerate(paths):
        statistics = norm_statistics(
            MEMBERS[k], ethanol.select(range(40)), ethanol.select([50, 51])
        )
        save_checkpoint(path, Checkpoint(MEMBERS[k], {KEY: statistics.to_json()}))
    frame = arguments(FRAMES["ethanol"])

    def scores(model, name):
        export(model, tmp_path / name)
        return load_exported(tmp_path / name).forward(*frame)["unfamiliarity"]

    alone = [scores(path, f"exported_{path.name}") for path in paths]
    torch.testing.assert_close(scores(paths, "both.pt"), torch.stack(alone).mean(0))
    bare = tmp_path / "bare.pt"
    save_checkpoint(bare, Checkpoint(MEMBERS[2], {}))
    assert export([*paths, bare], tmp_path / "some.pt")["unfamiliarity"] is None


# ---- refusals


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"elements": (1, 6)}, r"the same `elements`, got \(1, 6, 8\) in .*a and \(1, 6\) in .*b"),
        ({"cutoff": 3.5}, r"the same `cutoff`, got 4.0 in .*a and 3.5 in .*b"),
        ({"n_interactions": 3}, "the same `n_interactions`, got 2 in .*a and 3 in .*b"),
        ({"repulsion": "zbl"}, "the same `repulsion`, got none in .*a and zbl in .*b"),
        (
            {"dtype": torch.float32},
            "the same dtype, or --dtype must choose one, got float64 in .*a",
        ),
    ],
)
def test_members_of_another_form(tmp_path, config, message, capsys):
    runs = [make_run(tmp_path / "a", 0), make_run(tmp_path / "b", 1, **config)]
    assert export_command([*map(str, runs), "-o", str(tmp_path / "c.pt")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: members of a committee must have") and said.count("\n") == 1
    with pytest.raises(ValueError, match=message):
        export(runs, tmp_path / "c.pt")
    assert not (tmp_path / "c.pt").exists()


def test_one_dtype_for_members_of_two(tmp_path):
    runs = [make_run(tmp_path / "a", 0), make_run(tmp_path / "b", 1, dtype=torch.float32)]
    assert export(runs, tmp_path / "c.pt", dtype="float32")["dtype"] == "float32"


def test_members_with_another_pair_term(tmp_path):
    runs = []
    for k in range(2):
        model = member(k, repulsion="data")
        model.pair_term.fit(torch.full((3, 3), 1.0 + 0.1 * k, dtype=torch.float64))
        runs.append(tmp_path / f"{k}.pt")
        save_checkpoint(runs[-1], Checkpoint(model, {}))
    with pytest.raises(ValueError, match=r"the same pair term, .* train them on the same split"):
        export(runs, tmp_path / "c.pt")


def test_members_with_other_units(tmp_path):
    runs = [make_run(tmp_path / "a", 0), make_run(tmp_path / "b", 1)]
    units = {"energy": "kcal/mol", "length": "Angstrom"}
    save_checkpoint(runs[1] / "best.pt", Checkpoint(member(1), {"units": units}))
    with pytest.raises(ValueError, match=r"must have the same units, got .*eV.* and .*kcal/mol"):
        export(runs, tmp_path / "c.pt")


def test_too_few_members_and_members_given_twice(tmp_path):
    run = make_run(tmp_path / "a", 0)
    with pytest.raises(ValueError, match=r"must have at least two members, .* got .*a"):
        export([run], tmp_path / "c.pt")
    with pytest.raises(
        ValueError, match=r"b/best.pt has the weights of .*a: give every member once"
    ):
        export([run, make_run(tmp_path / "b", 0) / "best.pt"], tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"model 2 has the weights of model 1"):
        export([MEMBERS[0], MEMBERS[0]], tmp_path / "c.pt")


def test_members_of_another_kind(tmp_path, files):
    run = make_run(tmp_path / "a", 0)
    with pytest.raises(ValueError, match=r"is an exported model; name the run folder"):
        export([run, files["full"]], tmp_path / "c.pt")
    with pytest.raises(
        ValueError, match="`format` pt2 takes a single model: export a committee as"
    ):
        export(MEMBERS, tmp_path / "c.pt2", format="pt2")


def test_a_committee_that_is_not_trained_yet(committee, tmp_path):
    (committee / "member-3" / "best.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"a committee of 3, but .*member-3 has no best.pt"):
        export(committee, tmp_path / "c.pt")


def test_a_folder_is_named_where_a_run_is_wanted(committee):
    assert kind_of(committee) is Kind.COMMITTEE
    with pytest.raises(
        ValueError, match=r"is a committee of run folders; name one of them, such as"
    ):
        read_run(committee)
