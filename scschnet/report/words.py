"""A run in sentences: what a reader should take home, and what should worry them."""

import numpy as np

from scschnet.analysis.contributions import summarize
from scschnet.analysis.importance import disagreements, rank_correlation
from scschnet.analysis.reach import radii
from scschnet.analysis.smoothness import PairScan
from scschnet.elements import symbol
from scschnet.report.material import Material, Trained


def headline(m: Trained) -> str:
    """What was trained on what, in one line."""
    model, run = m.runs[0].model.config, m.runs[0]
    kind = "sc-SchNet" if model.skip == "weighted" else "SchNet"
    many = f"{len(m.runs)} runs of " if len(m.runs) > 1 else ""
    return (
        f"{many}{kind} with {_count(model.n_interactions, 'block')} of {model.n_features} features, "
        f"cutoff {model.cutoff:g} Å, trained on {_count(len(run.split.train), 'structure')} of {run.config.source}"
    )


def findings(m: Material) -> list[str]:
    """Sentences about the errors and about the inside of the model."""
    sentences = [_errors(m), _weights(m), *_importance(m)]
    if m.reach is not None and np.isfinite(radii(m.reach)[0]).all():
        half, most, all_ = radii(m.reach)[0]
        sentences.append(
            f"Half of an atom's sensitivity to others lies within {half:.1f} Å, 90 % within {most:.1f} Å and "
            f"99 % within {all_:.1f} Å; the network could reach {m.reach.nominal:.0f} Å."
        )
    if m.scores:
        share = {name: 100 * float((u > 1).mean()) for name, u in m.scores.items()}
        sentences.append(
            f"Unfamiliarity is above 1 for {share['held out']:.1f} % of held-out atoms and, with every "
            f"coordinate moved by 0.2 Å, for {share['± 0.2 Å']:.0f} %."
        )
    if m.scans and not _roughness(m):
        sentences.append(
            f"Along {_count(len(m.scans), 'bond or contact', 'bonds and contacts')} of held-out structures, pressed "
            "and stretched through the range of dynamics and beyond, the energy only rises from its minimum, and the "
            "force does not jump."
        )
    return [sentence for sentence in sentences if sentence]


def warnings(m: Material, shared: int) -> list[str]:
    """What a user should look at before running dynamics.

    Args:
        m: all there is to say.
        shared: test structures that are in the training part, too.
    """
    found = []
    soft = [one for one in m.ranges if not one.repels]
    if len(soft) > 3:
        names = ", ".join("-".join(symbol(z) for z in one.elements) for one in soft)
        found.append(
            f"{len(soft)} of {len(m.ranges)} pairs of elements are not repelled all the way when pressed below the "
            f"shortest distance trained on: {names}. Distances are under Filters and short range."
        )
    for one in soft:
        if len(soft) <= 3:
            pair = "-".join(symbol(z) for z in one.elements)
            falls = (
                "the energy does not rise"
                if one.repels_to == one.shortest
                else f"the energy falls again below {one.repels_to:.2f} Å"
            )
            found.append(
                f"{pair} is not repelled all the way: pressed below {one.shortest:.2f} Å, the shortest "
                f"distance trained on, {falls}."
            )
    found.extend(_roughness(m))
    if shared:
        found.append(
            f"{_count(shared, 'test structure')} of those checked are in the training part, too: test errors flatter."
        )
    losses = m.metrics[0]["val_loss"]
    if len(losses) >= 20 and losses[-len(losses) // 10 :].min() < 0.97 * losses.min(
        initial=np.inf, where=np.arange(len(losses)) < 0.9 * len(losses)
    ):
        found.append(
            "The validation loss was still falling in the last tenth of the epochs: more would help."
        )
    if not m.tests[0]:
        found.append("There is no test.json: the training has not ended, errors are those of now.")
    return found


def _roughness(m: Material) -> list[str]:
    """What is wrong along stretched and pressed bonds and contacts, in at most two sentences."""
    sentences = []
    dented = [one for one in m.scans if len(one.extrema)]
    if dented:
        sentences.append(
            f"Along {len(dented)} of {_count(len(m.scans), 'bond or contact', 'bonds and contacts')} of held-out "
            f"structures the energy does not only rise from its minimum when they are pressed and stretched, but has a "
            f"maximum: {_places(dented, [float(one.extrema[0]) for one in dented])}."
        )
    stepped = [one for one in m.scans if one.jumps]
    if stepped:
        sentences.append(
            f"Along {len(stepped)} of {_count(len(m.scans), 'bond or contact', 'bonds and contacts')} the force jumps: "
            f"{_places(stepped, [one.jumps[0] for one in stepped])}."
        )
    return sentences


def _places(scans: list[PairScan], distances: list[float]) -> str:
    """Every two elements once, with the first distance at which something is wrong."""
    found: dict[str, float] = {}
    for one, distance in zip(scans, distances, strict=True):
        pair = "-".join(symbol(z) for z in one.elements)
        found.setdefault(f"{pair} {'bond' if one.bonded else 'contact'}", distance)
    shown = [f"{name} at {distance:.2f} Å" for name, distance in found.items()]
    return ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")


def _errors(m: Material) -> str:
    """Test errors, with their spread over runs."""
    parts = []
    for name, shown in m.shown.items():
        errors = [test[shown.error] for test in m.tests if shown.error in test]
        values = [shown.factor * error[shown.stored_unit]["mae"] for error in errors]
        if len(values) == len(m.tests):
            spread = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
            parts.append(f"{name} {np.mean(values):.3g}{spread} {shown.unit}")
    if not parts:
        return ""
    n = m.tests[0]["n_test"]
    over = f", mean and standard deviation over {len(m.runs)} runs" if len(m.runs) > 1 else ""
    return f"Mean absolute test error: {', '.join(parts)}, on {_count(n, 'structure')}{over}."


def _weights(m: Material) -> str:
    summary = summarize(m.contributions)
    last = np.abs(summary.mean[-1])
    order = np.argsort(-last)
    share = 100 * last / last.sum()
    what = (
        "mean norm (SchNet has no weights)" if summary.plain else "normalized contribution weight"
    )
    return (
        f"Of the {what}, v{order[0]} holds most, {share[order[0]]:.0f} %, and v{order[-1]} least, "
        f"{share[order[-1]]:.0f} %; v0 is the embedding."
    )


def _importance(m: Material) -> list[str]:
    sentences = []
    for k, one in enumerate(m.importance[0]):
        values = np.mean([found[k].shapley for found in m.importance], axis=0)
        best = int(values.argmax())
        weights = np.abs(m.weights).mean(axis=0)
        heaviest = int(weights.argmax())
        order = "and has" if heaviest == best else f"while v{heaviest} has"
        rank = rank_correlation(weights, values)
        sentences.append(
            f"For the {one.quantity} error v{best} matters most (Shapley value {values[best]:.3g} {one.unit}), "
            f"{order} the largest weight; the rank correlation of weights and Shapley values is {rank:.2f}."
        )
        pairs = disagreements(m.weights[0], m.importance[0][k])
        if pairs:
            heavy, important = pairs[0]
            sentences.append(
                f"They disagree most clearly about v{heavy}, which outweighs v{important} but brings the "
                f"{one.quantity} error down less."
            )
    return sentences


def _count(n: int, noun: str, plural: str = "") -> str:
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"
