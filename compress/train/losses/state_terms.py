"""Losses on states: the last ones, those between the blocks, and the embedding that an encoder is used for.

States between the blocks as in FitNets (Romero et al. 2014, arXiv 1412.6550) and TinyBERT (Jiao et al. 2019,
arXiv 1909.10351): where the student is narrower, a projection that is thrown away afterwards learns to lift
its states to the teacher's width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...measure.reading import LAST, States
from ...model.pooling import Pooling
from ...text.micro_batches import MicroBatch
from .term import Answers, Term, padded


def relative_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """``‖student − teacher‖² / ‖teacher‖²`` of each row ``[tokens, width]``."""
    teacher = teacher.to(torch.float32)
    squared = (student.to(torch.float32) - teacher).square().sum(-1)
    return squared / teacher.square().sum(-1).clamp_min(1e-6)


class StateDistance(Term):
    """The relative squared distance of the tokens' last hidden states."""

    name = "states"

    def answers(self, model: nn.Module, states: States, batch: MicroBatch, part: slice) -> Answers:
        """``rows [tokens, hidden]`` float32."""
        return {"rows": states[LAST].to(torch.float32)}

    def losses(self, model: nn.Module, states: States, answers: Answers, batch: MicroBatch) -> Tensor:
        return relative_distance(states[LAST], answers["rows"])


class HiddenDistance(Term):
    """The mean relative squared distance of states between blocks.

    ``pairs`` are paths of a student's and of a teacher's block; ``widths`` are those of their states, student
    first.
    """

    name = "hidden"

    def __init__(
        self, pairs: Mapping[str, str], widths: tuple[int, int], seed: int, device: torch.device
    ) -> None:
        self.student_taps = {f"hidden.{index}": mine for index, mine in enumerate(pairs)}
        self.teacher_taps = {f"hidden.{index}": theirs for index, theirs in enumerate(pairs.values())}
        self.projections: dict[str, nn.Parameter] = {}
        narrow, wide = widths
        if narrow != wide:
            generator = torch.Generator().manual_seed(seed)
            for name in self.student_taps:
                start = torch.randn(wide, narrow, generator=generator) * narrow**-0.5
                self.projections[name] = nn.Parameter(start.to(device))

    def answers(self, model: nn.Module, states: States, batch: MicroBatch, part: slice) -> Answers:
        """``hidden.N [tokens, hidden]`` float32 after each of the teacher's blocks."""
        return {name: states[name].to(torch.float32) for name in self.teacher_taps}

    def losses(self, model: nn.Module, states: States, answers: Answers, batch: MicroBatch) -> Tensor:
        distances = []
        for name in self.student_taps:
            mine = states[name].to(torch.float32)
            if name in self.projections:
                mine = mine @ self.projections[name].T
            distances.append(relative_distance(mine, answers[name]))
        return torch.stack(distances).mean(0)

    def parameters(self) -> list[nn.Parameter]:
        return list(self.projections.values())


class EmbeddingDistance(Term):
    """How far each row's embedding is from the teacher's: 1 − cosine, or the relative squared distance.

    Every row of a micro-batch counts alike, and all of them together as the micro-batch's tokens.
    """

    by_token = False

    def __init__(self, pooling: Pooling, *, cosine: bool) -> None:
        self.name = "cosine" if cosine else "embedding"
        self.pooling, self.cosine = pooling, cosine

    def _embeddings(self, states: States, batch: MicroBatch) -> Tensor:
        mask = batch.attention_mask.to(states[LAST].device)
        return self.pooling.apply(padded(states, mask), mask)

    def answers(self, model: nn.Module, states: States, batch: MicroBatch, part: slice) -> Answers:
        """``embeddings [rows, hidden]`` float32."""
        return {"embeddings": self._embeddings(states, batch)}

    def losses(self, model: nn.Module, states: States, answers: Answers, batch: MicroBatch) -> Tensor:
        mine, theirs = self._embeddings(states, batch), answers["embeddings"]
        if self.cosine:
            distance = 1 - torch.nn.functional.cosine_similarity(mine, theirs, dim=-1)
        else:
            distance = relative_distance(mine, theirs)
        return distance * (batch.tokens / len(distance))
