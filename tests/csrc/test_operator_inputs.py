"""Operators with indices that lead outside and arrays of other lengths: an error, never foreign memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from operator_arguments import N_ATOMS, OPS, operators

OPERATORS = operators()
PAIRS = ("d_ij", "bins", "weights", "row_ptr", "idx_j")  # of a convolution, in their order
CONVOLUTIONS = [name for name in OPERATORS if name.startswith("cfconv")]


def names(operator) -> list[str]:
    """Of the arguments."""
    overload = operator if hasattr(operator, "_schema") else operator.default
    return [argument.name for argument in overload._schema.arguments]


def called(name: str, **changed):
    """An operator with some arguments changed."""
    operator, right = OPERATORS[name]
    given = dict(zip(names(operator), right, strict=True))
    assert changed.keys() <= given.keys()
    return operator(*[change(given[k]) if (change := changed.get(k)) else given[k] for k in given])


def entry(k: int, value: int):
    """The change of one entry of an index."""

    def change(index: torch.Tensor) -> torch.Tensor:
        index = index.clone()
        index[k] = value
        return index

    return change


def test_every_operator_is_among_those_tried():
    of_cpu = {
        name.removeprefix("scschnet::").partition(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("scschnet::")
        and torch._C._dispatch_has_kernel_for_dispatch_key(name, "CPU")
    }
    assert of_cpu == set(OPERATORS)


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("value", [N_ATOMS, -1, 10**9, -(2**62)])
def test_convolutions_follow_no_neighbor_outside(name, value):
    for k in (0, 7, -1):
        with pytest.raises(ValueError, match=f"`idx_j` must lie between 0 and 11, got {value}"):
            called(name, idx_j=entry(k, value))


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("value", [10**7, -5, 0])
def test_convolutions_follow_no_rows_outside(name, value):
    with pytest.raises(ValueError, match="`row_ptr` must ascend from 0 to the number of pairs"):
        called(name, row_ptr=entry(6, value))
    if value:
        with pytest.raises(ValueError, match="`row_ptr` must ascend from 0 to the number of pair"):
            called(name, row_ptr=entry(0, value))


@pytest.mark.parametrize("index", ["idx_m", "idx_i", "idx_j", "pairs"])
def test_pair_vectors_reads_what_it_has_checked(index):
    """Not the entries between those of a strided index."""
    operator, right = OPERATORS["pair_vectors"]
    given = right[names(operator).index(index)]
    wide = given.new_zeros(2 * len(given))
    wide[::2] = given
    wide[-2] = 10**9
    with pytest.raises(ValueError, match=f"`{index}` must lie between 0 and .*, got 1000000000"):
        called("pair_vectors", **{index: lambda _: wide[::2]})
    wide[1::2] = 10**9  # nobody's
    wide[::2] = given
    for one, other in zip(
        called("pair_vectors", **{index: lambda _: wide[::2]}), operator(*right), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"state": lambda t: t[:0]}, r"`state` must be what schnet left with `keep`, \d+ numbers"),
        ({"state": lambda t: torch.cat([t, t])}, "`state` must be what schnet left with `keep`"),
        ({"g_bar": lambda t: t[:0]}, r"`g_bar` must have shape \[12\], got \[0\]"),
        ({"v": lambda t: t[1:]}, "`v` must have shape"),
        (
            {"representation_bar": lambda t: t[1:]},
            r"`representation_bar` must have shape \[12, 16\]",
        ),
    ],
)
def test_lengths_for_schnet_backward(changed, message):
    with pytest.raises(ValueError, match=message):
        called("schnet_backward", **changed)


@pytest.mark.parametrize("name", ["state", "g_bar", "v", "representation_bar"])
def test_dtypes_for_schnet_backward(name):
    with pytest.raises(TypeError, match=f"`{name}` must be Double like `features`, got Float"):
        called("schnet_backward", **{name: lambda t: t.float()})


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"output_weights": lambda t: []}, "`output_weights` must hold one tensor for each of 2"),
        ({"output_weights": lambda t: t[:1]}, "`output_weights` must hold one tensor for each"),
        ({"output_weights": lambda t: [t[0], t[1][1:]]}, "`output_weights` must have shape"),
        ({"coefficients": lambda t: t[:, 1:]}, "`coefficients` must have shape"),
        ({"slopes": lambda t: t[:, 1:]}, "`slopes` must have shape"),
        ({"rbf": lambda t: t[1:]}, "`rbf` must have 26 nodes"),
        ({"prefilter": lambda t: t[1:]}, "`prefilter` must hold 5 float64"),
        ({"tables_bar": lambda t: t[0]}, "`tables_bar` must have shape"),
    ],
)
def test_lengths_for_filter_tables_backward(device, changed, message):
    def on_device(change):
        def moved(value):
            found = change(value)
            return [t.to(device) for t in found] if isinstance(found, list) else found.to(device)

        return moved

    every = {name: on_device(lambda t: t) for name in names(OPS.filter_tables_backward)}
    with pytest.raises(ValueError, match=message):
        called("filter_tables_backward", **every | {k: on_device(c) for k, c in changed.items()})


@pytest.mark.parametrize("name", ["pack_schnet", "schnet", "schnet_evaluate"])
@pytest.mark.parametrize("n", [0, 5, 13, 15])
def test_number_of_parameters_on_meta(name, n):
    """Shapes alone are asked for by torch.compile and torch.export."""
    operator, right = OPERATORS[name]
    on_meta = [t.to("meta") if isinstance(t, torch.Tensor) else t for t in right]
    k = names(operator).index("parameters")
    on_meta[k] = [right[k][0].to("meta")] * n
    with pytest.raises(ValueError, match=f"`parameters` must hold 5 tensors for each of 2 .*{n}"):
        operator(*on_meta)


def test_schnet_evaluate_on_meta_with_what_it_cannot_use():
    operator, right = OPERATORS["schnet_evaluate"]
    on_meta = [t.to("meta") if isinstance(t, torch.Tensor) else t for t in right]
    on_meta[7] = [t.to("meta") for t in right[7]]
    for k, wrong in [(0, torch.zeros(3)), (2, torch.zeros(())), (6, torch.zeros(()))]:
        with pytest.raises(IndexError):
            operator(*on_meta[:k], wrong.to("meta"), *on_meta[k + 1 :])
    with pytest.raises(ValueError, match="`n_local` must not be negative, got -3"):
        operator(*on_meta[:8], -3, *on_meta[9:])


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_no_result_on_the_cpu_while_an_argument_is_on_meta(name):
    """Shapes alone are computed then; on the CPU a result would be memory that nothing was written to."""
    operator, right = OPERATORS[name]
    for k, argument in enumerate(right):
        moved = torch.utils._pytree.tree_map_only(torch.Tensor, lambda t: t.to("meta"), argument)
        try:
            found = operator(*right[:k], moved, *right[k + 1 :])
        except (ValueError, TypeError, IndexError, NotImplementedError, RuntimeError):
            continue
        tensors = [t for t in torch.utils._pytree.tree_leaves(found) if t is not None]
        is_tensor = isinstance(argument, torch.Tensor | list)
        assert all(t.device.type == ("meta" if is_tensor else "cpu") for t in tensors), (name, k)


@pytest.mark.parametrize("name", ["half_list", "pair_rows"])
@pytest.mark.parametrize("n_atoms", [-1, 2**41, 2**63 - 1])
def test_numbers_of_atoms_that_cannot_be(name, n_atoms):
    """One more than the largest number there is would be the smallest."""
    operator, right = OPERATORS[name]
    with pytest.raises(ValueError, match="`n_atoms` must"):
        operator(*right[:-1], n_atoms)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_wrong_arguments_at_random(seed):
    """Of thousands of calls none ends the process or gives other bits the second time."""
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, str(here / "fuzz_operators.py"), str(seed), "5000"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(here.parent)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    _, refused, answered = (int(word) for word in done.stdout.split() if word.isdecimal())
    assert refused > 2000 and answered > 200
