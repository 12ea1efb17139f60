"""Random orthogonal matrices: randomised Hadamard where the size has a power of two in it, else by QR.

A Hadamard matrix of order 2ᵏ (Sylvester 1867) spreads any one channel evenly over all, and random signs in
front make it as good on average for every direction (Ashkboos et al. 2024, "QuaRot: Outlier-Free 4-Bit
Inference in Rotated LLMs", arXiv 2404.00456). A size ``2ᵏ · m`` gets the Kronecker product with a random
orthogonal matrix of order m (576 = 64 · 9). All are float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

# With fewer rows than this in its Hadamard part, a product spreads less than a matrix from QR does.
_SMALLEST_HADAMARD = 16


def hadamard(order: int) -> Tensor:
    """The Sylvester-Hadamard matrix ``[order, order]`` divided by the root of its order, a power of two.

    Raises:
        ValueError: the order is not a power of two.
    """
    if order < 1 or order & (order - 1):
        raise ValueError(f"{order} is not a power of two")
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < order:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix.mul_(order**-0.5)


def random_orthogonal(size: int, generator: torch.Generator) -> Tensor:
    """``[size, size]``, uniform over all orthogonal matrices: QR of a Gaussian one, signs made unique."""
    gaussian = torch.randn(size, size, generator=generator, dtype=torch.float64)
    matrix, triangle = torch.linalg.qr(gaussian)
    return torch.mul(matrix, triangle.diagonal().sign())


def random_rotation(size: int, generator: torch.Generator) -> Tensor:
    """``[size, size]`` orthogonal: random signs, then Hadamard ⊗ random orthogonal, or the latter alone."""
    power = size & -size
    if power < min(_SMALLEST_HADAMARD, size):
        return random_orthogonal(size, generator)
    signs = torch.randint(0, 2, (size,), generator=generator).to(torch.float64) * 2 - 1
    rest = random_orthogonal(size // power, generator)
    return signs.unsqueeze(1) * torch.kron(hadamard(power), rest.contiguous())


def mean_preserving(size: int, generator: torch.Generator) -> Tensor:
    """``[size, size]`` orthogonal that leaves the vector of equal entries where it is.

    A LayerNorm takes out the mean, which is the part along that vector: so such a rotation, and only such a
    one, passes through it.
    """
    inner = torch.eye(size, dtype=torch.float64)
    inner[1:, 1:] = random_orthogonal(size - 1, generator)
    # The Householder reflection that exchanges the first unit vector with that of equal entries.
    normal = torch.full((size,), -(size**-0.5), dtype=torch.float64)
    normal[0] += 1
    length = normal.norm()
    if length > 0:
        normal /= length
    reflection = torch.eye(size, dtype=torch.float64) - 2 * torch.outer(normal, normal)
    return reflection @ inner @ reflection
