"""The terms of an objective: each against loops over tokens; gradients gathered at every kind of state."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.measure.reading import read
from edgepress.compress.model.pooling import Pooling
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.compress.train.losses.logit_terms import CrossEntropy, LogitDivergence, Term, labels
from edgepress.compress.train.losses.objective import Objective, ask, learn_from, total_loss
from edgepress.compress.train.losses.state_terms import (
    EmbeddingDistance,
    HiddenDistance,
    Relations,
    StateDistance,
)
from torch import Tensor, nn

CPU = torch.device("cpu")


def batch(*, padded: bool = False, length: int = 20) -> MicroBatch:
    ids = torch.randint(5, 100, (3, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    if padded:
        mask[1, length // 2 :] = 0
        mask[2, length // 3 :] = 0
    return MicroBatch(0, ids, mask, int(mask.sum()))


def changed(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator)
    return model


def loss_of(
    term: Term, teacher: nn.Module, student: nn.Module, asked: MicroBatch, weight: float = 1.0
) -> float:
    objective = Objective(((weight, term),))
    return total_loss(objective, student, asked, ask(objective, teacher, asked, CPU), CPU)


def logits_of(model: nn.Module, asked: MicroBatch) -> Tensor:
    with torch.no_grad():
        return model(input_ids=asked.input_ids, use_cache=False).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jensen_shannon"])
def test_divergences_of_logits(pico_llama: Path, divergence: str, temperature: float) -> None:
    teacher, student, asked = load_model(pico_llama), changed(load_model(pico_llama)), batch()
    expected = 0.0
    p, q = (torch.softmax(logits_of(model, asked) / temperature, -1) for model in (teacher, student))
    middle = (p + q) / 2
    kl = {
        "forward_kl": (p * (p / q).log()).sum(),
        "reverse_kl": (q * (q / p).log()).sum(),
        "jensen_shannon": 0.5 * (p * (p / middle).log()).sum() + 0.5 * (q * (q / middle).log()).sum(),
    }
    expected = temperature**2 * float(kl[divergence])
    term = LogitDivergence(divergence, 319, None, temperature)  # type: ignore[arg-type]
    assert loss_of(term, teacher, student, asked) == pytest.approx(expected, rel=5e-3)
    assert loss_of(term, teacher, student, asked, 0.5) == pytest.approx(expected / 2, rel=5e-3)


def test_cross_entropy_is_of_the_token_that_follows(pico_llama: Path) -> None:
    student, asked = load_model(pico_llama), batch()
    logits, expected = logits_of(student, asked), 0.0
    for row in range(3):
        for place in range(19):
            probabilities = torch.softmax(logits[row, place], -1)
            expected -= math.log(float(probabilities[asked.input_ids[row, place + 1]]))
    assert loss_of(CrossEntropy(None), student, student, asked) == pytest.approx(expected, rel=1e-4)


def test_labels_stop_at_padding() -> None:
    asked = batch(padded=True, length=6)
    expected = []
    for row, real in enumerate(asked.attention_mask.sum(1).tolist()):
        expected += [int(asked.input_ids[row, place + 1]) for place in range(real - 1)] + [-1]
    assert labels(asked).tolist() == expected


@pytest.mark.parametrize("mode", ["mean", "cls"])
@pytest.mark.parametrize("cosine", [True, False])
def test_embeddings_are_pooled_and_compared_row_by_row(pico_bert: Path, mode: str, cosine: bool) -> None:
    teacher, student = load_model(pico_bert), changed(load_model(pico_bert))
    asked, expected = batch(padded=True), 0.0
    for row, real in enumerate(asked.attention_mask.sum(1).tolist()):
        vectors = []
        for model in (student, teacher):
            with torch.no_grad():
                states = model(input_ids=asked.input_ids[row : row + 1, :real]).last_hidden_state[0]
            vectors.append(states[0] if mode == "cls" else states.mean(0))
        mine, theirs = vectors
        if cosine:
            expected += 1 - float(mine @ theirs / (mine.norm() * theirs.norm()))
        else:
            expected += float((mine - theirs).square().sum() / theirs.square().sum())
    term = EmbeddingDistance(Pooling(mode, False, None), cosine=cosine)  # type: ignore[arg-type]
    found = loss_of(term, teacher, student, asked)
    assert found == pytest.approx(expected * asked.tokens / 3, rel=1e-3)


@pytest.mark.chain
@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gpt_neox", "bert"])
@pytest.mark.parametrize("heads", [2, 8])
def test_relations_are_those_of_queries_keys_and_values(
    make_decoder: Callable[..., Path],
    make_encoder: Callable[..., Path],
    tmp_path: Path,
    model_type: str,
    heads: int,
) -> None:
    path = make_encoder(tmp_path / "m") if model_type == "bert" else make_decoder(tmp_path / "m", model_type)
    anatomy = WeightSource.open(path).anatomy
    teacher, student = load_model(path), changed(load_model(path))
    asked = batch(padded=model_type == "bert")
    term = Relations(anatomy, anatomy, heads)
    states = [read(model, asked, CPU, term.student_taps) for model in (student, teacher)]
    attention, start, expected = anatomy.blocks[-1].attention, 0, 0.0
    for real in asked.attention_mask.sum(1).tolist():
        for kind in range(3):
            relations = []
            for one in states:
                if attention.qkv is None:
                    rows = one[f"relations.{kind}"]
                else:
                    order = attention.row_order() or list(range(one["relations.0"].shape[1]))
                    width = len(order) // 3
                    rows = one["relations.0"][:, order[kind * width : (kind + 1) * width]]
                rows = rows[start : start + real].detach()
                size = rows.shape[1] // heads
                cut = [rows[:, head * size : (head + 1) * size] for head in range(heads)]
                relations.append([torch.softmax(part @ part.T / math.sqrt(size), -1) for part in cut])
            for mine, theirs in zip(*relations, strict=True):
                expected += float((theirs * (theirs / mine).log()).sum()) / (3 * heads)
        start += real
    assert loss_of(term, teacher, student, asked) == pytest.approx(expected, rel=1e-3)
    assert loss_of(term, teacher, teacher, asked) == pytest.approx(0, abs=1e-4)


@pytest.mark.chain
def test_hidden_states_are_lifted_where_widths_differ(
    make_decoder: Callable[..., Path], pico_llama: Path, tmp_path: Path
) -> None:
    narrow = make_decoder(tmp_path / "m", hidden_size=32, num_hidden_layers=2)
    teacher, student, asked = load_model(pico_llama), load_model(narrow), batch()
    pairs = {"model.layers.0": "model.layers.1", "model.layers.1": "model.layers.2"}
    term = HiddenDistance(pairs, (32, 64), 0, CPU)
    with torch.no_grad():
        mine = student(asked.input_ids, output_hidden_states=True, use_cache=False).hidden_states
        theirs = teacher(asked.input_ids, output_hidden_states=True, use_cache=False).hidden_states
        lifted = mine[1] @ term.projections["hidden.0"].T
        first = (lifted - theirs[2]).square().sum(-1) / theirs[2].square().sum(-1)
    objective = Objective(((1.0, term),))
    answers = ask(objective, teacher, asked, CPU)
    states = read(student, asked, CPU, term.student_taps)
    known = {name.removeprefix("hidden."): tensor for name, tensor in answers.items()}
    both = HiddenDistance({"model.layers.0": "model.layers.1"}, (32, 64), 0, CPU)
    found = both.losses(student, states, known, asked)
    torch.testing.assert_close(found, first.flatten(), rtol=1e-4, atol=1e-5)
    student.requires_grad_(True)
    learn_from(objective, student, asked, answers, 1.0, CPU)
    assert all(parameter.grad is not None for parameter in objective.parameters())


@pytest.mark.chain
@pytest.mark.parametrize(("done", "weight"), [(0.0, 2.0), (0.25, 1.5), (1.0, 0.0)])
def test_weights_move_in_a_line(done: float, weight: float, pico_bert: Path) -> None:
    teacher, asked = load_model(pico_bert), batch(padded=True, length=90)
    embedding = EmbeddingDistance(Pooling("mean", True, None), cosine=True)
    found, expected = (changed(load_model(pico_bert)).requires_grad_(True) for _ in range(2))
    moving = Objective((((2.0, 0.0), StateDistance()), (1.0, embedding)))
    fixed = Objective(((weight, StateDistance()), (1.0, embedding)))
    answers = ask(moving, teacher, asked, CPU)
    loss = learn_from(moving, found, asked, answers, 1.0, CPU, done)
    assert loss == pytest.approx(learn_from(fixed, expected, asked, answers, 1.0, CPU))
    for mine, theirs in zip(found.parameters(), expected.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None)
        if mine.grad is not None and theirs.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad)
    if done == 1:
        assert total_loss(moving, found, asked, answers, CPU) == pytest.approx(loss)


@pytest.mark.chain
def test_gradients_gathered_at_the_states_are_those_of_the_whole(pico_bert: Path) -> None:
    anatomy = WeightSource.open(pico_bert).anatomy
    teacher, asked = load_model(pico_bert), batch(padded=True, length=90)
    pairs = {f"encoder.layer.{index}": f"encoder.layer.{index}" for index in range(2)}
    terms: tuple[tuple[float, Term], ...] = (
        (0.5, StateDistance()),
        (2.0, HiddenDistance(pairs, (64, 64), 0, CPU)),
        (1.5, Relations(anatomy, anatomy, 4)),
        (3.0, EmbeddingDistance(Pooling("mean", True, None), cosine=True)),
    )
    objective = Objective(terms)
    answers = ask(objective, teacher, asked, CPU)
    found, expected = (changed(load_model(pico_bert)).requires_grad_(True) for _ in range(2))
    total = learn_from(objective, found, asked, answers, 0.25, CPU)
    states = read(expected, asked, CPU, objective.student_taps)
    whole = torch.zeros(())
    for weight, term in terms:
        mine = {
            name.removeprefix(f"{term.name}."): tensor
            for name, tensor in answers.items()
            if name.startswith(f"{term.name}.")
        }
        whole = whole + weight * term.losses(expected, states, mine, asked).sum()
    (0.25 * whole).backward()
    assert total == pytest.approx(float(whole.detach()), rel=1e-5)
    pairs_of = zip(found.parameters(), expected.parameters(), strict=True)
    compared = [(one.grad, other.grad) for one, other in pairs_of if other.grad is not None]
    assert len(compared) > 20
    for one, other in compared:
        assert one is not None
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * float(other.abs().max()) + 1e-8)


def test_terms_are_computed_in_float32_whatever_the_model_computes_in(pico_bert: Path) -> None:
    class Watching(StateDistance):
        seen: bool | None = None

        def losses(self, *arguments: Any) -> Tensor:
            Watching.seen = torch.is_autocast_enabled("cpu")
            return super().losses(*arguments)

    model, asked = load_model(pico_bert), batch()
    objective = Objective(((1.0, Watching()),))
    answers = ask(objective, model, asked, CPU)
    with torch.autocast("cpu", torch.bfloat16):
        learn_from(objective, model.requires_grad_(True), asked, answers, 1.0, CPU)
    assert Watching.seen is False
