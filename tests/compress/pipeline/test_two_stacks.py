"""Encoder–decoders in the sweep: what streams through both stacks is what transformers computes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.skeleton import Skeleton
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.pipeline.block_inputs import Stream
from edgepress.compress.pipeline.capture import behind_start
from edgepress.compress.pipeline.collect import Side, collect
from edgepress.compress.pipeline.forward import BatchSplitter
from edgepress.compress.pipeline.last_states import last_states
from edgepress.compress.text.token_batch import TokenBatch
from edgepress.hashed_tree import hash_tree
from edgepress.terminal import Silent
from torch import Tensor

from ...conftest import sentences
from ..conftest import Watched

pytestmark = pytest.mark.chain

Make = Callable[..., Path]
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("t5", {}),
    ("t5", {"feed_forward_proj": "gated-gelu", "own_head": True}),
    ("mt5", {"feed_forward_proj": "gated-silu"}),
    ("bart", {"activation_function": "relu"}),
    ("marian", {"activation_function": "swish", "scale_embedding": False}),
]
CPU = torch.device("cpu")


def rows(lengths: Sequence[int], seed: int) -> TokenBatch:
    ids = torch.randint(3, 30, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros_like(ids)
    for row, length in zip(mask, lengths, strict=True):
        row[:length] = 1
    return TokenBatch(ids, mask)


def paired(read: Sequence[int], written: Sequence[int]) -> TokenBatch:
    batch = rows(read, 1)
    return TokenBatch(batch.input_ids, batch.attention_mask, None, rows(written, 2))


def theirs(model: Any, batch: TokenBatch) -> Tensor:
    """Logits of the real tokens that are written."""
    from transformers import AutoModelForSeq2SeqLM

    plain = AutoModelForSeq2SeqLM.from_pretrained(model).eval()
    written, start = batch.written(), plain.config.decoder_start_token_id
    with torch.no_grad():
        logits: Tensor = plain(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            decoder_input_ids=behind_start(written.input_ids, start),
        ).logits
    return logits[written.attention_mask.bool()]


BATCHES = [
    rows([1], 0),
    rows([5, 3], 0),
    rows([40, 7, 40], 0),
    paired([150, 31], [9, 17]),
    paired([4, 5], [150, 1]),
]


@pytest.mark.parametrize(("family", "changes"), FORMS)
def test_logits_are_those_of_transformers(
    family: str, changes: dict[str, Any], make_encoder_decoder: Make, tmp_path: Path
) -> None:
    model = make_encoder_decoder(tmp_path / "m", family, **changes)
    skeleton = Skeleton(WeightSource.open(model), CPU)
    for number, batch in enumerate(BATCHES):
        states = last_states(skeleton, [batch], tmp_path / f"{number}", Silent(), "reading")
        with skeleton.head() as head:
            found, want = head(states), theirs(model, batch)
        assert found.shape == want.shape
        assert float((found - want).abs().max()) < 1e-5 * max(1.0, float(want.abs().max()))


def test_statistics_of_what_the_decoder_reads_are_of_the_encoder_s_tokens(
    make_encoder_decoder: Make, tmp_path: Path
) -> None:
    path = make_encoder_decoder(tmp_path / "m")
    skeleton, batch = Skeleton(WeightSource.open(path), CPU), paired([9, 4], [3, 6])
    stream = Stream.capture(tmp_path / "s", skeleton, [batch])
    for block in skeleton.anatomy.blocks[:3]:
        stream.advance(block.index, skeleton.fill(block.prefix), BatchSplitter(print))
    block = skeleton.anatomy.blocks[3]
    assert block.cross is not None
    module = skeleton.fill(block.prefix)
    linears = {linear.name: skeleton.submodule(linear.name) for linear in block.linears()}
    side = Side(module, linears, lambda: stream.batches(3))
    names = [block.attention.q.name, block.cross.q.name, block.cross.k.name, block.mlp.up.name]
    found = collect(side, None, block, dict.fromkeys(names, ("gram",)), BatchSplitter(print))
    whole = load_model(path)
    with torch.no_grad():
        states = whole.encoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask)[0]
    read = states[batch.attention_mask.bool()]
    assert torch.allclose(found[block.cross.k.name]["gram"], read.T @ read / len(read), atol=1e-4)
    assert found[block.cross.v.name]["gram"] is found[block.cross.k.name]["gram"]
    assert not torch.allclose(found[block.cross.q.name]["gram"], found[block.cross.k.name]["gram"], atol=0.1)


def test_what_left_the_encoder_is_kept_beside_the_decoder_s_states(
    make_encoder_decoder: Make, tmp_path: Path
) -> None:
    path = make_encoder_decoder(tmp_path / "m")
    skeleton, batch = Skeleton(WeightSource.open(path), CPU), paired([9, 4], [3, 6])
    stream = Stream.capture(tmp_path / "s", skeleton, [batch])
    written = load_model(path).shared(behind_start(batch.written().input_ids, 0))
    for block in skeleton.anatomy.blocks[:3]:
        stream.advance(block.index, skeleton.fill(block.prefix), BatchSplitter(print))
    (entering,), (left,) = stream.batches(3), stream.outputs(2)
    assert torch.equal(entering.hidden, written)
    assert left.hidden.shape == (2, 9, 32)
    assert left.mask is not None
    assert torch.equal(left.mask, batch.attention_mask.bool())
    assert entering.mask is not None
    assert torch.equal(entering.mask, batch.written().attention_mask.bool())


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of a text and what is to be written of it."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    texts = sentences(48, seed=4)
    found = [{"text": text, "target": target} for text, target in zip(texts[::2], texts[1::2], strict=True)]
    path.write_text("\n".join(map(json.dumps, found)))
    return path


@pytest.mark.parametrize(("family", "units"), [("t5", 1), ("bart", 3), ("t5", 4)])
def test_a_killed_run_goes_on_in_either_stack_with_the_same_bytes(
    family: str, units: int, make_encoder_decoder: Make, pairs: Path, tmp_path: Path, watched: Watched
) -> None:
    model = str(make_encoder_decoder(tmp_path / "m", family))
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: r\npasses: [{pass: gptq, scheme: W3A16-g16, correction: 1}]\n")
    command: dict[str, Any] = {"recipe": str(recipe), "calibration": str(pairs), "samples": 6, "length": 16}
    whole = compress_model(model, output=tmp_path / "whole", **command)
    with watched("compressing blocks", kill_at=1 + units):
        compress_model(model, output=tmp_path / "o", **command)
    with watched("compressing blocks") as done:
        out = compress_model(model, output=tmp_path / "o", **command)
    assert done == [units, *[1] * (5 - units)]
    assert hash_tree(out) == hash_tree(whole)
