"""The option `--device` of the commands that evaluate a model."""

import torch


def check_device(device: str) -> None:
    """Check that torch knows a device and has it.

    Args:
        device: as the user wrote it, such as cpu or cuda:1.

    Raises:
        ValueError: in one sentence.
    """
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"`device` must be cpu, cuda or cuda:N, got {device}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"`device` must be cpu, torch finds no CUDA device, got {device}")
