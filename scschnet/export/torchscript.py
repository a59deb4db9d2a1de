"""What it takes to live with TorchScript: quiet about its deprecation, and the sentence in its error messages."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def torchscript_deprecation_ignored() -> Iterator[None]:
    """Keep quiet about the deprecation of TorchScript; `--format pt2` is there for the time after it."""
    with warnings.catch_warnings():
        message = r"`torch\.jit\.(script|script_method|load)` is"
        warnings.filterwarnings("ignore", message, DeprecationWarning)
        yield


def first_line(error: Exception) -> str:
    """What an error of torch says, without the stack behind it."""
    return str(error).strip().split("\n", 1)[0]


def last_line(error: Exception) -> str:
    """What an error in a TorchScript module says, without the names of the types and the traceback before it."""
    line = str(error).strip().rsplit("\n", 1)[-1]
    for prefix in ("builtins.ValueError: ", "RuntimeError: "):
        line = line.removeprefix(prefix)
    return line
