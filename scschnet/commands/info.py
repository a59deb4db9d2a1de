"""`scschnet info`: everything a user needs to know about an exported model, a checkpoint or a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from scschnet.commands.line import failed, parse
from scschnet.committee import member_folders, read_factors
from scschnet.export.exported import read_metadata
from scschnet.export.metadata import describe, describe_committee, read_source
from scschnet.kinds import Kind, expect

MODELS = (Kind.RUN, Kind.CHECKPOINT)


@dataclass(frozen=True)
class Options:
    """Everything a user needs to know about an exported model, a checkpoint, a run or a committee; nothing in it is run."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """Exported model, checkpoint, run or committee folder."""


OPTIONS = Options


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what a file is; returns the exit status, 0 done or 1 failed.

    Args:
        arguments: without the program's name; None: those of the process.
    """
    file = parse(Options, "info", arguments).file
    try:
        found = read(file)
    except (OSError, ValueError) as failure:
        return failed(failure, Options)
    print("\n".join(lines(str(file), found)))
    return 0


def read(file: Path) -> dict[str, Any]:
    """What an exported model, a checkpoint or a run folder says about itself.

    Args:
        file: the file or folder.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, foreign or of a newer version.
    """
    kind = expect(file, Kind.RUN, Kind.CHECKPOINT, Kind.COMMITTEE, Kind.EXPORTED, Kind.OTHER)
    if kind is Kind.COMMITTEE:
        members = [read_source(member) for member in member_folders(file)]
        return describe_committee(members, read_factors(file))
    if kind in MODELS:
        return describe(read_source(file))
    return read_metadata(file)


def lines(title: str, found: dict[str, Any]) -> list[str]:
    """A page of text.

    Args:
        title: name of the file.
        found: from `read`.
    """
    skip = "sc-SchNet" if found["skip"] == "weighted" else "SchNet"
    basis = found.get("radial_basis", "gaussian")
    rows = {
        "elements": f"{' '.join(found['symbols'])}  (in this order)",
        "cutoff": f"{found['cutoff']:g} Å, cutoff function: {found['cutoff_function']}",
        "ghosts": _ghosts(found),
        "units": f"{found['units']['energy']}, {found['units']['length']}",
        "network": f"{found['n_interactions']} blocks, {found['n_features']} features, "
        f"{found['n_rbf']} functions ({basis}), {found['dtype']}",
        **_repulsion(found),
        **_properties(found),
        **_file(found),
        **_training(found["training"]),
        "error bars": _error_bars(found.get("error_bars")),
        "unfamiliar": _unfamiliar(found.get("unfamiliarity")),
        "versions": ", ".join(f"{name} {value}" for name, value in found["versions"].items()),
    }
    return [
        f"{title}: {skip}, {_what(found)}",
        *(f"{name:12}{value}" for name, value in rows.items()),
        "",
        *(_layers(found["layers"]) if found.get("energy", True) else []),
        *_weights_of(found.get("properties", [])),
    ]


def _repulsion(found: dict[str, Any]) -> dict[str, str]:
    name = found.get("repulsion", "none")
    return {} if name == "none" else {"repulsion": f"pair term {name}"}


def _properties(found: dict[str, Any]) -> dict[str, str]:
    properties = found.get("properties", [])
    if not properties:
        return {}
    words = [f"{one['name']} ({one['unit'] or one['kind']})" for one in properties]
    alone = "" if found["energy"] else "; no energy or forces"
    return {"properties": ", ".join(words) + alone}


def _what(found: dict[str, Any]) -> str:
    if "format" not in found and (found.get("error_bars") or {}).get("kind") == "committee":
        return "a committee, for Python and scschnet export"
    if "format" not in found:
        return "a checkpoint, for Python and scschnet export"
    container = {"torchscript": "TorchScript", "pt2": "compiled by AOTInductor"}[found["container"]]
    host = "" if found["host"] == "any" else f" for {found['host']}"
    return f"exported{host} ({found['kind']}, {container}, version {found['version']})"


def _ghosts(found: dict[str, Any]) -> str:
    halo, wide = found["ghost_range"]["halo"], found["ghost_range"]["wide"]
    if found.get("kind") == "portable":
        return f"{wide:g} Å deep"
    return f"{halo:g} Å deep with an exchange between blocks, {wide:g} Å without"


def _file(found: dict[str, Any]) -> dict[str, str]:
    if "format" not in found:
        return {}
    filters = found["filters"]
    return {
        "filters": f"table with a step of {filters['step']:g} Å, relative error of the slopes {filters['error']:.1e}",
        "needs": ", ".join(found["operator_libraries"]) or "nothing but torch",
        "trust": "hosts run the program in this file; load it only if you trust its origin",
    }


def _training(training: dict[str, Any]) -> dict[str, str]:
    if not training:
        return {"training": "unknown"}
    config = training.get("config", {})
    words = [str(training["data"])] if "data" in training else []
    if "n_train" in config:
        words.append(f"{config['n_train']} + {config['n_val']} structures")
    if "epoch" in training:
        words.append(f"epoch {training['epoch']}")
    rows = {"training": ", ".join(words)}
    if config.get("init_from"):
        rows["begun from"] = f"{config['init_from']}, fingerprint {config['init_fingerprint']}"
    errors = training.get("errors", {})
    found = [
        f"{name} {value['mae']:.4g} / {value['rmse']:.4g} {unit}"
        for name, of in errors.items()
        if isinstance(of, dict)
        for unit, value in of.items()
        if isinstance(value, dict)
    ]
    if found:
        rows["test errors"] = (
            f"MAE / RMSE of {errors.get('n_test', '?')} structures: {', '.join(found)}"
        )
    return rows


def _error_bars(bars: dict[str, Any] | None) -> str:
    if bars is None:
        return "none; scschnet analysis error-bars RUN adds some"
    if bars["kind"] != "committee":
        return f"of one model, calibrated on {sum(bars['n_val']):,} validation atoms"
    factors = bars["factors"]
    return (
        f"deviations of a committee of {bars['n_members']} from its mean, times {factors['energy']:.3g} for energies and "
        f"{factors['forces']:.3g} for forces"
    )


def _unfamiliar(seen: dict[str, dict[str, int]] | None) -> str:
    if seen is None:
        return "no score of unfamiliar atoms"
    held_out = ", ".join(f"{n['n_held_out']} {symbol}" for symbol, n in seen.items())
    return f"a score per atom; above 1 it is stranger than 99 % of the held-out atoms ({held_out})"


def _weights_of(properties: list[dict[str, Any]]) -> list[str]:
    """The contribution weights of properties, a row each."""
    if not properties:
        return []
    n_layers = len(properties[0]["contribution_weights"])
    heading = f"{'w':12}" + "".join(f"{f'v{layer}':>12}" for layer in range(n_layers))
    rows = [
        f"{one['name']:12}" + "".join(f"{w:12.5g}" for w in one["contribution_weights"])
        for one in properties
    ]
    return ["", heading, *rows]


def _layers(layers: list[dict[str, Any]]) -> list[str]:
    rows = [f"{'layer':12}{'w':>12}{'mean norm':>12}{'w_hat':>12}"]
    for layer in layers:
        values = (layer["contribution_weight"], layer["mean_norm"], layer["normalized_weight"])
        columns = (f"{'–' if value is None else format(value, '.5g'):>12}" for value in values)
        rows.append(f"{layer['name']:12}{''.join(columns)}")
    return rows
