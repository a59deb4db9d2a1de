"""What a training shows while it runs: a progress bar in a terminal, plain lines in a pipe; on stderr."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from scschnet.quantities import MISSING, shown_errors
from scschnet.runs.config import TrainConfig
from scschnet.runs.folder import EpochMetrics

LINES_PER_RUN = 50  # at most about so many lines in a pipe
QUICK = 2.0  # seconds without a bar of the test errors, which take no longer for a small test part


class Progress:
    """Rates, time left and current validation errors.

    Args:
        config: options of the run.
        n_train: structures per epoch.
        epochs_done: epochs finished before (a resumed run).
        silent: show nothing (all processes but the first).
        per_atom: show energies per atom, in meV, as for structures of several sizes or periodic ones.
        title: stands before every line, such as the member of a committee; empty: nothing.
    """

    def __init__(
        self,
        config: TrainConfig,
        n_train: int,
        epochs_done: int = 0,
        silent: bool = False,
        per_atom: bool = False,
        title: str = "",
    ) -> None:
        self.title = f"{title}: " if title else ""
        self.config = config
        self.n_train = n_train
        self.started = time.perf_counter()
        self.structures_done = 0
        self.every = config.log_every or max(1, config.epochs // LINES_PER_RUN)
        self.silent = silent
        self.per_atom = per_atom
        self.bar: tqdm | None = None
        if sys.stderr.isatty() and not silent:
            self.bar = tqdm(
                total=config.epochs * n_train,
                initial=epochs_done * n_train,
                unit=" structures",
                dynamic_ncols=True,
                smoothing=0.05,
                desc=title or None,
                bar_format="{desc}{percentage:3.0f}% |{bar}| {elapsed} < {remaining}, {rate_fmt} {postfix}",
            )

    def step(self, n_structures: int) -> None:
        """A step with so many structures is done."""
        self.structures_done += n_structures
        if self.bar is not None:
            self.bar.update(n_structures)

    def epoch(self, metrics: EpochMetrics) -> None:
        """An epoch is done."""
        errors = self._errors(metrics)
        if self.bar is not None:
            self.bar.set_postfix_str(f"epoch {metrics.epoch}/{self.config.epochs}, {errors}")
        elif metrics.epoch % self.every == 0 or metrics.epoch in (1, self.config.epochs):
            rate = self.structures_done / (time.perf_counter() - self.started)
            left = (self.config.epochs - metrics.epoch) * self.n_train
            self.message(
                f"epoch {metrics.epoch}/{self.config.epochs}  {errors}  loss {metrics.train_loss:.3g}  "
                f"lr {metrics.learning_rate:.2g}"
                + (f"  {rate:.0f} structures/s  {left / rate:.0f} s left" if rate > 0 else "")
            )

    def message(self, text: str) -> None:
        """A line that stays."""
        text = self.title + text
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        elif not self.silent:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.close()

    @contextmanager
    def testing(self, n_structures: int) -> Iterator[Callable[[int], object]]:
        """A bar of its own while the test errors are computed, in a terminal, if that takes long.

        Args:
            n_structures: of the test part.

        Yields:
            What is to be called with the number of structures just done.
        """
        with tqdm(
            total=n_structures,
            desc="test errors",
            unit=" structures",
            dynamic_ncols=True,
            delay=QUICK,
            leave=False,
            disable=self.silent or not sys.stderr.isatty(),
        ) as bar:
            yield bar.update

    def _errors(self, metrics: EpochMetrics) -> str:
        parts = []
        for name, shown in shown_errors(self.per_atom, self.config.heads).items():
            mae = metrics.validation.get(shown.error, MISSING).mae
            if not math.isnan(mae):
                parts.append(f"{name} {mae * shown.factor:.3f} {shown.unit}")
        return "val MAE " + ", ".join(parts)
