"""GGUF's K-quants and ``IQ4_NL``: which codes, scales and minima they have.

A super-block of 256 inputs has a float16 unit, in which the scales of its groups are counted by small
integers; where the codes begin at 0 the groups also have a minimum, counted in a unit of its own, that is
subtracted. ``IQ4_NL`` has 16 uneven points, and one float16 scale for 32 inputs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import RecipeError
from .scheme import GGUF, SUPER_BLOCK, Format, Scheme

# What the search for the scales of a weight takes (:mod:`.super_blocks`), in roundings to a grid.
SEARCHED = 130
POINTS = torch.tensor([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])
# By the halves in a value, from -128 on: what lies in the middle between two points is a whole number of
# them.
_NEAREST = POINTS.float()[torch.bucketize(torch.arange(-256, 256) / 2 + 0.25, (POINTS[1:] + POINTS[:-1]) / 2)]


@dataclass(frozen=True)
class BlockType:
    """A type.

    Attributes:
        size: weights of a group; groups: of a super-block.
        codes: the least and the largest; ``uneven`` ones lie on :data:`POINTS`.
        scales: the least and the largest integer that counts a scale. minima: the largest, 0 without.
    """

    size: int
    groups: int
    codes: tuple[int, int]
    scales: tuple[int, int]
    minima: int = 0
    uneven: bool = False

    @property
    def step(self) -> float:
        """Between two codes, about."""
        return 16.0 if self.uneven else 1.0

    @property
    def has_zero(self) -> bool:
        """Whether every grid of the type has the weight 0."""
        return not self.minima and not self.uneven

    def nearest(self, values: Tensor) -> Tensor:
        """The nearest code, float, of ``values`` that are counted in scales, which are overwritten."""
        if self.uneven:
            halves = values.mul_(2).floor_().clamp_(-256, 255).add_(256)
            return _NEAREST.to(values.device)[halves.to(torch.int32)]
        return values.round_().clamp_(*self.codes)


def _type(name: Format, scales: tuple[int, int], minima: int = 0) -> BlockType:
    _, size, _, codes = GGUF[name]
    uneven = name == "iq4_nl"
    return BlockType(size, 1 if uneven else SUPER_BLOCK // size, codes, scales, minima, uneven)


BLOCK_TYPES = {
    "q2_k": _type("q2_k", (0, 15), minima=15),
    "q3_k": _type("q3_k", (-32, 31)),
    "q4_k": _type("q4_k", (0, 63), minima=63),
    "q5_k": _type("q5_k", (0, 63), minima=63),
    "q6_k": _type("q6_k", (-128, 127)),
    "iq4_nl": _type("iq4_nl", (1, 1)),
}


def refuse_without_zero(layer: str, scheme: Scheme) -> None:
    """Raise RecipeError for a ``layer`` that is pruned, where ``scheme`` has no zero."""
    if scheme.of_trellis:
        integers = f"W{scheme.bits}A16"
        raise RecipeError(f"{layer} is pruned, and {scheme.name} has no zero", fix=f"take {integers}")
    if scheme.of_gguf and not BLOCK_TYPES[scheme.format].has_zero:
        raise RecipeError(
            f"{layer} is pruned, and {scheme.name} has no zero",
            fix="take Q3_K or Q6_K, which have one, or Q4_0",
        )
