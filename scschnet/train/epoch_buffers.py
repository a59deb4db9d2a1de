"""Tensors that the steps of a training on resident data share with each other and with the host."""

from typing import NamedTuple

import torch
from torch import Tensor

from scschnet import ops
from scschnet.train.state import NORMS_KEPT, TrainingState


class Failure(NamedTuple):
    """The first step of an epoch whose loss or gradient was not finite."""

    step: int
    loss: float
    gradient_norm: float


class EpochBuffers:
    """Order, rates, counters and sums of an epoch on the device; the host writes them before it and reads them after it.

    Args:
        state: of the training.
        n_steps: steps of an epoch.
        width: most structures of a batch of this process, and one more.
        device: where they are.

    Attributes:
        order: structures of every step, (n_steps, width) int64.
        plan: learning rate, structures and atoms of the whole batch of every step, (n_steps, 3) float64.
        rate: learning rate of the step, ().
        n_structures: of the whole batch of the step, () float64.
        n_atoms: likewise.
        loss: of the step, () float64.
        norms: mean norm of every correction in the step, (n_layers,) float64.
        counts: steps in the epoch, steps in all, norms of gradients in all, (3,) int64.
        history: the last norms; number k lies at k mod NORMS_KEPT; (NORMS_KEPT,) float64.
        sums: of norms, normalized weights and their squares, (3, n_layers) float64.
        totals: sum of losses times structures; failed step or -1, its loss, its norm; (4,) float64.
        factors: of the gradient, by clipping, and of the new parameters in the average, (2,) float64.
    """

    def __init__(
        self, state: TrainingState, n_steps: int, width: int, device: torch.device
    ) -> None:
        def numbers(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        n_layers = len(state.model.contribution_weights)
        self.order = numbers(n_steps, width, dtype=torch.int64)
        self.plan = numbers(n_steps, 3)
        # Adam's kernel for GPUs takes the rate in single precision only.
        on_gpu = device.type == "cuda"
        self.rate = numbers(dtype=torch.float32 if on_gpu else torch.float64)
        self.n_structures, self.n_atoms = numbers(), numbers()
        self.loss, self.norms = numbers(), numbers(n_layers)
        self.counts = numbers(3, dtype=torch.int64)
        self.history, self.sums = numbers(NORMS_KEPT), numbers(3, n_layers)
        self.totals, self.factors = numbers(4), numbers(2)
        self._slots = torch.arange(NORMS_KEPT, device=device)

    @property
    def step(self) -> Tensor:
        """Steps taken in the epoch, (1,) int64."""
        return self.counts[:1]

    def changing(self) -> list[Tensor]:
        """What a step changes for the next one."""
        return [self.counts, self.history, self.sums, self.totals]

    def begin(self, state: TrainingState, order: Tensor, plan: Tensor) -> None:
        """Load an epoch, or what is left of it."""
        known = len(state.gradient_norms)
        kept = state.contributions
        self.order.copy_(order)
        self.plan.copy_(plan)
        self.counts.copy_(torch.tensor([state.step, state.total_steps, known]))
        self.history[:known] = torch.tensor(state.gradient_norms, dtype=torch.float64)
        self.sums.copy_(torch.stack([kept.norm_sum, kept.weight_sum, kept.square_sum]))
        self.totals.copy_(torch.tensor([state.loss_sum, -1.0, 0.0, 0.0], dtype=torch.float64))

    def begin_step(self) -> None:
        """Take rate and counts of the step from the plan; see `ops.begin_step`."""
        now = (self.rate, self.n_structures, self.n_atoms)
        if ops.trains_on(self.counts.device):
            ops.begin_step(self.plan, self.step, *now)
        else:
            row = self.plan.index_select(0, self.step).squeeze(0)
            for buffer, number in zip(now, row.unbind(), strict=True):
                buffer.copy_(number)

    def record_step(
        self, gradient_norm: Tensor, weights: Tensor, clip: float, decay: float
    ) -> None:
        """Add a step to the counts and sums, and compute its factors; see `ops.record_step`.

        Args:
            gradient_norm: ().
            weights: contribution weights that the step used, (n_layers,).
            clip: multiple of the median norm that is allowed, or 0.
            decay: of the moving average.
        """
        given = (gradient_norm, self.loss, self.n_structures, self.norms, weights, clip, decay)
        if ops.trains_on(self.counts.device):
            updated = (self.counts, self.history, self.sums, self.totals, self.factors)
            ops.record_step(*given, *updated)
        else:
            self._record_step(gradient_norm.double(), weights, clip, decay)

    def _record_step(self, norm: Tensor, weights: Tensor, clip: float, decay: float) -> None:
        """`ops.record_step` in plain torch."""
        step, total, n_norms = self.counts.unbind()
        limit = clip * self._median_norm()
        clipped = (n_norms > 0) & (norm > limit) & (clip > 0)
        self.factors[0].copy_((limit / norm).masked_fill(~clipped, 1.0))
        finite = torch.isfinite(self.loss) & torch.isfinite(norm)
        now = torch.stack([step.double(), self.loss, norm])
        failure = self.totals[1:]
        failure.copy_(torch.where(~finite & (failure[0] < 0), now, failure))
        self.totals[0].add_(self.loss * self.n_structures)
        slot = self._slots == n_norms % NORMS_KEPT
        self.history.copy_(torch.where(slot, norm, self.history))
        normalized = weights.double() * self.norms
        self.sums.add_(torch.stack([self.norms, normalized, normalized * normalized]))
        self.counts.add_(1)
        grown = (1.0 + total.double()) / (10.0 + total.double())
        self.factors[1].copy_(1.0 - grown.clamp(max=decay))

    def _median_norm(self) -> Tensor:
        """Median of the norms in the history; of no meaning while there is none."""
        known = self.counts[2:].clamp(max=NORMS_KEPT)
        ordered = self.history.masked_fill(self._slots >= known, torch.inf).sort().values
        middle = torch.cat([(known - 1).clamp(min=0) // 2, known // 2]).clamp(max=NORMS_KEPT - 1)
        return ordered.index_select(0, middle).mean()

    def read_into(self, state: TrainingState) -> Failure | None:
        """Bring everything but the parameters into the state, in one transfer."""
        parts = [self.history, self.sums, self.totals, self.counts[2:]]
        message = torch.cat([part.reshape(-1).double() for part in parts]).cpu()
        history, sums, totals, n_norms = message.split([part.numel() for part in parts])
        n = int(n_norms)
        oldest = n % NORMS_KEPT if n > NORMS_KEPT else 0
        state.gradient_norms = history[:n].roll(-oldest).tolist()
        kept = state.contributions
        kept.norm_sum, kept.weight_sum, kept.square_sum = sums.view(3, -1).clone().unbind()
        state.loss_sum, step, loss, norm = totals.tolist()
        return None if step < 0 else Failure(int(step), loss, norm)
