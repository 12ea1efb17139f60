"""Attention maps against transformers' own, a token and head at a time; and models that differ in heads."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.compress.train.losses.objective import Objective, ask, learn_from, total_loss
from edgepress.compress.train.losses.state_terms import AttentionMaps, map_divergence

pytestmark = pytest.mark.chain


CPU = torch.device("cpu")


def batch(*, padded: bool) -> MicroBatch:
    ids = torch.randint(5, 100, (3, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    if padded:
        mask[1, 7:] = 0
    return MicroBatch(0, ids, mask, int(mask.sum()))


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bert"])
def test_maps_are_those_of_the_last_attention(
    make_decoder: Callable[..., Path], make_encoder: Callable[..., Path], tmp_path: Path, model_type: str
) -> None:
    path = make_encoder(tmp_path / "m") if model_type == "bert" else make_decoder(tmp_path / "m", model_type)
    anatomy, asked = WeightSource.open(path).anatomy, batch(padded=model_type == "bert")
    teacher, student = load_model(path), load_model(path)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1.3)
    maps = []
    for model in (student, teacher):
        model.set_attn_implementation("eager")
        with torch.no_grad():
            maps.append(
                model(
                    input_ids=asked.input_ids, attention_mask=asked.attention_mask, output_attentions=True
                ).attentions[-1]
            )
        model.set_attn_implementation("sdpa")
    mine, theirs = maps
    expected = 0.0
    for row, place in asked.attention_mask.nonzero().tolist():
        for head in range(4):
            for key in range(12):
                p, q = (max(float(one[row, head, place, key]), 1e-6) for one in (theirs, mine))
                expected += p * math.log(p / q) / 4
    objective = Objective(((1.0, AttentionMaps(anatomy, anatomy)),))
    answers = ask(objective, teacher, asked, CPU)
    assert total_loss(objective, student, asked, answers, CPU) == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert teacher.config._attn_implementation == "sdpa"
    student.requires_grad_(True)
    learn_from(objective, student, asked, answers, 1.0, CPU)
    assert sum(one.grad is not None for one in student.parameters()) > 5


def test_with_other_heads_the_means_are_compared() -> None:
    generator = torch.Generator().manual_seed(0)
    mine, theirs = (torch.softmax(torch.randn(5, heads, 7, generator=generator), -1) for heads in (2, 4))
    p, q = theirs.mean(1), mine.mean(1)
    torch.testing.assert_close(map_divergence(mine, theirs), (p * (p / q).log()).sum(-1))
    torch.testing.assert_close(map_divergence(mine, mine), torch.zeros(5))
