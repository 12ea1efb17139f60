"""On-policy micro-batches: drawn from the student, the same each time, and only what it wrote counts."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.compress.train.losses.logit_terms import LogitDivergence
from edgepress.compress.train.losses.objective import Objective, ask, learn_from
from edgepress.compress.train.trainer import OnPolicy, continued

CPU = torch.device("cpu")
IDS = torch.randint(5, 100, (2, 16), generator=torch.Generator().manual_seed(1))
PIECE = MicroBatch(3, IDS, torch.ones_like(IDS), IDS.numel())


@pytest.mark.chain
def test_the_prompt_stays_and_the_rest_is_drawn_as_the_model_says(pico_llama: Path) -> None:
    model = load_model(pico_llama)
    with torch.no_grad():
        chances = torch.softmax(model(IDS[:1, :8]).logits[0, -1], -1)
    seen: Counter[int] = Counter()
    many = IDS[:1].repeat(4000, 1)[:, :9]
    drawn = continued(model, many, 8, torch.Generator().manual_seed(0))
    assert torch.equal(drawn[:, :8], many[:, :8])
    seen.update(drawn[:, 8].tolist())
    likeliest = chances.topk(5).indices.tolist()
    for token in likeliest:
        assert seen[token] / 4000 == pytest.approx(float(chances[token]), abs=0.03)


def test_with_a_cache_it_writes_what_it_would_without(pico_llama: Path) -> None:
    model = load_model(pico_llama)
    found = continued(model, IDS, 4, torch.Generator().manual_seed(0))
    rows, generator = IDS[:, :4], torch.Generator().manual_seed(0)
    while rows.shape[1] < 16:
        with torch.no_grad():
            chances = torch.softmax(model(rows, use_cache=False).logits[:, -1], -1)
        rows = torch.cat([rows, torch.multinomial(chances, 1, generator=generator)], 1)
    assert torch.equal(found, rows)


@pytest.mark.chain
def test_a_share_of_micro_batches_is_rewritten_and_twice_the_same(pico_llama: Path) -> None:
    model = load_model(pico_llama)
    micro_batches = [replace(PIECE, number=number) for number in range(40)]
    writing = OnPolicy(0.5, 0.25, seed=0)
    first, again = ([writing.rewritten(model, batch, 0.3) for batch in micro_batches] for _ in range(2))
    assert all(torch.equal(a.input_ids, b.input_ids) for a, b in zip(first, again, strict=True))
    changed = [batch for batch in first if batch.counted_from]
    assert 10 <= len(changed) <= 30 and all(batch.counted_from == 3 for batch in changed)
    assert [bool(writing.rewritten(model, batch, 0.4).counted_from) for batch in micro_batches] != [
        bool(batch.counted_from) for batch in first
    ]


def test_places_of_the_prompt_do_not_count(pico_llama: Path) -> None:
    teacher, student = load_model(pico_llama), load_model(pico_llama)
    with torch.no_grad():
        student.get_parameter("model.norm.weight").mul_(0.5)
    objective = Objective(((1.0, LogitDivergence("forward_kl", 50, None)),))
    student.requires_grad_(True)
    part = replace(PIECE, counted_from=10)
    found = learn_from(objective, student, part, ask(objective, teacher, part, CPU), 1.0, CPU)
    with torch.no_grad():
        p, q = (torch.log_softmax(one(IDS).logits, -1) for one in (teacher, student))
        top = p.topk(50, -1).indices
        kept = [one.gather(-1, top) for one in (p, q)]
        rest = [(1 - one.exp().sum(-1)).clamp_min(1e-7).log() for one in kept]
        p, q = (torch.cat([a, b.unsqueeze(-1)], -1) for a, b in zip(kept, rest, strict=True))
        expected = (p.exp() * (p - q)).sum(-1)[:, 10:].sum()
    assert found == pytest.approx(float(expected), rel=1e-3)
