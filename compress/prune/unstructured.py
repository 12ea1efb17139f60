"""``UnstructuredPruning``: what the passes that set single weights to zero have in common.

Kept are the weights with the highest scores of a layer, of each row, or of each N:M group. N:M keeps N of
every M consecutive inputs of an output channel: 2:4 is what NVIDIA's sparse tensor cores read. Ties fall to
position, so that equal scores give the same mask everywhere, and what is pruned already counts towards the
sparsity. The mask stays with the block, so that later passes keep the zeros.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal, NamedTuple, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from ...errors import ShapeError
from ..model.block_anatomy import Linear
from ..pipeline.block import Block
from ..pipeline.block_pass import BlockPass

Scope = Literal["layer", "row"]

_ZEROS = (
    "Pruned weights are stored as zeros in the ordinary form of their layer: a file gets smaller where it is "
    "compressed afterwards, and no exported model gets faster."
)
_TWO_OF_FOUR = (
    "2:4 zeros are stored as zeros in the ordinary form of their layer: there is no other left to write. "
    "compressed-tensors 0.20 names sparse-24-bitmask and marlin-24 but has no code for them, and vLLM "
    "refuses them since its pull request 36799 (2026). torch.sparse.to_sparse_semi_structured makes the form "
    "that an NVIDIA GPU (compute capability 8.0 and up) multiplies, from loaded float16 or bfloat16 weights. "
    "On a CPU the zeros gain no speed."
)


class Pattern(NamedTuple):
    """``kept`` of every ``size`` consecutive inputs stay."""

    kept: int
    size: int

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """``2:4`` and the like."""
        kept, _, size = text.partition(":")
        if not (kept.isdecimal() and size.isdecimal() and 0 < int(kept) < int(size)):
            raise ValueError(f"{text!r} is not N:M with 0 < N < M, such as 2:4")
        return cls(int(kept), int(size))

    @property
    def sparsity(self) -> float:
        """The fraction of weights that become zero."""
        return 1 - self.kept / self.size


def keep_highest(score: Tensor, sparsity: float, scope: Scope, earlier: Tensor | None = None) -> Tensor:
    """Bool mask ``[out, in]``, True keeps: the ``round(sparsity · n)`` lowest of ``score [out, in]`` are
    False, n being the entries of the layer or of each row.

    ``earlier`` is a mask whose pruned entries go first; they stay pruned even where they are more than that.
    """
    rows = score if scope == "row" else score.reshape(1, -1)
    mask = _keep(
        rows if earlier is None else _last(score, earlier).view_as(rows), round(sparsity * rows.shape[1])
    )
    mask = mask.view_as(score)
    return mask if earlier is None else mask & earlier


def keep_pattern(score: Tensor, pattern: Pattern, earlier: Tensor | None = None) -> Tensor:
    """Bool mask ``[out, in]``, True keeps the ``pattern.kept`` highest of each group of
    ``score [out, in]``.
    """
    if score.shape[1] % pattern.size:
        raise ShapeError(f"groups of {pattern.size} do not divide {score.shape[1]} inputs")
    rows = (score if earlier is None else _last(score, earlier)).reshape(-1, pattern.size)
    mask = _keep(rows, pattern.size - pattern.kept).view_as(score)
    return mask if earlier is None else mask & earlier


def _last(score: Tensor, earlier: Tensor) -> Tensor:
    """``score`` with what is pruned already behind all the rest."""
    return score.masked_fill(~earlier, -torch.inf)


def _keep(rows: Tensor, drop: int) -> Tensor:
    """The mask that drops the ``drop`` lowest of each row, of equal ones the first."""
    if drop == 0:
        return torch.ones_like(rows, dtype=torch.bool)
    highest = rows.kthvalue(drop, dim=1, keepdim=True).values
    lower, equal = rows < highest, rows == highest
    room = drop - lower.sum(1, keepdim=True)
    return ~(lower | (equal & (equal.cumsum(1) <= room)))


class UnstructuredPruning(BlockPass):
    """Options of every such pass; exactly one of ``sparsity`` and ``pattern`` is given."""

    sparsity: float | None = Field(
        None, ge=0, lt=1, description="fraction of a layer's weights that become zero"
    )
    pattern: str | None = Field(
        None, description="N:M keeps N of every M inputs of an output channel: 2:4, 4:8, …"
    )
    per_layer: dict[str, float] = Field(
        {},
        description="sparsity of layers by glob or role, in place of the one for all; the last that fits",
    )

    @field_validator("pattern")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None:
            Pattern.parse(value)
        return value

    @field_validator("per_layer")
    @classmethod
    def _shares(cls, value: dict[str, float]) -> dict[str, float]:
        for name, share in value.items():
            if not 0 <= share < 1:
                raise ValueError(f"{name}: {share} is not a share of at least 0 and below 1")
        return value

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.sparsity is None) == (self.pattern is None):
            raise ValueError("give either sparsity (a share) or pattern (N:M)")
        if self.per_layer and self.sparsity is None:
            raise ValueError("per_layer changes sparsity; a pattern is the same in every layer")
        return self

    @property
    def label(self) -> str:
        return f"{self.pattern or format(self.sparsity, '.0%')} sparse"

    @property
    def note(self) -> str:
        return _TWO_OF_FOUR if self.pattern == "2:4" else _ZEROS

    @property
    def inputs_multiple(self) -> int:
        return Pattern.parse(self.pattern).size if self.pattern else 1

    def fraction(self, linear: Linear) -> float:
        """The fraction of the weights of ``linear`` that become zero."""
        if self.pattern is not None:
            return Pattern.parse(self.pattern).sparsity
        fitting = [
            share
            for name, share in self.per_layer.items()
            if name == linear.role or fnmatchcase(linear.name, name)
        ]
        return fitting[-1] if fitting else self.sparsity or 0.0

    def keep(self, linear: Linear, score: Tensor, scope: Scope, earlier: Tensor | None) -> Tensor:
        """The mask for some columns of ``linear`` with the given ``score``; lower ones go first."""
        if self.pattern is not None:
            return keep_pattern(score, Pattern.parse(self.pattern), earlier)
        return keep_highest(score, self.fraction(linear), scope, earlier)

    def prune(self, block: Block, linear: Linear, score: Tensor, scope: Scope) -> Tensor:
        """Set the weights with the lowest ``score [out, in]`` to zero; returns the change of the weight."""
        mask = self.keep(linear, score, scope, block.masks.get(linear.name))
        weight = block.weight(linear)
        block.masks[linear.name] = mask
        block.set_weight(linear, weight * mask)
        return weight * ~mask
