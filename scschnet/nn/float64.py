"""Buffers that stay float64 whatever the dtype of the network, and a check of lengths."""

import math
from collections.abc import Callable
from typing import Self

from torch import Tensor, nn


class Float64Buffers(nn.Module):
    """A module whose buffers move to a device with `to`, but keep their dtype."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Module.to goes through here. Take the device from it, and leave the dtype as it is.
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = buffer.to(fn(buffer).device)
        return self


def check_length(name: str, value: float) -> None:
    """Raise ValueError unless a length is positive and finite."""
    if not value > 0.0 or math.isinf(value):
        raise ValueError(f"`{name}` must be positive and finite, got {value}")
