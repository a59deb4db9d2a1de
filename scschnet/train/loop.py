"""The training loop, top to bottom."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scschnet.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from scschnet.data import Batch, Split, StructureSet, collate, load_split
from scschnet.evaluate import Error, errors, in_units, predict
from scschnet.train.config import TrainConfig
from scschnet.train.loss import combined_loss
from scschnet.train.progress import Progress
from scschnet.train.run_folder import EpochMetrics, RunFolder
from scschnet.train.schedule import learning_rate
from scschnet.train.setup import build_model, choose_split, describe, read_structures
from scschnet.train.state import TrainingState

LOST_FACTOR = 10.0  # a train loss so far above the best one, for LOST_PATIENCE epochs, is named
LOST_PATIENCE = 5


class Interrupted(Exception):
    """A signal asked the training to stop; the state is saved.

    Args:
        signum: the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class TrainingFailed(Exception):
    """The training cannot go on, for a reason in its message; the last good checkpoint is intact."""


def train(config: TrainConfig, resume: Path | None = None) -> RunFolder:
    """Train a model, or go on with an interrupted training.

    An epoch: shuffle by (seed, epoch), step through the batches, validate the averaged parameters, add a
    row to the tables, save. So a run that was killed goes on from its last epoch and ends with the
    same weights, bit for bit, on the same machine with the same number of threads.

    Args:
        config: all options.
        resume: run folder to go on with, or None for a new run.

    Returns:
        The run folder, with test.json in it.

    Raises:
        Interrupted: after SIGINT or SIGTERM; the step under way was finished and saved.
        TrainingFailed: if the loss or the gradients are no longer finite.
        ValueError, OSError: for unusable options, data or folders.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    structures = read_structures(config)
    if resume is None:
        split = choose_split(config, structures)
        run = RunFolder.create(config, split)
    else:
        run = RunFolder(resume)
        split = load_split(run.split, len(structures))
    state = _start(config, structures, split, run, resuming=resume is not None)
    progress = Progress(config, len(split.train), state.epoch)
    progress.message(f"{describe(config, structures, split)}; run folder {run.path}")
    with _signals() as received:
        while state.epoch < config.epochs and not _out_of_patience(state):
            _run_epoch(state, structures, split, run, progress, received)
    progress.close()
    return _finish(state, structures, split, run)


def _start(
    config: TrainConfig, structures: StructureSet, split: Split, run: RunFolder, resuming: bool
) -> TrainingState:
    """A fresh state, or the one in the run's last.pt."""
    state = TrainingState(config, build_model(config, structures, split.train).to(config.device))
    if resuming and run.last.exists():
        checkpoint = load_checkpoint(run.last)
        if checkpoint.training is None:
            raise ValueError(f"{run.last} holds no training state to resume from")
        state.load_state_dict(checkpoint.training, checkpoint.model.state_dict())
    if resuming:
        run.forget_after(state.epoch)
    return state


def _run_epoch(
    state: TrainingState,
    structures: StructureSet,
    split: Split,
    run: RunFolder,
    progress: Progress,
    received: list[int],
) -> None:
    """Take the steps of an epoch that are left, then validate, log and save."""
    config = state.config
    started = time.perf_counter()
    if state.step == 0:
        state.begin_epoch()
    batches = _batches(config, split.train, state.epoch)
    while state.step < len(batches):
        chosen = batches[state.step]
        batch = collate(structures, chosen, config.cutoff).to(config.device)
        rate = _rate(state, state.epoch + state.step / len(batches))
        state.loss_sum += _step(state, batch, rate) * len(chosen)
        progress.step(len(chosen))
        if received:
            state.seconds += time.perf_counter() - started
            save_checkpoint(run.last, _checkpoint(state, with_training=True))
            raise Interrupted(received[0])
    validation = errors(
        predict(
            state.averaged,
            structures,
            split.val,
            forces=config.rho < 1,
            stress=config.stress_weight > 0,
        ),
        structures.select(split.val),
    )
    train_loss = state.loss_sum / len(split.train)
    val_loss = _loss_of(validation, config)
    last_rate = _rate(state, state.epoch + (len(batches) - 1) / len(batches))
    state.epoch += 1
    state.step = 0
    state.plateau.update(val_loss)
    state.seconds += time.perf_counter() - started
    metrics = _metrics(state, last_rate, train_loss, val_loss, validation)
    run.append(metrics, state.contributions.rows(state.model.contribution_weights.detach()))
    if val_loss < state.best_val_loss:
        state.best_val_loss, state.best_epoch = val_loss, state.epoch
        save_checkpoint(run.best, _checkpoint(state, with_training=False))
    _note_lost_network(state, train_loss, progress)
    save_checkpoint(run.last, _checkpoint(state, with_training=True))
    progress.epoch(metrics)


def _step(state: TrainingState, batch: Batch, rate: float) -> float:
    """One step of the optimizer; returns the loss."""
    config = state.config
    state.model.train()
    result = state.model(
        **batch.inputs,
        forces=config.rho < 1,
        stress=config.stress_weight > 0,
        correction_norms=True,
    )
    loss = combined_loss(result, batch, config.rho, config.stress_weight)
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingFailed(
            f"the loss is {value} in epoch {state.epoch + 1}, step {state.step + 1}; a smaller --lr or "
            "--clip 5 may help"
        )
    state.optimizer.zero_grad()
    loss.backward()
    if not math.isfinite(state.clip_gradients()):
        raise TrainingFailed(
            f"the gradients are not finite in epoch {state.epoch + 1}, step {state.step + 1}"
        )
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.contributions.add(state.model.contribution_weights, result["correction_norms"])
    state.optimizer.step()
    state.step += 1
    state.total_steps += 1
    state.update_average()
    return value


def _rate(state: TrainingState, epoch: float) -> float:
    config = state.config
    return learning_rate(
        config.schedule, config.lr, epoch, config.epochs, config.restart_period, state.plateau
    )


def _batches(config: TrainConfig, train: NDArray[np.int64], epoch: int) -> list[NDArray[np.int64]]:
    """The training indices of an epoch, shuffled by (seed, epoch), in batches."""
    order = np.random.default_rng([config.seed, epoch]).permutation(train)
    return [order[k : k + config.batch_size] for k in range(0, len(order), config.batch_size)]


def _loss_of(validation: dict[str, Error], config: TrainConfig) -> float:
    """The training loss, from the errors over the validation part."""
    loss = 0.0
    if config.rho > 0:
        loss += config.rho * validation["energy"].rmse ** 2
    if config.rho < 1:
        loss += (1 - config.rho) * validation["forces"].rmse ** 2
    if config.stress_weight > 0:
        loss += config.stress_weight * validation["stress"].rmse ** 2
    return loss


def _metrics(
    state: TrainingState,
    rate: float,
    train_loss: float,
    val_loss: float,
    validation: dict[str, Error],
) -> EpochMetrics:
    missing = Error(math.nan, math.nan, 0)
    energy, forces = validation.get("energy", missing), validation.get("forces", missing)
    return EpochMetrics(
        epoch=state.epoch,
        step=state.total_steps,
        learning_rate=rate,
        train_loss=train_loss,
        val_loss=val_loss,
        val_energy_mae=energy.mae,
        val_energy_rmse=energy.rmse,
        val_forces_mae=forces.mae,
        val_forces_rmse=forces.rmse,
        seconds=round(state.seconds, 3),
    )


def _note_lost_network(state: TrainingState, train_loss: float, progress: Progress) -> None:
    """Name a loss that jumped and stayed: a restart can lose the network while all numbers stay finite."""
    state.best_train_loss = min(state.best_train_loss, train_loss)
    lost = train_loss > LOST_FACTOR * state.best_train_loss
    state.lost_epochs = state.lost_epochs + 1 if lost else 0
    if state.lost_epochs == LOST_PATIENCE:
        progress.message(
            f"warning: the train loss has been more than {LOST_FACTOR:.0f} times its best value for "
            f"{LOST_PATIENCE} epochs (now {train_loss:.3g}, best {state.best_train_loss:.3g}); the network "
            "may be lost. A smaller --lr or --clip 3 helps; best.pt holds the best parameters so far."
        )


def _out_of_patience(state: TrainingState) -> bool:
    patience = state.config.patience
    return patience > 0 and state.epoch - state.best_epoch >= patience


def _checkpoint(state: TrainingState, with_training: bool) -> Checkpoint:
    metadata = {
        "epoch": state.epoch,
        "train_config": asdict(state.config),
        "best_val_loss": state.best_val_loss,
    }
    return Checkpoint(state.averaged, metadata, state.state_dict() if with_training else None)


def _finish(
    state: TrainingState, structures: StructureSet, split: Split, run: RunFolder
) -> RunFolder:
    """Evaluate the best parameters on the test part and write test.json."""
    model = load_checkpoint(run.best).model.to(state.config.device)
    content: dict[str, Any] = {"epoch": state.best_epoch, "n_test": len(split.test)}
    if len(split.test):
        config = state.config
        predictions = predict(
            model, structures, split.test, forces=config.rho < 1, stress=config.stress_weight > 0
        )
        for name, error in errors(predictions, structures.select(split.test)).items():
            content[name] = in_units(name, error)
    run.write_test(content)
    return run


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying; a second one kills as usual."""
    received: list[int] = []

    def note(signum: int, _frame: FrameType | None) -> None:
        received.append(signum)
        signal.signal(signum, previous[signum])

    previous: dict[int, Any] = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
