"""The optimizer Muon: matrices turn by orthogonal steps, everything else moves by Adam."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scschnet import ops

# Chosen for small batches of forces on validation errors, benchmarks/paper/RESULTS.md: with a momentum of 0.95, usual
# elsewhere, errors of forces are 15 to 20 % larger, with 0.99 trainings break down; a fifth iteration gains nothing.
MOMENTUM = 0.98
ITERATIONS = 4
STEP = 1.6  # spectral norm of a step, divided by the rate; at 64 features steps are then as large as Adam's


class Muon(torch.optim.Adam):
    """Muon for the matrices of a network, Adam for the rest, with one learning rate.

    m <- 0.98 m + 0.02 g,   W <- W - 1.6 lr orthogonal(0.02 g + 0.98 m)

    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon. All singular values of a step are about the same,
    whatever the size of the matrix, so one rate serves networks of any width. `torch.optim.Muon` turns one matrix
    after the other, in bfloat16, with a factor for each shape; here matrices of one shape are orthogonalized
    together, in their own precision, and nothing is read from the device, so that a CUDA graph can hold a step.

    Args:
        flat: all parameters in one tensor, with its gradient.
        parameters: the matrices among them: views of `flat`.
        gradients: their gradients: views of `flat.grad`.
        lr: learning rate.
    """

    def __init__(
        self,
        flat: nn.Parameter,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        lr: float,
    ) -> None:
        super().__init__([flat], lr=lr, fused=True)
        self._flat, self._gradients = flat, list(gradients)
        shapes: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for parameter in parameters:
            shapes[parameter.shape].append(parameter)
        self._of_shape = list(shapes.values())

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take a step; the gradients of the matrices are zero afterwards."""
        assert self._flat.grad is not None and closure is None
        found = self._flat.grad.clone()
        torch._foreach_zero_(self._gradients)  # Adam does not move what never had a gradient
        super().step()
        state = self.state[self._flat]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(found)
        state["momentum"].lerp_(found, 1.0 - MOMENTUM)
        found.lerp_(state["momentum"], MOMENTUM)
        rate = self.param_groups[0]["lr"]
        for matrices in self._of_shape:
            along = torch.stack([self._part(found, m) for m in matrices])
            turned = ops.orthogonalize(along, ITERATIONS)
            turned.mul_(-STEP).mul_(rate)  # the rate may be a tensor on a GPU, in single precision
            torch._foreach_add_(matrices, turned.unbind())

    def _part(self, flat: Tensor, parameter: Tensor) -> Tensor:
        """Of a tensor like `flat`, the part that belongs to a parameter."""
        first = parameter.storage_offset() - self._flat.storage_offset()
        return flat[first : first + parameter.numel()].view_as(parameter)


def matrices_of(model: nn.Module) -> list[Tensor]:
    """The weights of all dense layers with more than one output: what Muon turns."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features > 1]
    return [layer.weight for layer in layers]
