"""Losses on a decoder's next-token distribution.

Against the teacher's (Hinton, Vinyals, Dean 2015, arXiv 1503.02531), over the ``top_k`` outcomes that the
teacher finds likeliest and one more that stands for all the others, so that its answers are small enough to
keep; or against the token that follows.

Divergences are of two distributions, each given as log-probabilities over the same outcomes in the last
dimension. Forward KL spreads the student over all that the teacher does, reverse KL draws it to what the
teacher does most (Gu et al. 2023, MiniLLM, arXiv 2306.08543); Jensen–Shannon lies between them and is bounded
(Agarwal et al. 2023, GKD, arXiv 2306.13649).

``Term``: one loss of a micro-batch's tokens, and what the teacher is asked for it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from ...measure.reading import LAST, States
from ...model.anatomy import LogitForm
from ...text.micro_batches import MicroBatch

Answers = dict[str, Tensor]
_SMALLEST = 1e-7  # the least probability of all outcomes that are not kept apart


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


def forward_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """``KL(teacher ‖ student)`` in nats."""
    return (teacher.exp() * (teacher - student)).sum(-1)


def reverse_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """``KL(student ‖ teacher)`` in nats."""
    return forward_kl(student, teacher)


def jensen_shannon(teacher: Tensor, student: Tensor) -> Tensor:
    """The mean KL of both from their mean, at most ``ln 2``."""
    middle = torch.logaddexp(teacher, student) - math.log(2)
    return 0.5 * (forward_kl(teacher, middle) + forward_kl(student, middle))


def with_rest(log_probabilities: Tensor) -> Tensor:
    """The given outcomes and one more that stands for all others. Merging outcomes never raises any of the
    divergences.
    """
    rest = (1 - log_probabilities.exp().sum(-1, keepdim=True)).clamp_min(_SMALLEST).log()
    return torch.cat([log_probabilities, rest], -1)


Divergence = Literal["forward_kl", "reverse_kl", "jensen_shannon"]
_DIVERGENCES: dict[Divergence, Callable[[Tensor, Tensor], Tensor]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
}


def log_probabilities(
    model: nn.Module,
    rows: Tensor,
    form: LogitForm | None,
    temperature: float = 1.0,
    vocabulary: int | None = None,
) -> Tensor:
    """``[tokens, vocab]`` float32, of the logits divided by ``temperature``; of the first ``vocabulary`` ids
    alone where there is one.
    """
    logits = model.get_output_embeddings()(rows.to(torch.float32))  # type: ignore[operator]
    logits = logits if vocabulary is None else logits[..., :vocabulary]
    logits = logits if form is None else form.of(logits)
    return torch.log_softmax(logits / temperature, -1)


class LogitDivergence(Term):
    """A divergence in nats, times ``temperature²`` so that its gradient does not fade as that rises.

    ``vocabulary`` ids are those that both models have, where one has more.
    """

    def __init__(
        self,
        divergence: Divergence,
        top_k: int,
        form: LogitForm | None,
        temperature: float = 1.0,
        vocabulary: int | None = None,
    ) -> None:
        self.name: str = divergence
        self.between = _DIVERGENCES[divergence]
        self.top_k, self.form, self.temperature = top_k, form, temperature
        self.vocabulary = vocabulary

    def answers(self, model: nn.Module, states: States, batch: MicroBatch, part: slice) -> Answers:
        """``ids [tokens, top_k]`` int32 in any order and their ``log_probabilities``, float32; the rest of 1
        is the tail's mass. Of a whole vocabulary only the latter, in its order.
        """
        found = self._found(model, states, batch)
        if self.top_k >= found.shape[-1]:
            return {"log_probabilities": found}
        top = found.topk(self.top_k, -1, sorted=False)  # sorting a whole vocabulary takes most of the time
        return {"ids": top.indices.to(torch.int32), "log_probabilities": top.values}

    def losses(self, model: nn.Module, states: States, answers: Answers, batch: MicroBatch) -> Tensor:
        mine, theirs = self._found(model, states, batch), answers["log_probabilities"]
        if "ids" in answers:
            mine, theirs = with_rest(mine.gather(-1, answers["ids"].long())), with_rest(theirs)
        return self.temperature**2 * self.between(theirs, mine)

    def _found(self, model: nn.Module, states: States, batch: MicroBatch) -> Tensor:
        return log_probabilities(model, states[LAST], self.form, self.temperature, self.vocabulary)


class CrossEntropy(Term):
    """Minus the log-probability of the token that follows; the last of a row has none."""

    name, needs_teacher = "cross_entropy", False

    def __init__(self, form: LogitForm | None) -> None:
        self.form = form

    def answers(self, model: nn.Module, states: States, batch: MicroBatch, part: slice) -> Answers:
        """``labels [tokens]``: the id that follows, or −1."""
        return {"labels": labels(batch)[part]}

    def losses(self, model: nn.Module, states: States, answers: Answers, batch: MicroBatch) -> Tensor:
        found, following = log_probabilities(model, states[LAST], self.form), answers["labels"]
        chosen = found.gather(-1, following.clamp_min(0).unsqueeze(-1)).squeeze(-1)
        return torch.where(following >= 0, -chosen, 0.0)


def labels(batch: MicroBatch) -> Tensor:
    """``[tokens]``: the id that follows each real token in its row, −1 where none does."""
    following = torch.full_like(batch.input_ids, -1)
    real = batch.attention_mask.bool()
    following[:, :-1] = torch.where(real[:, 1:], batch.input_ids[:, 1:], -1)
    return following[real]
