"""The rotation in front of a trellis: orthonormal for every size, its own inverse given back."""

import numpy as np
import pytest
import torch
from edgepress.compress.numbers.input_rotation import (
    factors,
    hadamard_of,
    rotated,
    rotated_back,
    rotated_gram,
    signs,
)

SIZES = (8, 48, 64, 56, 80, 88, 112, 240, 576)


@pytest.mark.parametrize("order", [1, 2, 12, 20, 28, 64])
def test_hadamard_matrices(order: int) -> None:
    matrix = hadamard_of(order)
    assert (np.abs(matrix) == 1).all()
    assert (matrix @ matrix.T == order * np.eye(order)).all()


def test_factors() -> None:
    assert factors(576) == [1, 12, 12, 4]
    assert factors(1536) == [1, 12, 128]
    assert factors(88) == [11, 8]
    assert factors(24) == [1, 12, 2]
    assert all(np.prod(factors(size)) == size for size in range(8, 4096, 8))


@pytest.mark.parametrize("size", SIZES)
def test_rotation_against_the_explicit_matrix(size: int) -> None:
    blocks, *orders = factors(size)
    matrix = np.eye(blocks)
    for order in orders:
        matrix = np.kron(matrix, hadamard_of(order) / order**0.5)
    explicit = torch.from_numpy(matrix * signs(size)).to(torch.float32)
    x = torch.randn(5, size, generator=torch.Generator().manual_seed(size))
    torch.testing.assert_close(rotated(x), x @ explicit.T, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rotated_back(rotated(x)), x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rotated_gram(x.T @ x), rotated(x).T @ rotated(x), rtol=1e-4, atol=1e-3)


def test_signs_are_fixed_and_about_even() -> None:
    assert signs(8).tolist() == [-1, -1, -1, -1, 1, 1, -1, 1]
    assert signs(576)[:8].tolist() == [-1, 1, -1, 1, -1, 1, -1, -1]
    assert abs(float(signs(4096).mean())) < 0.05
