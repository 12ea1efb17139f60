"""The loss of labels: against transformers' own head text by text, its gradient, the default objective."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.compress.train.losses.objective import (
    LabelCrossEntropy,
    LabelDivergence,
    Objective,
    ask,
    learn_from,
    objective_for,
    total_loss,
)
from torch import nn

pytestmark = pytest.mark.chain


CPU = torch.device("cpu")
LABELS = ("bad", "fair", "good")
LENGTHS = (20, 7, 1)


def batch() -> MicroBatch:
    ids = torch.randint(5, 100, (3, 20), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(20) < torch.tensor(LENGTHS)[:, None]).long()
    return MicroBatch(0, ids, mask, int(mask.sum()))


def changed(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator)
    return model


def naive(teacher: nn.Module, student: nn.Module, asked: MicroBatch, temperature: float) -> float:
    """The mean over texts, each read alone and without padding, times the tokens."""
    total = 0.0
    for row, length in enumerate(LENGTHS):
        ids = asked.input_ids[row : row + 1, :length]
        with torch.no_grad():
            p, q = (torch.softmax(model(ids).logits[0] / temperature, -1) for model in (teacher, student))
        total += sum(float(a) * math.log(float(a) / float(b)) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / 3 * asked.tokens


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_divergence_of_labels(
    model_type: str, temperature: float, make_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    path, asked = make_encoder(tmp_path, model_type, labels=LABELS), batch()
    anatomy, teacher, student = WeightSource.open(path).anatomy, load_model(path), changed(load_model(path))
    objective = Objective(((1.0, LabelDivergence(anatomy, anatomy, temperature)),))
    answers = ask(objective, teacher, asked, CPU)
    assert answers["label_kl.log_probabilities"].shape == (3, 3)
    found = total_loss(objective, student, asked, answers, CPU)
    assert found == pytest.approx(naive(teacher, student, asked, temperature), rel=1e-3)
    assert total_loss(objective, teacher, asked, answers, CPU) == pytest.approx(0, abs=1e-5)


def test_gradients_are_those_of_the_whole_model(make_encoder: Callable[..., Path], tmp_path: Path) -> None:
    path, asked = make_encoder(tmp_path, labels=LABELS), batch()
    teacher, student = load_model(path), changed(load_model(path))
    objective = objective_for(WeightSource.open(path).anatomy, 8)
    assert [(weight, term.name) for weight, term in objective.terms] == [(1.0, "label_kl"), (1.0, "states")]
    weight = student.get_submodule("bert.encoder.layer.0.output.dense").weight.requires_grad_(True)
    answers = ask(objective, teacher, asked, CPU)
    loss = learn_from(objective, student, asked, answers, 0.5, CPU)
    assert loss == pytest.approx(total_loss(objective, student, asked, answers, CPU), rel=1e-5)
    found, weight.grad = weight.grad, None
    expected = student(asked.input_ids, attention_mask=asked.attention_mask, output_hidden_states=True)
    with torch.no_grad():
        known = teacher(asked.input_ids, attention_mask=asked.attention_mask, output_hidden_states=True)
    p, log_q = known.logits.softmax(-1), expected.logits.log_softmax(-1)
    kl = (p * (p.log() - log_q)).sum(-1).mean() * asked.tokens
    real = asked.attention_mask.bool()
    mine, theirs = expected.hidden_states[-1][real], known.hidden_states[-1][real]
    states = ((mine - theirs).square().sum(-1) / theirs.square().sum(-1)).sum()
    (0.5 * (kl + states)).backward()
    assert weight.grad is not None
    torch.testing.assert_close(found, weight.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("known", [(2, 0, 1), (2, -1, 1), None])
def test_cross_entropy_of_labels(
    known: tuple[int, ...] | None, make_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    path, asked = make_encoder(tmp_path, labels=LABELS), batch()
    if known is not None:
        asked = replace(asked, labels=torch.tensor(known))
    anatomy, student = WeightSource.open(path).anatomy, load_model(path)
    objective = Objective(((1.0, LabelCrossEntropy(anatomy)),))
    answers = ask(objective, student, asked, CPU)
    expected = 0.0
    for row, label in enumerate(known or ()):
        with torch.no_grad():
            logits = student(asked.input_ids[row : row + 1, : LENGTHS[row]]).logits[0]
        expected -= float(logits.log_softmax(-1)[label]) if label >= 0 else 0.0
    found = total_loss(objective, student, asked, answers, CPU)
    assert found == pytest.approx(expected / 3 * asked.tokens, rel=1e-4)
