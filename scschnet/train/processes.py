"""The processes of a training: one, or those that torchrun started, each with its share of every batch."""

import math
import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from scschnet.evaluate import Error


class Processes:
    """Rank and size of the group, and the one sum a training step needs.

    The batch size is that of all processes together: process r of n takes structures r, r + n, ... of
    every batch. Gradients, loss and statistics are sums over structures divided by counts of the whole
    batch, so their sum over processes is what one process would have computed, to rounding.

    Args:
        device: cpu or cuda; the latter becomes the process's own GPU, as long as there are enough.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.rank, self.size = 0, 1
        if "RANK" in os.environ and "WORLD_SIZE" in os.environ:  # set by torchrun
            local = int(os.environ.get("LOCAL_RANK", "0"))
            n_devices = torch.cuda.device_count() if device.startswith("cuda") else 0
            if device == "cuda" and n_devices:
                self.device = f"cuda:{local % n_devices}"
            self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            if self.size > 1 and not dist.is_initialized():
                dist.init_process_group(backend(device, n_devices))
        if self.device.startswith("cuda:") and torch.cuda.is_available():
            torch.cuda.set_device(self.device)  # what NCCL and captures refer to

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run folder and talks."""
        return self.rank == 0

    def share(self, batch: NDArray) -> NDArray:
        """This process's part of a batch of indices; may be empty."""
        return batch[self.rank :: self.size]

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all processes, in one message; the same bits everywhere."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1).double() for tensor in tensors])
        self.all_reduce_(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.reshape(tensor.shape))

    def all_reduce_(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes; the same bits everywhere."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def merge(self, found: dict[str, Error]) -> dict[str, Error]:
        """Errors over the shares of all processes, from those over this one's."""
        if self.size == 1:
            return found
        gathered: list[dict[str, Error]] = [{} for _ in range(self.size)]
        dist.all_gather_object(gathered, found)
        return {name: _merged([errors[name] for errors in gathered]) for name in found}

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def backend(device: str, n_devices: int) -> str:
    """Which library sums over processes: NCCL, unless some of them share a GPU, which it refuses.

    Args:
        device: cpu, cuda or cuda:1.
        n_devices: GPUs of this machine.
    """
    n_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    apart = device == "cuda" and n_here <= n_devices
    return "nccl" if apart or (device.startswith("cuda") and n_here == 1) else "gloo"


def _merged(errors: list[Error]) -> Error:
    known = [error for error in errors if error.n]
    n = sum(error.n for error in known)
    if n == 0:
        return errors[0]
    mae = sum(error.mae * error.n for error in known) / n
    return Error(mae, math.sqrt(sum(error.rmse**2 * error.n for error in known) / n), n)
