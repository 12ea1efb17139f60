"""The floor of GPTQ's time: its arithmetic, counted by hand, and a rate that is one."""

from pathlib import Path

import pytest
from edgepress.benchmarks.lab.peers.floor import Floor, floor, forward_work, gram_work
from edgepress.compress.model.weights import WeightSource


def test_work_is_that_of_every_linear_attention_and_gram(pico_llama: Path) -> None:
    anatomy = WeightSource.open(pico_llama).anatomy
    tokens, length = 6, 3
    linears = sum(tokens * one.in_features * one.out_features for one in anatomy.linears())
    attention = 0
    for block in anatomy.blocks:
        for _sequence in range(tokens // length):
            for position in range(1, length + 1):
                attention += 2 * position * block.attention.heads * block.attention.head_dim
    # Causal attention is counted as half of the square, which leaves out half of the diagonal.
    diagonal = tokens * sum(block.attention.heads * block.attention.head_dim for block in anatomy.blocks)
    assert forward_work(anatomy, tokens, length) == linears + attention - diagonal
    grams = 0.0
    for block in anatomy.blocks:
        attention_part, mlp = block.attention, block.mlp
        for reader in (attention_part.q, attention_part.o, *mlp.projections[:1], mlp.down):
            grams += tokens * reader.in_features**2 / 2
    assert gram_work(anatomy, tokens) == grams


def test_seconds_follow_from_the_rate(pico_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Floor(forward=6e9, grams=2e9, rate=4e9).seconds == 2
    monkeypatch.setattr("edgepress.benchmarks.lab.peers.floor._SECONDS", 0.01)
    found = floor(WeightSource.open(pico_llama).anatomy, 64, 16, 32)
    assert found.rate > 1e6
    assert found.seconds > 0
    assert "CPU seconds" in found.sentence()
