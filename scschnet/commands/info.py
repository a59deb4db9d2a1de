"""`python -m scschnet.info`: everything a user needs to know about an exported model, a checkpoint or a run."""

import argparse
import sys
from pathlib import Path
from typing import Any

from scschnet.export.exported import read_metadata
from scschnet.export.metadata import describe, read_source
from scschnet.files import write_any_text
from scschnet.kinds import Kind, expect

MODELS = (Kind.RUN, Kind.CHECKPOINT)


def main(arguments: list[str] | None = None) -> int:
    """Print what a file is; returns the exit status, 0 done or 1 failed.

    Args:
        arguments: without the program's name; None: those of the process.
    """
    write_any_text()
    parser = argparse.ArgumentParser(prog="python -m scschnet.info", description=__doc__)
    parser.add_argument("file", type=Path, help="exported model, checkpoint or run folder")
    file = parser.parse_args(arguments).file
    try:
        found = read(file)
    except (OSError, ValueError) as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
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
    if expect(file, Kind.RUN, Kind.CHECKPOINT, Kind.EXPORTED, Kind.OTHER) in MODELS:
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
        **_file(found),
        **_training(found["training"]),
        "unfamiliar": _unfamiliar(found.get("unfamiliarity")),
        "error bars": _error_bars(bool(found.get("error_bars"))),
        "versions": ", ".join(f"{name} {value}" for name, value in found["versions"].items()),
    }
    return [
        f"{title}: {skip}, {_what(found)}",
        *(f"{name:12}{value}" for name, value in rows.items()),
        "",
        *_layers(found["layers"]),
    ]


def _repulsion(found: dict[str, Any]) -> dict[str, str]:
    name = found.get("repulsion", "none")
    return {} if name == "none" else {"repulsion": f"pair term {name}"}


def _what(found: dict[str, Any]) -> str:
    if "format" not in found:
        return "a checkpoint, for Python and python -m scschnet.export"
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


def _unfamiliar(seen: dict[str, dict[str, int]] | None) -> str:
    if seen is None:
        return "no score of unfamiliar atoms"
    held_out = ", ".join(f"{n['n_held_out']} {symbol}" for symbol, n in seen.items())
    return f"a score per atom; above 1 it is stranger than 99 % of the held-out atoms ({held_out})"


def _error_bars(has: bool) -> str:
    return "of the energy and of the force on every atom" if has else "none"


def _layers(layers: list[dict[str, Any]]) -> list[str]:
    rows = [f"{'layer':12}{'w':>12}{'mean norm':>12}{'w_hat':>12}"]
    for layer in layers:
        values = (layer["contribution_weight"], layer["mean_norm"], layer["normalized_weight"])
        columns = (f"{'–' if value is None else format(value, '.5g'):>12}" for value in values)
        rows.append(f"{layer['name']:12}{''.join(columns)}")
    return rows
