"""Objectives: exact where nothing is merged, bounds where something is, and gradients in micro-batches."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.compress.train.losses.logit_terms import LogitDivergence
from edgepress.compress.train.losses.objective import Objective, ask, learn_from, objective_for, total_loss
from torch import Tensor, nn

pytestmark = pytest.mark.chain


CPU = torch.device("cpu")


def batch(rows: int = 2, length: int = 70, *, padded: bool = False) -> MicroBatch:
    ids = torch.randint(3, 100, (rows, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    if padded:
        mask[1:, length // 2 :] = 0
    return MicroBatch(0, ids, mask, int(mask.sum()))


def changed(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator)
    return model


def full_kl(teacher: nn.Module, student: nn.Module, asked: MicroBatch) -> Tensor:
    log_p, log_q = (
        torch.log_softmax(model(input_ids=asked.input_ids, use_cache=False).logits, -1)
        for model in (teacher, student)
    )
    return (log_p.exp() * (log_p - log_q)).sum()


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "opt", "phi", "gpt_neox", "gemma2", "qwen3"])
def test_with_every_token_kept_apart_it_is_the_whole_kl(
    make_decoder: Callable[..., Path], tmp_path: Path, model_type: str
) -> None:
    path = make_decoder(tmp_path / "m", model_type)
    teacher, student, asked = load_model(path), changed(load_model(path)), batch()
    objective = objective_for(WeightSource.open(path).anatomy, 10**6)
    answers = ask(objective, teacher, asked, CPU)
    assert {name.rpartition(".")[2] for name in answers} == {"log_probabilities"}
    found = total_loss(objective, student, asked, answers, CPU)
    with torch.no_grad():
        assert found == pytest.approx(float(full_kl(teacher, student, asked)), rel=1e-4)


def test_merging_outcomes_never_raises_it(pico_llama: Path) -> None:
    teacher, student, asked = load_model(pico_llama), changed(load_model(pico_llama)), batch()
    losses = []
    for top_k in (1, 8, 64, 318, 320):
        objective = Objective(((1.0, LogitDivergence("forward_kl", top_k, None)),))
        losses.append(total_loss(objective, student, asked, ask(objective, teacher, asked, CPU), CPU))
    assert losses == sorted(losses) and losses[0] > 0
    objective = Objective(((1.0, LogitDivergence("forward_kl", 8, None)),))
    assert total_loss(objective, teacher, asked, ask(objective, teacher, asked, CPU), CPU) == pytest.approx(
        0, abs=1e-3
    )


def test_learning_in_micro_batches_of_tokens_gives_the_gradient_of_the_whole(pico_llama: Path) -> None:
    teacher, student = load_model(pico_llama), changed(load_model(pico_llama))
    objective, asked = objective_for(WeightSource.open(pico_llama).anatomy, 10**6), batch(3, 70)
    answers = ask(objective, teacher, asked, CPU)
    student.requires_grad_(True)
    learn_from(objective, student, asked, answers, 0.5, CPU)
    found = [parameter.grad.clone() for parameter in student.parameters() if parameter.grad is not None]
    student.zero_grad()
    with torch.no_grad():
        log_p = torch.log_softmax(teacher(input_ids=asked.input_ids, use_cache=False).logits, -1)
    log_q = torch.log_softmax(student(input_ids=asked.input_ids, use_cache=False).logits, -1)
    (0.5 * (log_p.exp() * (log_p - log_q)).sum()).backward()
    expected = [parameter.grad for parameter in student.parameters() if parameter.grad is not None]
    assert len(found) == len(expected) > 10
    for mine, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, reference, rtol=2e-2, atol=2e-3 * float(reference.abs().max()))


def test_padding_has_no_part(pico_bert: Path) -> None:
    teacher, student = load_model(pico_bert), changed(load_model(pico_bert))
    objective, asked = objective_for(WeightSource.open(pico_bert).anatomy, 8), batch(padded=True, length=20)
    answers = ask(objective, teacher, asked, CPU)
    assert answers["states.rows"].shape == (asked.tokens, 64)
    other = MicroBatch(
        0, torch.where(asked.attention_mask.bool(), asked.input_ids, 7), asked.attention_mask, 30
    )
    loss = total_loss(objective, student, asked, answers, CPU)
    assert loss == pytest.approx(total_loss(objective, student, other, answers, CPU), rel=1e-5)
    with torch.no_grad():
        outputs = [
            model(input_ids=asked.input_ids, attention_mask=asked.attention_mask).last_hidden_state
            for model in (teacher, student)
        ]
    mine, theirs = (output[asked.attention_mask.bool()] for output in outputs)
    expected = ((mine - theirs).square().sum(-1) / mine.square().sum(-1)).sum()
    assert loss == pytest.approx(float(expected), rel=1e-4)
