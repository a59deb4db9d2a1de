"""Learning rates: functions of the time in epochs, and the plateau rule that needs the validation loss."""

import math
from dataclasses import asdict, dataclass
from typing import Any


def cosine_rate(lr: float, epoch: float, period: float) -> float:
    """Cosine annealing, restarted after every `period` (SGDR with T_mult = 1).

    lr(t) = lr (1 + cos(pi (t mod T) / T)) / 2      Loshchilov, Hutter 2017, arXiv:1608.03983

    Args:
        lr: rate right after a restart.
        epoch: time t in epochs, fractions included.
        period: T in epochs.
    """
    return 0.5 * lr * (1.0 + math.cos(math.pi * math.fmod(epoch, period) / period))


@dataclass
class Plateau:
    """Shrinks the rate when the validation loss has not improved for some epochs.

    Args:
        factor: what the rate is multiplied with.
        patience: epochs without improvement before that happens.
        best: lowest validation loss so far.
        waited: epochs since then, or since the last cut.
        reduction: product of the factors applied so far.
    """

    factor: float = 0.8
    patience: int = 25
    best: float = math.inf
    waited: int = 0
    reduction: float = 1.0

    def update(self, validation_loss: float) -> None:
        """Count an epoch, and reduce the rate where the validation loss no longer improves."""
        if validation_loss < self.best:
            self.best, self.waited = validation_loss, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.reduction *= self.factor
            self.waited = 0

    def state_dict(self) -> dict[str, Any]:
        """All fields, for a checkpoint."""
        return asdict(self)


def learning_rate(
    schedule: str, lr: float, epoch: float, n_epochs: int, restart_period: int, plateau: Plateau
) -> float:
    """Learning rate at a moment of the training.

    Args:
        schedule: sgdr, cosine, plateau or constant.
        lr: initial rate.
        epoch: time in epochs, fractions included.
        n_epochs: epochs of the whole training.
        restart_period: epochs between the restarts of sgdr.
        plateau: state of the plateau rule.

    Raises:
        ValueError: if `schedule` is unknown.
    """
    match schedule:
        case "sgdr":
            return cosine_rate(lr, epoch, restart_period)
        case "cosine":
            return cosine_rate(lr, epoch, n_epochs)
        case "plateau":
            return lr * plateau.reduction
        case "constant":
            return lr
    raise ValueError(f"`schedule` must be sgdr, cosine, plateau or constant, got {schedule}")
