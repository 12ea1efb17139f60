"""What all norms of a model see of its residual stream on the calibration text: what a basis is chosen by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ....terminal import Progress
from ...model.block_anatomy import Norm
from ...model.weights import WeightSource
from .model_batches import Passage, States
from .residual_error import seen


def normalized(states: Tensor, eps: float) -> Tensor:
    """States ``[…, channels]`` at a root mean square of one."""
    return states * torch.rsqrt(states.square().mean(-1, keepdim=True) + eps)


def real(states: Tensor, mask: Tensor | None) -> Tensor:
    """The rows ``[tokens, channels]`` of real tokens."""
    rows = states.flatten(0, -2)
    return rows if mask is None else rows[mask.flatten()]


@dataclass
class Seen:
    """Sums over all norms, a token at a norm counted once.

    Attributes:
        gram: of normalized states ``[hidden, hidden]``.
        size: of ``|activation|`` behind the norm, its scales included ``[hidden]``.
        wanted: the Gram of the readers' weights times the norm's scales ``[hidden, hidden]``.
    """

    gram: Tensor
    size: Tensor
    wanted: Tensor
    tokens: int = field(default=0)

    @classmethod
    def nothing(cls, hidden: int, device: torch.device) -> Seen:
        """Before the first token."""
        square = torch.zeros(hidden, hidden, device=device)
        return cls(square, torch.zeros(hidden, device=device), square.clone())

    def add(self, rows: Tensor, scales: Tensor) -> None:
        """Normalized ``rows [tokens, hidden]`` at a norm with ``scales [hidden]``."""
        self.gram.addmm_(rows.T, rows)
        self.size += (rows * scales).abs().sum(0)
        self.tokens += len(rows)

    def want(self, weight: Tensor) -> None:
        """A reader's ``weight [out, hidden]``, the norm's scales in it."""
        self.wanted.addmm_(weight.T, weight)


def seen_by_norms(passage: Passage, source: WeightSource, progress: Progress) -> Seen:
    """One run of the calibration text through the whole model."""
    anatomy, device = source.anatomy, passage.skeleton.device
    found, states = Seen.nothing(anatomy.hidden_size, device), passage.entrance

    def look(norm: Norm, readers: Sequence[str], entering: States) -> None:
        scales = norm.offset + source.tensor(f"{norm.name}.weight").to(device)
        for hidden, entry in zip(entering, passage.entries, strict=True):
            found.add(normalized(real(hidden, entry.mask), norm.eps), scales)
        for name in readers:
            found.want(source.tensor(f"{name}.weight").to(device) * scales)

    with progress.task("measuring channels", len(anatomy.blocks)) as task:
        for block in anatomy.blocks:
            look(block.norm1, [linear.name for linear in block.attention.projections], states)
            norm, module = {"sum": passage.skeleton.submodule(block.norm2.name)}, passage.modules[block.index]
            left = [seen(module, norm, batch) for batch in passage.batches(block.index, states)]
            look(block.norm2, [linear.name for linear in block.mlp.projections], [one["sum"] for one in left])
            states = [one["output"] for one in left]
            passage.check(block.index, states)
            task.advance(1)
    assert anatomy.final_norm is not None
    look(anatomy.final_norm, (), states)
    return found
