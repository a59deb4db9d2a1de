"""What each property's error becomes when it does not see a layer: do large weights mean important layers?

python benchmarks/properties/left_out.py FOLDER/2000-all-1 [more runs of all properties]

A layer is left out of x_p^out, not of the message passing: its v_i^(l) is replaced by its mean over the atoms of the
same element, so that what is taken away is what it says of the surroundings. Writes results/left_out.csv.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from scschnet.analysis.properties import property_contributions
from scschnet.data import StructureSet, collate
from scschnet.evaluate.corrections import corrections
from scschnet.nn import SchNet
from scschnet.runs.run import read_run

HERE = Path(__file__).parent
MOLECULES = 500


def errors_without(model: SchNet, structures: StructureSet) -> np.ndarray:
    """MAE of every property with all layers, and without each, (n_properties, 1 + n_layers)."""
    batch = collate(structures, np.arange(len(structures)), model.config.cutoff)
    layers = corrections(model, batch).layers
    z, idx_m, n = batch.atomic_numbers, batch.idx_m, len(structures)
    cases = [layers]
    for left_out in range(len(layers)):
        replaced = list(layers)
        replaced[left_out] = mean_of_elements(layers[left_out], z)
        cases.append(replaced)
    found = []
    for k, (given, (_, head)) in enumerate(
        zip(model.config.heads, model.named_heads(), strict=True)
    ):
        label = structures.properties[given]
        row = []
        for case in cases:
            x_out = torch.tensordot(model.head_weights[k], torch.stack(case), dims=1)
            values = head.atom_values(x_out, z)
            predicted = head.pool(values, batch.positions, z, idx_m, n).numpy()
            row.append(np.abs(predicted - label).mean())
        found.append(row)
    return np.array(found)


def mean_of_elements(layer: Tensor, atomic_numbers: Tensor) -> Tensor:
    """Every row replaced by the mean over the atoms of its element."""
    result = torch.empty_like(layer)
    for z in atomic_numbers.unique():
        result[atomic_numbers == z] = layer[atomic_numbers == z].mean(dim=0)
    return result


def main(paths: list[str]) -> None:
    """Measure the runs, write and print."""
    rows, means = [], []
    for number, path in enumerate(paths):
        run, shares = read_run(path), property_contributions([path]).shares
        found = errors_without(run.model, run.held_out.select(np.arange(MOLECULES)))
        rise = found[:, 1:] / found[:, :1]
        means.append(rise)
        for k, given in enumerate(run.model.config.heads):
            rank = float(spearmanr(shares[k, 1:], rise[k, 1:]).statistic)
            rows += [
                (
                    number,
                    given.name,
                    layer,
                    f"{value:.4g}",
                    f"{shares[k, layer]:.4g}",
                    f"{rank:.3g}",
                )
                for layer, value in enumerate(rise[k])
            ]
    (HERE / "results").mkdir(exist_ok=True)
    with (HERE / "results" / "left_out.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ("run", "property", "layer", "mae_over_full", "share", "rank_correlation_of_blocks")
        )
        writer.writerows(rows)
    mean = np.mean(means, axis=0)
    layers = [f"v{layer}" for layer in range(mean.shape[1])]
    print("| property | " + " | ".join(layers) + " | rank correlation |")
    print("|---" * (len(layers) + 2) + "|")
    for k, given in enumerate(run.model.config.heads):
        ranks = sorted({(row[0], float(row[5])) for row in rows if row[1] == given.name})
        words = " ".join(f"{rank:.2f}" for _, rank in ranks)
        print(f"| {given.name} | {' | '.join(f'{value:.1f}' for value in mean[k])} | {words} |")


if __name__ == "__main__":
    with torch.no_grad():
        main(sys.argv[1:])
