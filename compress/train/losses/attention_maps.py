"""Attention maps: to which tokens each token looks, in the last attention of both models.

MiniLM (Wang et al. 2020, arXiv 2002.10957): the KL of the student's attention distribution from the
teacher's, a token and head at a time. Where the two have different numbers of heads, their means over heads
are compared.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...measure.reading import MAPS, States
from ...model.anatomy import Anatomy
from ...model.module_names import module_name
from ...text.micro_batches import MicroBatch
from .divergences import forward_kl

# Below this a probability is rounding: neither model is asked to be surer.
_SMALLEST = 1e-6


class AttentionMaps:
    """The maps of one block in each model: by ``block`` of the anatomies, −1 the last."""

    name, by_token, asks = "attention", True, True

    def __init__(self, student: Anatomy, teacher: Anatomy, block: int = -1) -> None:
        mine, theirs = (anatomy.blocks[block].attention for anatomy in (student, teacher))
        self.heard = {f"{MAPS}0": module_name(student, mine.module)}
        self.asked = {f"{MAPS}0": module_name(teacher, theirs.module)}

    def answers(self, model: nn.Module, states: States, batch: MicroBatch, part: slice) -> dict[str, Tensor]:
        """``maps [tokens, heads, keys]`` float32: each token's attention over the places of its row."""
        return {"maps": states[f"{MAPS}0"].to(torch.float32)}

    def losses(
        self, model: nn.Module, states: States, answers: dict[str, Tensor], batch: MicroBatch
    ) -> Tensor:
        return map_divergence(states[f"{MAPS}0"].to(torch.float32), answers["maps"])

    def parameters(self) -> list[nn.Parameter]:
        return []


def map_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """``[tokens]``: KL of maps ``[tokens, heads, keys]``, the mean over heads."""
    if student.shape[1] != teacher.shape[1]:
        student, teacher = student.mean(1, keepdim=True), teacher.mean(1, keepdim=True)
    logarithms = (maps.clamp_min(_SMALLEST).log() for maps in (teacher, student))
    return forward_kl(*logarithms).mean(-1)
