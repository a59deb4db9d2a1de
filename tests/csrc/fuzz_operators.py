"""Wrong arguments for every operator, at random: PYTHONPATH=tests python tests/csrc/fuzz_operators.py SEED CALLS

In every call one to three arguments are changed: other values, shapes, dtypes, devices, numbers of parameters. An
operator must raise an error, or return the same bits twice; it must not read or write foreign memory, which ends the
process at once where the operators are built with -DSCSCHNET_SANITIZE=address,undefined (libasan preloaded).
Prints how many calls were refused and how many were answered.
"""

import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable

import torch
from operator_arguments import N_ATOMS, operators
from torch import Tensor

REFUSED = (ValueError, TypeError, IndexError, NotImplementedError)
FROM_TORCH = (
    "memory",
    "negative dimension",
    "non-negative",
    "SymInt",
    "overflow",
    "data-dependent",
)
SIZES = (-1, 0, 1, 2, 7, 10**5, 2**45, -(2**63), 2**63 - 1)
INTEGERS = (*SIZES, N_ATOMS, 2**31)
FLOATS = (float("nan"), float("inf"), -1.0, 0.0, 1e-30, 1e30, 0.3, 2.0)


def one_wrong_value(t: Tensor, rng: random.Random) -> Tensor:
    """One entry that is out of range, or no number."""
    changed = t.clone()
    if t.numel() and t.dtype != torch.bool:
        choices = FLOATS if t.is_floating_point() else INTEGERS
        limits = None if t.is_floating_point() else torch.iinfo(t.dtype)
        value = rng.choice(choices)
        if limits is not None:
            value = min(max(int(value), limits.min), limits.max)
        changed.view(-1)[rng.randrange(t.numel())] = value
    return changed


CHANGES: list[Callable[[Tensor, random.Random], Tensor]] = [
    one_wrong_value,
    one_wrong_value,
    lambda t, rng: t.flip(0) if t.dim() else t,
    lambda t, rng: t[: rng.randrange(len(t) + 1)] if t.dim() else t[None],
    lambda t, rng: torch.cat([t, t[: rng.randrange(1, len(t) + 1)]]) if t.dim() and len(t) else t,
    lambda t, rng: t[:0] if t.dim() else t,
    lambda t, rng: t[..., :1] if t.dim() else t,
    lambda t, rng: t[None],
    lambda t, rng: t.flatten(),
    lambda t, rng: t.new_zeros(()),
    lambda t, rng: t.mT if t.dim() > 1 else t,
    lambda t, rng: t[:1].expand(max(len(t), 1), *t.shape[1:]) if t.dim() and len(t) else t,
    lambda t, rng: t.to(rng.choice([torch.float32, torch.float64, torch.int32, torch.int64])),
]


def changed(value: object, rng: random.Random) -> object:
    """Another value in the place of a right one."""
    if isinstance(value, Tensor):
        return rng.choice(CHANGES)(value, rng)
    if isinstance(value, list):
        k = rng.randrange(len(value))
        wrong = [*value[:k], rng.choice(CHANGES)(value[k], rng), *value[k + 1 :]]
        return rng.choice([[], value[:k], value + value[:k], wrong, wrong, wrong])
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice(SIZES)
    return rng.choice(FLOATS) if isinstance(value, float) else value


def everywhere(value: object, device: str) -> object:
    """Tensors on a device."""
    if isinstance(value, list):
        return [everywhere(inner, device) for inner in value]
    return value.to(device) if isinstance(value, Tensor) else value


def bits(result: object) -> list[bytes]:
    """Of all results; tensors without data by their shape."""
    if isinstance(result, tuple | list):
        return [part for inner in result for part in bits(inner)]
    if result.is_meta:
        return [str(result.shape).encode()]
    return [result.contiguous().view(-1).numpy().tobytes()]


def results_of(name: str) -> int | None:
    """How many results count: the state that schnet keeps has gaps of no meaning."""
    return 4 if name == "schnet" else None


def main(seed: int, calls: int) -> None:
    """Call, count, and stop at the first answer or error that is wrong."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rng, count = random.Random(seed), Counter()
    known = [*operators().items(), *operators(torch.float32).items()]
    for number in range(calls):
        name, (operator, right) = rng.choice(known)
        arguments: list = list(right)
        for k in rng.sample(range(len(right)), min(len(right), rng.choice([1, 1, 2, 3]))):
            arguments[k] = changed(arguments[k], rng)
        if rng.random() < 0.1:
            arguments = [everywhere(value, "meta") for value in arguments]
        print(f"{number} {name}", file=sys.stderr, flush=True)  # the last line names a crash
        try:
            first = bits(operator(*arguments))[: results_of(name)]
        except REFUSED:
            count["refused"] += 1
            continue
        except RuntimeError as error:
            if not any(word in str(error) for word in FROM_TORCH):
                raise
            count["refused"] += 1
            continue
        again = bits(operator(*arguments))[: results_of(name)]
        assert first == again, f"not the same bits twice: {name} {arguments}"
        count["answered"] += 1
    print(f"{calls} calls: {count['refused']} refused, {count['answered']} answered")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
