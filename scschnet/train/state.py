"""Everything that changes while a model is trained, saved and restored as a whole."""

import copy
import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scschnet.nn import SchNet
from scschnet.runs.config import TrainConfig
from scschnet.train.contributions import ContributionStatistics
from scschnet.train.muon import Muon, matrices_of
from scschnet.train.schedule import Plateau

NORMS_KEPT = 200


class TrainingState:
    """Model, optimizer, moving average, counters and running sums of a training.

    Args:
        config: options of the run.
        model: the model that is trained, on its device.

    Attributes:
        parameters: those of `model`, in its order.
        flat: all of them in one tensor, of which they are views, with their gradient.
        averaged: the model that is validated and saved: the moving average, or `model` itself.
        epoch: epochs finished.
        step: steps finished in the epoch under way.
        total_steps: steps finished in all.
    """

    def __init__(self, config: TrainConfig, model: SchNet) -> None:
        self.config = config
        self.model = model
        self.averaged = copy.deepcopy(model).requires_grad_(False) if config.ema > 0 else model
        self.parameters: list[Tensor] = list(model.parameters())
        self.flat = torch.nn.Parameter(flatten_parameters(model))
        self.flat.grad = torch.zeros_like(self.flat)
        self._gradient_parts = _parts(self.flat.grad, self.parameters)
        self.averaged_parameters: list[Tensor] = list(self.averaged.parameters())
        self.optimizer = self._make_optimizer()
        self.plateau = Plateau()
        self.contributions = self._no_contributions()
        self.gradient_norms: list[float] = []
        self.epoch = 0
        self.step = 0
        self.total_steps = 0
        self.loss_sum = 0.0
        self.seconds = 0.0
        self.best_val_loss = math.inf
        self.best_epoch = 0
        self.best_train_loss = math.inf
        self.lost_epochs = 0

    def _make_optimizer(self) -> torch.optim.Adam:
        chosen = {id(matrix) for matrix in matrices_of(self.model)}
        if self.config.optimizer == "adam" or not chosen:
            return torch.optim.Adam([self.flat], lr=self.config.lr, fused=True)
        pairs = zip(self.parameters, self._gradient_parts, strict=True)
        matrices = [(p, gradient) for p, gradient in pairs if id(p) in chosen]
        parameters, gradients = zip(*matrices, strict=True)
        return Muon(self.flat, parameters, gradients, self.config.lr)

    def begin_epoch(self) -> None:
        """Forget the sums of the epoch before."""
        if self.epoch == 0:
            self.model.refine_filters()
        self.step = 0
        self.loss_sum = 0.0
        self.contributions = self._no_contributions()

    def _no_contributions(self) -> ContributionStatistics:
        names = tuple(self.model.weights_by_property())
        return ContributionStatistics(self.model.config.n_interactions + 1, names)

    @property
    def contribution_weights(self) -> Tensor:
        """Those of all properties, without gradient, (n_properties, n_layers)."""
        return torch.stack([w.detach() for w in self.model.weights_by_property().values()])

    @property
    def gradient(self) -> Tensor:
        """The gradient of all parameters, one tensor."""
        assert self.flat.grad is not None
        return self.flat.grad

    def differentiate(self, loss: Tensor) -> None:
        """Write the gradient of a loss into `gradient`; zero for parameters it does not depend on."""
        found = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        if any(part is None for part in found):
            self.gradient.zero_()
        pairs = zip(self._gradient_parts, found, strict=True)
        written = [(to, part) for to, part in pairs if part is not None]
        torch._foreach_copy_([to for to, _ in written], [part for _, part in written])

    def clip_gradient(self) -> float:
        """Scale the gradient down to `clip` times the running median of its norm.

        The median runs over the last 200 steps, so that ordinary steps are left alone whatever the
        units of the loss; a warm restart otherwise can throw the parameters far away.

        Returns:
            The norm before clipping.
        """
        norm = float(torch.linalg.vector_norm(self.gradient))
        if self.config.clip > 0 and self.gradient_norms:
            limit = self.config.clip * statistics.median(self.gradient_norms)
            if norm > limit:
                self.gradient.mul_(limit / norm)
        self.gradient_norms = [*self.gradient_norms[-NORMS_KEPT + 1 :], norm]
        return norm

    def update_average(self) -> None:
        """Move the averaged parameters towards the current ones.

        The decay grows from 2/11 to `ema` in the first steps, so that the start is forgotten.
        """
        if self.averaged is self.model:
            return
        decay = min(self.config.ema, (1 + self.total_steps) / (10 + self.total_steps))
        with torch.no_grad():
            torch._foreach_lerp_(self.averaged_parameters, self.parameters, 1.0 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Everything `load_state_dict` needs to go on bit for bit; plain containers and tensors."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "plateau": self.plateau.state_dict(),
            "contributions": self.contributions.state_dict(),
            "filter_step": self.model.filter_step,
            **{name: getattr(self, name) for name in _SCALARS},
        }

    def load_state_dict(self, state: dict[str, Any], averaged: dict[str, Tensor]) -> None:
        """Restore a state.

        Args:
            state: what `state_dict` returned.
            averaged: parameters of the averaged model, which the checkpoint holds as its model.

        Raises:
            ValueError: if an older scschnet wrote it, whose optimizer had a state of each parameter; or if it is no
                state of this training.
        """
        try:
            self._load(state, averaged)
        except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            words = str(error).splitlines()[0] if str(error) else ""
            raise ValueError(
                f"the training state does not fit together: {type(error).__name__} {words}"
            ) from error

    def _load(self, state: dict[str, Any], averaged: dict[str, Tensor]) -> None:
        n_states = len(state["optimizer"]["param_groups"][0]["params"])
        if n_states != 1:
            raise ValueError(
                f"the training state has an optimizer of {n_states} parameters, expected one of all "
                "together: an older scschnet wrote it, and can go on with it"
            )
        self.model.load_state_dict(state["model"])
        if self.averaged is not self.model:
            self.averaged.load_state_dict(averaged)
        capturable = [group["capturable"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, own in zip(self.optimizer.param_groups, capturable, strict=True):
            group["capturable"] = own  # of the step that was taken, not of the one to be taken
        self.plateau = Plateau(**state["plateau"])
        self.contributions.load_state_dict(state["contributions"])
        self.model.filter_step = state["filter_step"]
        for name in _SCALARS:
            before, now = getattr(self, name), state[name]
            numbers = now if isinstance(before, list) else [now]
            if not (type(now) is type(before) and all(type(x) in (int, float) for x in numbers)):
                raise TypeError(f"`{name}` must be {type(before).__name__}, got {now!r}")
            setattr(self, name, now)


def flatten_parameters(module: torch.nn.Module) -> Tensor:
    """Make all parameters of a module views of one tensor: an operation on all of them is then one call.

    What changes the tensor does not change the version of the parameters, by which a model knows whether
    tables it keeps are still right; it keeps none of parameters that are trained.

    Args:
        module: its parameters must have one dtype and device.

    Returns:
        The tensor, with the parameters in their order, each at a multiple of 64 bytes, and zeros between.
    """
    parameters = list(module.parameters())
    size = sum(_padded(parameter) for parameter in parameters)
    flat = torch.zeros(size, dtype=parameters[0].dtype, device=parameters[0].device)
    for parameter, part in zip(parameters, _parts(flat, parameters), strict=True):
        part.copy_(parameter.detach())
        parameter.data = part
    return flat


def _padded(parameter: Tensor) -> int:
    step = 64 // parameter.element_size()
    return -(-parameter.numel() // step) * step


def _parts(flat: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """The views of `flat` that have the shapes of parameters."""
    parts = flat.split([_padded(parameter) for parameter in parameters])
    return [
        part[: parameter.numel()].view_as(parameter)
        for part, parameter in zip(parts, parameters, strict=True)
    ]


_SCALARS = (
    "gradient_norms",
    "epoch",
    "step",
    "total_steps",
    "loss_sum",
    "seconds",
    "best_val_loss",
    "best_epoch",
    "best_train_loss",
    "lost_epochs",
)
