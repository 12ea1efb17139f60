"""What a student is compared with its teacher by: weighted terms, each a loss of a micro-batch's tokens.

A decoder, that of an encoder–decoder too, by default by the forward KL of its next-token distribution, an
encoder by its last hidden states; a
classifier by these and the KL of its labels, which count alike.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...measure.reading import States, read
from ...model.anatomy import Anatomy
from ...text.micro_batches import MicroBatch
from .label_terms import LabelDivergence
from .logit_terms import Answers, LogitDivergence, Term
from .sequence_terms import AnswerDivergence
from .state_terms import StateDistance

# Of a term: the same all the time, or at the beginning and at the end of learning, with a line between them.
Weight = float | tuple[float, float]

AT_ONCE = 128  # tokens whose logits are held at once: a row is as long as the vocabulary


@dataclass(frozen=True)
class Objective:
    """The sum of ``terms``, each times its weight."""

    terms: tuple[tuple[Weight, Term], ...]

    def weighted(self, done: float) -> Iterator[tuple[float, Term]]:
        """The terms with their weights when the share ``done`` of learning is over."""
        for weight, term in self.terms:
            begin, end = weight if isinstance(weight, tuple) else (weight, weight)
            yield begin + done * (end - begin), term

    @property
    def student_taps(self) -> dict[str, str]:
        """The modules of the student that are read."""
        return {name: path for _, term in self.terms for name, path in term.student_taps.items()}

    @property
    def teacher_taps(self) -> dict[str, str]:
        """The modules of the teacher that are read."""
        return {name: path for _, term in self.terms for name, path in term.teacher_taps.items()}

    def reads_outputs(self, blocks: Collection[str]) -> bool:
        """Whether a term reads the last states, or what ``blocks`` give: not only what is inside of them."""
        return any(set(term.student_taps.values()) <= set(blocks) for _, term in self.terms)

    def parameters(self) -> list[nn.Parameter]:
        """What the terms themselves learn."""
        return [parameter for _, term in self.terms for parameter in term.parameters()]


def objective_for(anatomy: Anatomy, top_k: int) -> Objective:
    """The objective for a model of this kind."""
    if anatomy.labels_texts:
        return Objective(((1.0, LabelDivergence(anatomy, anatomy)), (1.0, StateDistance())))
    if anatomy.kind == "encoder":
        return Objective(((1.0, StateDistance()),))
    kind = AnswerDivergence if anatomy.kind == "encoder_decoder" else LogitDivergence
    return Objective(((1.0, kind("forward_kl", top_k, anatomy.logit_form)),))


def _parts(term: Term, tokens: int) -> Iterator[slice]:
    if not term.by_token:
        yield slice(0, tokens)
        return
    for start in range(0, tokens, AT_ONCE):
        yield slice(start, start + AT_ONCE)


def ask(objective: Objective, teacher: nn.Module, batch: MicroBatch, device: torch.device) -> Answers:
    """The teacher's answers to a micro-batch."""
    looks = any(term.needs_teacher for _, term in objective.terms)
    with torch.no_grad():
        states = read(teacher, batch, device, objective.teacher_taps) if looks else {}
    return answers_from(objective, teacher, states, batch)


def answers_from(objective: Objective, teacher: nn.Module, states: States, batch: MicroBatch) -> Answers:
    """The answers of ``teacher``, whose ``states`` of the micro-batch are known."""
    found: Answers = {}
    with torch.no_grad():
        for _, term in objective.terms:
            parts = [
                term.answers(teacher, _some(states, part), batch, part) for part in _parts(term, batch.tokens)
            ]
            found |= {
                f"{term.name}.{name}": torch.cat([part[name] for part in parts]).cpu() for name in parts[0]
            }
    return found


def _some(states: Mapping[str, Tensor], part: slice) -> States:
    return {name: rows[part] for name, rows in states.items()}


def _known(term: Term, answers: Answers, part: slice, device: torch.device) -> Answers:
    """The answers to ``term`` about the tokens ``part``."""
    mine = {
        name.removeprefix(f"{term.name}."): tensor
        for name, tensor in answers.items()
        if name.startswith(f"{term.name}.")
    }
    return {name: (tensor[part] if term.by_token else tensor).to(device) for name, tensor in mine.items()}


def learn_from(
    objective: Objective,
    model: nn.Module,
    batch: MicroBatch,
    answers: Answers,
    share: float,
    device: torch.device,
    done: float = 1.0,
) -> float:
    """Add the gradient of ``share`` times the summed loss of a micro-batch, with the weights at ``done``;
    returns the sum.

    The logits of a few tokens exist at a time: their gradients are gathered at the states that were read and
    go back through the model once. Terms are computed in float32 whatever the model computes in.
    """
    states, total = read(model, batch, device, objective.student_taps), 0.0
    counts = batch.counts().to(device)
    entrance = {name: rows.detach().requires_grad_(True) for name, rows in states.items()}
    with torch.autocast(device.type, enabled=False):
        for weight, term in objective.weighted(done):
            for part in _parts(term, batch.tokens):
                known = _known(term, answers, part, device)
                losses = term.losses(model, _some(entrance, part), known, batch)
                loss = weight * (losses * counts[part] if term.by_token else losses).sum()
                (loss * share).backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
    touched = [name for name, rows in entrance.items() if rows.grad is not None]
    torch.autograd.backward([states[name] for name in touched], [entrance[name].grad for name in touched])
    return total


def total_loss(
    objective: Objective, model: nn.Module, batch: MicroBatch, answers: Answers, device: torch.device
) -> float:
    """The summed loss of a micro-batch with the weights at the end, without learning."""
    with torch.no_grad():
        states = read(model, batch, device, objective.student_taps)
        parts = [
            weight
            * float(term.losses(model, _some(states, part), _known(term, answers, part, device), batch).sum())
            for weight, term in objective.weighted(1.0)
            for part in _parts(term, batch.tokens)
        ]
    return sum(parts)
