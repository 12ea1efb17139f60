"""``Term``: one loss of a micro-batch's tokens, and what the teacher is asked for it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...measure.reading import LAST, States
from ...text.micro_batches import MicroBatch

Answers = dict[str, Tensor]


class Term:
    """One loss.

    Attributes:
        name: of the term, and the beginning of its answers' names.
        by_token: whether some tokens of a micro-batch may be looked at without the others.
        needs_teacher: whether the teacher has to look at the micro-batch at all.
        writes: whether the teacher writes its answers, a token at a time.
        student_taps, teacher_taps: the modules whose outputs it reads, as ``read`` takes them, besides the
            last states.
    """

    name: str
    by_token: bool = True
    needs_teacher: bool = True
    writes: bool = False
    student_taps: Mapping[str, str] = {}
    teacher_taps: Mapping[str, str] = {}

    def answers(self, model: nn.Module, states: States, batch: MicroBatch, part: slice) -> Answers:
        """What is kept of the teacher about the tokens ``part``: tensors with one row a token, unless the
        term is not by token.
        """
        raise TypeError(f"{type(self).__name__} does not define answers")

    def losses(self, model: nn.Module, states: States, answers: Answers, batch: MicroBatch) -> Tensor:
        """``[tokens]`` (or fewer, with the same sum): how far the student is from the teacher's answers."""
        raise TypeError(f"{type(self).__name__} does not define losses")

    def parameters(self) -> list[nn.Parameter]:
        """What the term itself learns, and nobody keeps."""
        return []


def padded(states: States, mask: Tensor) -> Tensor:
    """The last states ``[rows, length, hidden]`` float32 of the tokens under ``mask [rows, length]``; zero
    elsewhere.
    """
    rows = states[LAST].to(torch.float32)
    empty = rows.new_zeros(*mask.shape, rows.shape[-1])
    return empty.masked_scatter(mask.bool().unsqueeze(-1), rows)
