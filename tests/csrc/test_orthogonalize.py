"""The operator `orthogonalize`: against singular values, on shapes of every kind."""

import numpy as np
import pytest
import reference
import torch

from scschnet import ops
from scschnet._C import instruction_sets

ROUNDING = 0.03 if "amx" in instruction_sets() else 2e-5  # with AMX that of bfloat16, amplified
SHAPES = [(3, 8, 8), (2, 4, 9), (2, 9, 4), (1, 1, 5), (4, 64, 25), (0, 3, 3)]


def matrices(shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_brings_singular_values_near_one(shape):
    given = matrices(shape)
    expected = np.array([reference.orthogonalize(m) for m in given.numpy()]).reshape(shape)
    np.testing.assert_allclose(ops.orthogonalize(given).numpy(), expected, atol=1e-12)
    composed = ops._orthogonalize_composed(given, 5)  # what other devices do
    np.testing.assert_allclose(composed.numpy(), expected, atol=1e-12)
    single = ops.orthogonalize(given.float())
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), expected, atol=ROUNDING)


def test_size_of_a_matrix_does_not_matter():
    given = matrices((2, 6, 5), torch.float32)
    expected = ops.orthogonalize(given)
    for size in (1e-30, 1e-3, 1e15):
        torch.testing.assert_close(ops.orthogonalize(size * given), expected, atol=ROUNDING, rtol=0)


def test_zeros_stay_zeros_and_steps_are_counted():
    zeros = torch.zeros(2, 3, 4)
    assert torch.equal(ops.orthogonalize(zeros), zeros)
    assert torch.equal(ops._orthogonalize_composed(zeros, 5), zeros)
    given = matrices((1, 3, 4))
    torch.testing.assert_close(ops.orthogonalize(given, 0), given / given.norm())


def test_operator_contract():
    given = matrices((3, 6, 4)).transpose(1, 2)  # not contiguous
    torch.library.opcheck(torch.ops.scschnet.orthogonalize, (given, 5))
    torch.testing.assert_close(ops.orthogonalize(given), ops.orthogonalize(given.contiguous()))
    before = torch.get_num_threads()
    once = ops.orthogonalize(given)
    try:
        torch.set_num_threads(2)
        assert torch.equal(ops.orthogonalize(given), once)
    finally:
        torch.set_num_threads(before)


def test_bad_input():
    with pytest.raises(ValueError, match=r"`matrices` must have shape \(n, rows, columns\), got"):
        ops.orthogonalize(torch.zeros(3, 3))
    with pytest.raises(TypeError, match="`matrices` must be float32 or float64, got Int"):
        ops.orthogonalize(torch.zeros(1, 3, 3, dtype=torch.int32))
    with pytest.raises(ValueError, match="`steps` must lie between 0 and 1000, got -1"):
        ops.orthogonalize(torch.zeros(1, 3, 3), -1)
