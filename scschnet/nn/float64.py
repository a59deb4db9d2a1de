"""Buffers that stay float64 whatever the dtype of the network, and a check of lengths."""

import math
from collections.abc import Callable
from typing import Self

from torch import Tensor, nn


class Float64Buffers(nn.Module):
    """A module whose own buffers move to a device with `to`, but keep their dtype."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Module.to goes through here. Take the device from it, and leave the dtype as it is.
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            moved = self._buffers[name]
            if buffer is not None and moved is not None:
                self._buffers[name] = buffer.to(moved.device)
        return self


def check_length(name: str, value: float) -> None:
    """Raise ValueError unless a length is positive and finite."""
    if not value > 0.0 or math.isinf(value):
        raise ValueError(f"`{name}` must be positive and finite, got {value}")
