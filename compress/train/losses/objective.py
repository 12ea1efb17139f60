"""What a student is compared with its teacher by: weighted terms, each a loss of a micro-batch's tokens.

A decoder, that of an encoder–decoder too, by default by the forward KL of its next-token distribution, an
encoder by its last hidden states; a
classifier by these and the KL of its labels, which count alike.

The losses of a classifier of texts: how far its labels are from the teacher's, or from those of the rows.

Hinton, Vinyals, Dean 2015, arXiv 1503.02531. The head that reads the states stays as it is; what stands
before it learns. Every row of a micro-batch counts alike, and all of them together as the micro-batch's
tokens.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, relu

from ...measure.reading import LAST, States, read
from ...model.anatomy import Anatomy, Classifier, module_name
from ...text.micro_batches import MicroBatch
from .logit_terms import Answers, LogitDivergence, Term, forward_kl
from .sequence_terms import AnswerDivergence
from .state_terms import StateDistance

# Of a term: the same all the time, or at the beginning and at the end of learning, with a line between them.
Weight = float | tuple[float, float]
AT_ONCE = 128  # tokens whose logits are held at once: a row is as long as the vocabulary
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": relu, "tanh": torch.tanh, "gelu": gelu}


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


class LabelDivergence(Term):
    """The KL divergence in nats of each row's labels from the teacher's, times ``temperature²``.

    ``student`` and ``teacher`` are classifiers of the same labels.
    """

    name, by_token = "label_kl", False

    def __init__(self, student: Anatomy, teacher: Anatomy, temperature: float = 1.0) -> None:
        self.temperature = temperature
        self._student, self._teacher = student, teacher

    def answers(self, model: nn.Module, states: States, batch: MicroBatch, part: slice) -> Answers:
        """``log_probabilities [rows, labels]`` float32."""
        return {"log_probabilities": self._found(model, self._teacher, states, batch)}

    def losses(self, model: nn.Module, states: States, answers: Answers, batch: MicroBatch) -> Tensor:
        mine = self._found(model, self._student, states, batch)
        distance = forward_kl(answers["log_probabilities"], mine).reshape(len(mine), -1).sum(-1)
        return self.temperature**2 * distance * (batch.tokens / len(distance))

    def _found(self, model: nn.Module, anatomy: Anatomy, states: States, batch: MicroBatch) -> Tensor:
        """``[rows, labels]``, or ``[rows, labels, 2]`` where each label holds or not."""
        found = _label_logits(model, anatomy, states, batch) / self.temperature
        if anatomy.classifier is not None and anatomy.classifier.several:
            found = found.unsqueeze(-1)
        if found.shape[-1] == 1:  # a reranker: that the two texts go together, and that they do not
            found = torch.cat([found, torch.zeros_like(found)], -1)
        return found.log_softmax(-1)


class LabelCrossEntropy(Term):
    """Minus the log-probability of the label that a row of the text has; rows without one have no loss."""

    name, by_token, needs_teacher = "label_cross_entropy", False, False

    def __init__(self, student: Anatomy) -> None:
        self._student = student

    def answers(self, model: nn.Module, states: States, batch: MicroBatch, part: slice) -> Answers:
        """``labels [rows]``: the place of the row's label, or −1."""
        rows = batch.attention_mask.any(1)
        labels = torch.full_like(batch.attention_mask[:, 0], -1) if batch.labels is None else batch.labels
        return {"labels": labels[rows]}

    def losses(self, model: nn.Module, states: States, answers: Answers, batch: MicroBatch) -> Tensor:
        logits, labels = _label_logits(model, self._student, states, batch), answers["labels"]
        lost = cross_entropy(logits, labels, ignore_index=-1, reduction="none")
        return lost * (batch.tokens / len(lost))


def _label_logits(model: nn.Module, anatomy: Anatomy, states: States, batch: MicroBatch) -> Tensor:
    """``[rows, labels]`` float32, of the rows that have a token."""
    head = anatomy.classifier
    assert head is not None
    rows, counts = states[LAST].float(), batch.attention_mask.sum(1).to(states[LAST].device)
    if head.pooling == "first":
        return _logits(model, anatomy, head, rows[(counts.cumsum(0) - counts)[counts > 0]])
    texts = torch.split(rows, counts[counts > 0].tolist())
    if head.pooling == "late":
        return torch.stack([_logits(model, anatomy, head, text).mean(0) for text in texts])
    if head.pooling == "first_and_mean":
        both = [torch.cat([text[0], text[1:].mean(0)]) for text in texts]
        return _logits(model, anatomy, head, torch.stack(both))
    return _logits(model, anatomy, head, torch.stack([text.mean(0) for text in texts]))


def _logits(model: nn.Module, anatomy: Anatomy, head: Classifier, rows: Tensor) -> Tensor:
    if head.dense is None:
        plain: Tensor = model.get_submodule(module_name(anatomy, head.out))(rows)
        return plain
    names = (head.dense, head.out, *([] if head.norm is None else [head.norm.name]))
    dense, out, *norm = (model.get_submodule(module_name(anatomy, name)) for name in names)
    middle = _ACTIVATIONS[head.activation](dense(rows))
    logits: Tensor = out(norm[0](middle) if norm else middle)
    return logits
