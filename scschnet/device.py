"""The option `--device`: cpu, cuda or cuda:N, and there."""

import torch


def check_device(device: str) -> None:
    """Check that a device is one to compute on, and that it is there.

    Args:
        device: as the user wrote it, such as cpu or cuda:1.

    Raises:
        ValueError: in one sentence.
    """
    try:
        named = torch.device(device)
    except RuntimeError:
        named = torch.device("meta")
    if named.type not in ("cpu", "cuda") or (named.type == "cpu" and named.index):
        raise ValueError(f"`device` must be cpu, cuda or cuda:N, got {device!r}")
    if named.type == "cpu":
        return
    if not torch.cuda.is_available():
        raise ValueError(f"`device` must be cpu, torch finds no CUDA device, got {device}")
    n_devices = torch.cuda.device_count()
    if (named.index or 0) >= n_devices:
        raise ValueError(f"`device` must be below cuda:{n_devices}, the devices here, got {device}")
