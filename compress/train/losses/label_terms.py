"""The losses of a classifier of texts: how far its labels are from the teacher's, or from those of the rows.

Hinton, Vinyals, Dean 2015, arXiv 1503.02531. The head that reads the states stays as it is; what stands
before it learns. Every row of a micro-batch counts alike, and all of them together as the micro-batch's
tokens.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, relu

from ...measure.reading import LAST, States
from ...model.anatomy import Anatomy, Classifier, module_name
from ...text.micro_batches import MicroBatch
from .logit_terms import Answers, Term, forward_kl

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": relu, "tanh": torch.tanh, "gelu": gelu}


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
