"""The training loop, top to bottom."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scschnet.checkpoint import SHORTEST, Checkpoint, load, load_checkpoint, save_checkpoint
from scschnet.data import Split, StructureSet, collate, load_split
from scschnet.data.fingerprint import fingerprint
from scschnet.device import check_device
from scschnet.evaluate import Error, Predictions, errors, errors_by_file, in_units, predict
from scschnet.kinds import expect_data_of_run
from scschnet.nn import SchNet
from scschnet.runs.config import TrainConfig
from scschnet.runs.folder import EpochMetrics, RunFolder, check_fingerprint, check_options
from scschnet.train.captured import resident_step
from scschnet.train.further import compare, digest_of, further_model, provenance, read_before
from scschnet.train.loss import Loss, labels_of
from scschnet.train.processes import Processes
from scschnet.train.progress import Progress
from scschnet.train.schedule import learning_rate
from scschnet.train.setup import (
    build_model,
    choose_split,
    describe,
    nearest_pairs,
    read_structures,
    resolve,
    threads_for,
)
from scschnet.train.state import TrainingState
from scschnet.train.trackers import check_trackers, numbers, open_trackers

LOST_FACTOR = 10.0  # a train loss so far above the best one, for LOST_PATIENCE epochs, is named
LOST_PATIENCE = 5
# How often several processes ask each other whether one of them received a signal.
STEPS_BETWEEN_SIGNAL_CHECKS = 32


@dataclass(frozen=True)
class Member:
    """What a member of a committee shares with the others, and which one it is.

    Args:
        structures: the data.
        split: of all members.
        title: for messages, such as "member 2 of 4".
    """

    structures: StructureSet
    split: Split
    title: str


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
    """Train a model, or go on with an interrupted training; under torchrun with all its processes.

    An epoch: shuffle by (seed, epoch), step through the batches, validate the averaged parameters, add a
    row to the tables, save. So a run that was killed goes on from its last epoch and ends with the
    same weights, bit for bit, on the same machine with the same number of threads and processes.

    Args:
        config: all options; the batch size is that of all processes together.
        resume: run folder to go on with, or None for a new run.

    Returns:
        The run folder, with test.json in it.

    Raises:
        Interrupted: after SIGINT or SIGTERM; the step under way was finished and saved.
        TrainingFailed: if the loss or the gradients are no longer finite, or filters too steep for their tables.
        ValueError, OSError: for unusable options, data or folders.
    """
    processes = start_processes(config)
    run = train_in(processes, config, resume)
    processes.close()
    return run


def start_processes(config: TrainConfig) -> Processes:
    """The processes of a training.

    Raises:
        ValueError: if there is no such device.
    """
    check_device(config.device)
    return Processes(config.device)


def train_in(
    processes: Processes,
    config: TrainConfig,
    resume: Path | None,
    member: Member | None = None,
) -> RunFolder:
    """`train` in processes that are there already.

    Args:
        processes: this process and its group.
        config: all options.
        resume: run folder to go on with, or None for a new run.
        member: what it shares with the other members of a committee; None: it is no member.
    """
    with _alone(resume, processes) as hold:
        training = Training(config, processes, resume, member)
        if resume is None and processes.is_first:
            hold(training.run)
            training.keep_start()
        if resume is not None and training.is_done():
            training.progress.message(
                f"{resume} is finished: {training.state.epoch} of {config.epochs} epochs; more --epochs go on"
            )
        with _signals() as received:
            while not training.is_done():
                training.run_epoch(received)
        training.finish()
    return training.run


class Training:
    """A training under way: its data, its state, its folder.

    Args:
        config: all options.
        processes: this process and its group.
        resume: run folder to go on with, or None for a new run.
        member: what it shares with the other members of a committee; None: it is no member.
    """

    def __init__(
        self,
        config: TrainConfig,
        processes: Processes,
        resume: Path | None,
        member: Member | None = None,
    ) -> None:
        if resume is not None:
            expect_data_of_run(resume, config.data)
        check_trackers(config)
        self.structures = member.structures if member else read_structures(config)
        given, config = config, resolve(config, self.structures)
        if config.init_from and not config.init_fingerprint:
            config = replace(config, init_fingerprint=digest_of(config.init_from))
        threads = config.threads or threads_for(config, self.structures)
        if threads:
            torch.set_num_threads(threads)
        self.config = config
        self.processes = processes
        before = None
        if config.init_from and (resume is None or not RunFolder(resume).last.exists()):
            before = read_before(config)
        if resume is None:
            known = () if before is None else before.model.config.elements
            self.split = member.split if member else choose_split(config, self.structures, known)
        else:
            self.run = RunFolder(resume)
            self.split = load_split(self.run.split, len(self.structures))
        told, model = self._start(before)
        self.loss = self._make_loss(model)
        if resume is None:
            self.run = RunFolder.create(config, self.split) if processes.is_first else RunFolder()
        self.shortest = (
            nearest_pairs(self.structures.select(self.split.train)) if processes.is_first else {}
        )
        if before is not None:
            known = before.metadata.get(SHORTEST, {})
            self.shortest |= {pair: min(d, self.shortest.get(pair, d)) for pair, d in known.items()}
        self.fingerprint = fingerprint(self.structures, self.split)
        self.state = TrainingState(config, model.to(processes.device))
        if resume is not None:
            self._restore()
        self.trackers = (
            open_trackers(config, self.run.path, self.state.epoch) if processes.is_first else []
        )
        self.table_error = 0.0  # of the filter tables of the averaged model, see refine_filters
        self.progress = Progress(
            config,
            len(self.split.train),
            self.state.epoch,
            silent=not processes.is_first,
            per_atom=self.structures.is_extensive,
            title=member.title if member else "",
        )
        found = describe(config, self.structures, self.split, model.config.elements)
        self.progress.message("\n".join([f"{found}; run folder {self.run.path}", *told]))
        if given.n_train >= 1 and config.n_train != given.n_train:
            self.progress.message(
                f"note: {given.n_train} to train on and {given.n_val} for validation leave nothing to test of "
                f"{len(self.structures)} structures, which are divided 8:1:1 instead"
            )
        self.resident = resident_step(
            config,
            self.state,
            self.structures,
            self.split,
            self.loss,
            processes,
            self.progress.message,
        )

    def _start(self, before: Checkpoint | None) -> tuple[list[str], SchNet]:
        """The model before the first step, and what is to be said of it; in a resumed run its weights are replaced."""
        config, train = self.config, self.split.train
        if not config.init_from:
            return [], build_model(config, self.structures, train)
        if before is None:
            model = load_checkpoint(self.run.last).model
            model.filters = config.filters
            return [], model
        model = further_model(config, before.model, self.structures, train)
        lines = compare(config, model, self.structures.select(train))
        return lines + provenance(before, config), model

    def keep_start(self) -> None:
        """Save the state before the first step, so that a run that began from a model goes on without that."""
        if self.config.init_from:
            self._save(self.run.last, with_training=True)

    def _make_loss(self, model: SchNet) -> Loss:
        spreads = {name: float(head.spread) for name, head in model.named_heads()}
        loss = Loss(self.config, self.structures.select(self.split.train), spreads)
        loss.check_validation(self.structures.select(self.split.val))
        return loss

    def is_done(self) -> bool:
        """Whether all epochs are run, or `patience` is out."""
        config, state = self.config, self.state
        out_of_patience = config.patience and state.epoch - state.best_epoch >= config.patience
        return state.epoch >= config.epochs or bool(out_of_patience)

    def run_epoch(self, received: list[int]) -> None:
        """Take the steps of an epoch that are left, then validate, log and save.

        Args:
            received: signals that came; looked at after every step.
        """
        state, started = self.state, time.perf_counter()
        if state.step == 0:
            state.begin_epoch()
        batches = self._batches()
        rates = [self._rate(state.epoch + k / len(batches)) for k in range(len(batches))]
        if self.resident is not None:
            self.resident.begin_epoch(batches, rates)
        while state.step < len(batches):
            chosen = batches[state.step]
            if self.resident is None:
                signum = self._step(chosen, rates[state.step], received)
            else:
                self.resident.run()
                signum = self._common_signal(received)
            self.progress.step(len(chosen))
            if signum:
                self._read_back()
                state.seconds += time.perf_counter() - started
                self._save(self.run.last, with_training=True)
                raise Interrupted(signum)
        self._read_back()
        if self.resident is not None and state.epoch == 0:
            self.progress.message(self.resident.describe())
        validation = self._validate()
        state.epoch += 1
        state.step = 0
        state.seconds += time.perf_counter() - started
        self._end_epoch(validation, rates[-1])

    def finish(self) -> None:
        """Evaluate the best parameters on the test part and write test.json, unless it is there."""
        self.progress.close()
        if self.processes.is_first:
            self._test()
            for tracker in self.trackers:
                tracker.close()

    def _test(self) -> None:
        test = self.split.test
        known = self.run.read_test()
        if known.get("epoch") == self.state.best_epoch and known.get("n_test") == len(test):
            return  # a run that had been finished before
        content: dict[str, Any] = {"epoch": self.state.best_epoch, "n_test": len(test)}
        if len(test):
            model = load(self.run.best).to(self.processes.device)
            with self.progress.testing(len(test)) as done:
                predictions = self._predict(model, test, done)
            labels = self.structures.select(test)
            content |= self._in_units(errors(predictions, labels))
            if labels.file_index is not None:
                content["files"] = [
                    {"file": self.config.data[k], **self._in_units(found)}
                    for k, found in errors_by_file(predictions, labels).items()
                ]
        self.run.write_test(content)

    def _in_units(self, found: dict[str, Error]) -> dict[str, Any]:
        """Errors as test.json has them."""
        return {
            name: in_units(name, error, self.config.heads)
            for name, error in found.items()
            if name != "energy_per_atom" or self.structures.is_extensive
        }

    def _restore(self) -> None:
        if self.run.last.exists():
            checkpoint = load_checkpoint(self.run.last)
            if checkpoint.training is None:
                raise ValueError(f"{self.run.last} holds no training state to resume from")
            check_options(self.run.path, checkpoint.metadata, self.config)
            check_fingerprint(self.run.path, checkpoint.metadata, self.fingerprint)
            self.shortest = checkpoint.metadata.get(SHORTEST, self.shortest)
            self.state.load_state_dict(checkpoint.training, checkpoint.model.state_dict())
        self.processes.wait()
        if self.processes.is_first:
            self.run.forget_after(self.state.epoch)

    def _batches(self) -> list[NDArray[np.int64]]:
        """The training indices of the epoch, shuffled by (seed, epoch), in batches."""
        size = self.config.batch_size
        rng = np.random.default_rng([self.config.seed, self.state.epoch])
        order = rng.permutation(self.split.train)
        return [order[k : k + size] for k in range(0, len(order), size)]

    def _step(self, chosen: NDArray[np.int64], rate: float, received: list[int]) -> int:
        """One step of the optimizer; returns the signal that came, or 0."""
        config, state, model = self.config, self.state, self.state.model
        n_atoms = int(self.structures.n_atoms[chosen].sum())
        share = self.processes.share(chosen)
        batch = collate(self.structures, share, config.cutoff).to(self.processes.device)
        result = model(**batch.inputs, **self.loss.derivatives, correction_norms=True)
        loss = self.loss(result, labels_of(batch), len(chosen), n_atoms)
        state.differentiate(loss)
        norms = result["correction_norms"].double().sum(dim=1) / n_atoms
        loss, signum = loss.detach(), loss.new_tensor(float(received[0] if received else 0))
        self.processes.sum_([state.gradient, loss, norms, signum])
        self._check(state.step, loss.item(), state.clip_gradient())
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.contributions.add(state.contribution_weights, norms)
        state.loss_sum += loss.item() * len(chosen)
        state.optimizer.step()
        state.step += 1
        state.total_steps += 1
        state.update_average()
        return received[0] if received else int(signum.item() > 0) * signal.SIGTERM

    def _common_signal(self, received: list[int]) -> int:
        """The signal that came, or 0; several processes stop after the same step, but ask rarely."""
        if self.processes.size == 1:
            return received[0] if received else 0
        if self.state.total_steps % STEPS_BETWEEN_SIGNAL_CHECKS:
            return 0
        signum = torch.tensor([float(bool(received))], device=self.processes.device)
        self.processes.all_reduce_(signum)
        return int(signum.item() > 0) * signal.SIGTERM

    def _read_back(self) -> None:
        """Learn what the steps on resident data did."""
        failure = self.resident.read_back() if self.resident is not None else None
        if failure is not None:
            self._check(*failure)

    def _check(self, step: int, loss: float, gradient_norm: float) -> None:
        where = f"in epoch {self.state.epoch + 1}, step {step + 1}"
        if not math.isfinite(loss):
            raise TrainingFailed(f"the loss is {loss} {where}; a smaller --lr or --clip 5 may help")
        if not math.isfinite(gradient_norm):
            raise TrainingFailed(f"the gradients are not finite {where}; a smaller --lr may help")

    def _validate(self) -> dict[str, Error]:
        share = self.processes.share(self.split.val)
        try:
            self.table_error = self.state.averaged.refine_filters()
        except ValueError as error:  # no grid is fine enough
            raise TrainingFailed(
                f"the filters became too steep in epoch {self.state.epoch + 1}: {error}; if the loss has jumped, the network "
                "is lost, and a smaller --lr or --clip 3 helps"
            ) from error
        self.state.model.filter_step = self.state.averaged.filter_step
        if self.resident is None:
            predictions = self._predict(self.state.averaged, share)
        else:
            predictions = self.resident.predict(self.state.averaged)
        part = self.structures.select(share)
        return self.processes.merge(errors(predictions, part) | self.loss.errors(predictions, part))

    def _predict(
        self,
        model: SchNet,
        indices: NDArray[np.int64],
        progress: Callable[[int], object] | None = None,
    ) -> Predictions:
        return predict(model, self.structures, indices, **self.loss.derivatives, progress=progress)

    def _end_epoch(self, validation: dict[str, Error], rate: float) -> None:
        """Write an epoch's results to the tables, and save."""
        state = self.state
        train_loss = state.loss_sum / len(self.split.train)
        val_loss = self.loss.of(validation)
        state.plateau.update(val_loss)
        is_best = val_loss < state.best_val_loss
        if is_best:
            state.best_val_loss, state.best_epoch = val_loss, state.epoch
        metrics = EpochMetrics(
            epoch=state.epoch,
            step=state.total_steps,
            learning_rate=rate,
            train_loss=train_loss,
            val_loss=val_loss,
            seconds=round(state.seconds, 3),
            validation=validation,
        )
        self._warn_of_lost_network(train_loss)
        if self.processes.is_first:
            layers = state.contributions.rows(state.contribution_weights)
            self.run.append(metrics, layers)
            for tracker in self.trackers:
                tracker.log(metrics.epoch, numbers(metrics, layers))
        if is_best:
            self._save(self.run.best, with_training=False)
        self._save(self.run.last, with_training=True)
        self.progress.epoch(metrics)

    def _warn_of_lost_network(self, train_loss: float) -> None:
        """Warn of a loss that jumped and stayed: a restart can lose the network with all numbers finite."""
        state = self.state
        state.best_train_loss = min(state.best_train_loss, train_loss)
        lost = train_loss > LOST_FACTOR * state.best_train_loss
        state.lost_epochs = state.lost_epochs + 1 if lost else 0
        if state.lost_epochs == LOST_PATIENCE:
            self.progress.message(
                f"warning: the train loss has been more than {LOST_FACTOR:.0f} times its best value for "
                f"{LOST_PATIENCE} epochs (now {train_loss:.3g}, best {state.best_train_loss:.3g}); the "
                "network may be lost. A smaller --lr or --clip 3 helps; best.pt holds the best parameters."
            )

    def _rate(self, epoch: float) -> float:
        config = self.config
        return learning_rate(
            config.schedule,
            config.lr,
            epoch,
            config.epochs,
            config.restart_period,
            self.state.plateau,
        )

    def _save(self, path: Path, with_training: bool) -> None:
        if not self.processes.is_first:
            return
        state = self.state
        metadata = {
            "epoch": state.epoch,
            "filter_table_error": self.table_error,
            "train_config": asdict(self.config),
            "best_val_loss": state.best_val_loss,
            "fingerprint": self.fingerprint,
            SHORTEST: self.shortest,
        }
        training = state.state_dict() if with_training else None
        save_checkpoint(path, Checkpoint(state.averaged, metadata, training))


@contextmanager
def _alone(resume: Path | None, processes: Processes) -> Iterator[Callable[[RunFolder], None]]:
    """Keeps other trainings out of a folder: that of a resumed run at once, another one when it is given."""
    with ExitStack() as held:

        def hold(run: RunFolder) -> None:
            run.hold()
            held.callback(run.release)

        if resume is not None and processes.is_first:
            hold(RunFolder(resume))
        yield hold


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying; a second one kills as usual."""
    received: list[int] = []

    def receive(signum: int, _frame: FrameType | None) -> None:
        received.append(signum)
        signal.signal(signum, previous[signum])

    previous: dict[int, Any] = {
        s: signal.signal(s, receive) for s in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
