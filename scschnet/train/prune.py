"""Fewer blocks: trailing ones dropped, the rest trained a little more.

A pruned model is an ordinary one with fewer blocks: its energies reach K times the cutoff instead of L times,
and its evaluation takes about K / L of the time. What the dropped blocks added to the readout's hidden layer
on average over the training atoms goes into its bias, so that training starts near the old energies. The
procedure is ours, not the paper's.
"""

import os
from dataclasses import asdict, replace
from pathlib import Path

import torch

from scschnet.checkpoint import Checkpoint, checkpoint_path, load_checkpoint, save_checkpoint
from scschnet.data import StructureSet, evenly
from scschnet.evaluate.corrections import batches, corrections, projected
from scschnet.nn import SchNet
from scschnet.runs.folder import RunFolder
from scschnet.runs.run import Run
from scschnet.train.loop import train
from scschnet.train.state import TrainingState

LEARNING_RATE = 0.25  # of the run's own: the network is trained already


def without_trailing_blocks(model: SchNet, blocks: int, structures: StructureSet) -> SchNet:
    """The first blocks of a model, as a model of its own in the same dtype, asking for gradients.

    Args:
        model: with more than `blocks` blocks.
        blocks: how many to keep, at least one.
        structures: training structures, for the mean of what goes.

    Raises:
        ValueError: if `blocks` does not lie between 1 and the model's number less one, or the model
            does not know an element.
    """
    n = model.config.n_interactions
    if not 1 <= blocks < n:
        raise ValueError(
            f"`blocks` must lie between 1 and {n - 1}, fewer than the model's {n}, got {blocks}"
        )
    total = torch.zeros(model.readout.hidden.bias.shape, dtype=torch.float64)
    for batch in batches(model, structures):
        with torch.no_grad():
            added = projected(model, corrections(model, batch).layers)
        total += added[blocks + 1 :].double().sum(dim=(0, 1))
    state = {
        name: value.clone()
        for name, value in model.state_dict().items()
        if not name.startswith(tuple(f"interactions.{k}." for k in range(blocks, n)))
    }
    state["contribution_weights"] = state["contribution_weights"][: blocks + 1]
    if "head_weights" in state:
        state["head_weights"] = state["head_weights"][:, : blocks + 1]
    state["readout.hidden.bias"] += (total / max(len(structures.positions), 1)).to(
        state["readout.hidden.bias"].dtype
    )
    smaller = SchNet(replace(model.config, n_interactions=blocks), filters=model.filters)
    smaller.to(state["embedding.weight"].dtype).load_state_dict(state)
    return smaller


def prune(run: Run, blocks: int, epochs: int, out: str | os.PathLike[str]) -> Path:
    """Drop trailing blocks of a run's model and train the rest with the run's own data and split.

    The options are the run's, but for a quarter of its learning rate, annealed once to zero.

    Args:
        run: the run.
        blocks: how many to keep.
        epochs: of training.
        out: run folder to create.

    Returns:
        The new run folder.

    Raises:
        ValueError: if `blocks` or `epochs` is out of range.
        FileExistsError: if `out` holds a run already.
    """
    original = load_checkpoint(checkpoint_path(run.path)).model.requires_grad_(False)
    model = without_trailing_blocks(original, blocks, evenly(run.part("train"), 10_000))
    new = replace(
        run.config,
        n_interactions=blocks,
        epochs=epochs,
        lr=LEARNING_RATE * run.config.lr,
        schedule="cosine",
        patience=0,
        out=os.fspath(out),
    )
    folder = RunFolder.create(new, run.split)
    state = TrainingState(new, model)
    metadata = {"pruned_from": str(run.path), "train_config": asdict(new)}
    save_checkpoint(folder.last, Checkpoint(state.averaged, metadata, state.state_dict()))
    return train(new, resume=folder.path).path
