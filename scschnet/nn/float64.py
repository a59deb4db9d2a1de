"""Buffers that stay float64 whatever the dtype of the network, and a check of lengths."""

import math
from collections.abc import Callable
from typing import Self

from torch import Tensor, nn


class Float64Buffers(nn.Module):
    """A module whose buffers follow `to` to a device, and keep their numbers."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Module.to(dtype) goes through here: follow the device, keep the numbers.
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = buffer.to(fn(buffer).device)
        return self


def check_length(name: str, value: float) -> None:
    """Raise ValueError unless a length is positive and finite."""
    if not value > 0.0 or math.isinf(value):
        raise ValueError(f"`{name}` must be positive and finite, got {value}")
