"""The rotation of a linear's inputs in front of a trellis: random signs, then an orthonormal Hadamard matrix.

``x' = H (s ∘ x)`` makes weights and inputs nearly Gaussian (Tseng et al. 2024, "QuIP#", arXiv 2402.04396). H
is a Kronecker product: identity ⊗ Paley's matrices of order 12, 20 or 28 (Paley 1933) ⊗ Sylvester's of order
2ᵖ. Signs follow from the number of inputs alone, so that linears with the same inputs share one rotation.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Of each odd prime the order that has it, and the prime of Paley's construction: first or second kind.
_PALEY = {7: (28, 13), 5: (20, 19), 3: (12, 11)}


def factors(size: int) -> list[int]:
    """Orders whose product is ``size``: that of the identity (1 where a Hadamard matrix has all inputs),
    Paley's, largest first, and the power of two.
    """
    power = size & -size
    rest, found = size // power, []
    for prime, (order, _) in _PALEY.items():
        while rest % prime == 0 and power >= 4:
            rest, power = rest // prime, power // 4
            found.append(order)
    return [rest, *found, power]


def signs(size: int) -> NDArray[np.float32]:
    """``[size]``, 1 or −1: the top bit of splitmix64 (Steele et al. 2014), seeded by ``size``."""
    mixed = np.arange(1, size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(size)
    mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return np.where((mixed ^ mixed >> np.uint64(31)) >> np.uint64(63), -1, 1).astype(np.float32)


def hadamard_of(order: int) -> NDArray[np.float32]:
    """Entries 1 and −1 ``[order, order]`` of a Hadamard matrix of order 12, 20, 28 or a power of two."""
    matrix = np.ones((1, 1), np.float32)
    for named, prime in _PALEY.values():
        if named == order:
            return _paley(prime)
    while len(matrix) < order:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def _paley(prime: int) -> NDArray[np.float32]:
    """Of the order ``prime + 1`` where the prime is 3 modulo 4, else of twice that."""
    squares = {value * value % prime for value in range(1, prime)}
    residues = np.array([0 if not d else 1 if d in squares else -1 for d in range(prime)], np.float32)
    offsets = np.arange(prime)
    core = np.zeros((prime + 1, prime + 1), np.float32)
    core[0, 1:], core[1:, 1:] = 1, residues[(offsets[:, None] - offsets) % prime]
    one = np.eye(prime + 1, dtype=np.float32)
    if prime % 4 == 3:
        core[1:, 0] = -1
        return core + one
    core[1:, 0] = 1
    return np.kron(core, np.array([[1, 1], [1, -1]], np.float32)) + np.kron(
        one, np.array([[1, -1], [-1, -1]], np.float32)
    )


def rotated(values: Tensor) -> Tensor:
    """``H (s ∘ x)`` of each row x of ``values [rows, in]``: of inputs, or of a weight."""
    return _product(values * torch.from_numpy(signs(values.shape[1])).to(values), transposed=False)


def rotated_back(values: Tensor) -> Tensor:
    """Inverse of :func:`rotated`."""
    return _product(values, transposed=True) * torch.from_numpy(signs(values.shape[1])).to(values)


def rotated_gram(gram: Tensor) -> Tensor:
    """``[in, in]`` of the rotated inputs, for ``gram [in, in]`` of the inputs."""
    half = rotated(gram).T.contiguous()
    return rotated(half)


def _product(values: Tensor, *, transposed: bool) -> Tensor:
    blocks, *orders = factors(values.shape[1])
    right = values.shape[1] // blocks
    for order in orders:
        right //= order
        matrix = torch.from_numpy(hadamard_of(order)).to(values) * order**-0.5
        split = values.reshape(-1, order, right)
        values = ((matrix.T if transposed else matrix) @ split).reshape(values.shape)
    return values
