"""What stands outside the blocks, as a checkpoint stores it and as its exports do, some rows at a time."""

from pathlib import Path

import pytest
import torch
from edgepress.compress.model import skeleton, weights
from edgepress.compress.model.checkpoint.reader import CheckpointReader
from edgepress.compress.model.skeleton import Skeleton
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.compress.numbers.scheme import Scheme
from edgepress.files.read_ahead import Ahead


@pytest.fixture(params=["W8A16-g32", "W4A16_ASYM-g16"])
def source(request: pytest.FixtureRequest, pico_llama: Path, monkeypatch: pytest.MonkeyPatch) -> WeightSource:
    """Of a model whose embedding and head are rounded, in several pieces."""
    for module, rows in ((weights, "_TABLE_ROWS"), (skeleton, "_HEAD_ROWS")):
        monkeypatch.setattr(module, rows, 100)
    opened = WeightSource.open(pico_llama)
    opened.embedding_scheme = Scheme.parse(request.param)
    return opened


def test_a_table_is_rounded_in_pieces_as_it_is_whole(source: WeightSource) -> None:
    name = source.anatomy.embedding
    assert source.embedding_scheme is not None
    want, found = quantize(source.dense(name), source.embedding_scheme), source.table(name)
    assert isinstance(found, QTensor)
    assert torch.equal(found.codes, want.codes) and torch.equal(found.scale, want.scale)
    if want.zero_point is not None and found.zero_point is not None:
        assert torch.equal(found.zero_point, want.zero_point)


def test_embedding_and_head_are_rounded_as_the_table_is(source: WeightSource) -> None:
    model = Skeleton(source, torch.device("cpu"))
    table = source.table(source.anatomy.embedding)
    assert isinstance(table, QTensor)
    ids = torch.tensor([[3, 250, 7]])
    with model.embeddings(rounded=True):
        found = model.submodule(source.anatomy.embedding)(ids)
    assert torch.equal(found[0], table.dequantize()[ids[0]])
    head = source.anatomy.embedding if source.anatomy.tied else source.anatomy.head
    assert head is not None
    rounded = source.table(head)
    assert isinstance(rounded, QTensor)
    states = torch.randn(2, source.anatomy.hidden_size)
    with model.head(rounded=True) as found_head:
        torch.testing.assert_close(found_head.logits(states), states @ rounded.dequantize().T)


THERE_AND_BACK = (0, 1, 2, 2, 1, 0)


def test_blocks_that_a_thread_reads_ahead_have_their_weights(pico_llama: Path) -> None:
    opened = WeightSource.open(pico_llama)
    model, blocks = Skeleton(opened, torch.device("cpu")), opened.anatomy.blocks
    model._ahead = Ahead(model._read_block, len(blocks))  # as on a GPU
    for index in THERE_AND_BACK:
        prefix = blocks[index].prefix
        module = model.fill_block(index)
        assert module is model.submodule(prefix)
        for name, parameter in module.named_parameters():
            assert torch.equal(parameter, opened.tensor(f"{prefix}.{name}"))
        model.free(prefix)


def test_the_system_reads_the_block_that_follows_in_either_direction(
    pico_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected: list[str] = []
    monkeypatch.setattr(CheckpointReader, "expect", lambda self, prefix: expected.append(prefix))
    model = Skeleton(WeightSource.open(pico_llama), torch.device("cpu"))
    for index in THERE_AND_BACK:
        model.fill_block(index)
    assert expected == [f"model.layers.{index}." for index in (1, 2, 1, 0)]
