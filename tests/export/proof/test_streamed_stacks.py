"""An encoder, one block of which is in memory at a time, computes what the whole model does; and a fault in
one block of its graph is found, and named by the block.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.benchmarks.lab.same_bytes.pico_embedders import save_embedder
from edgepress.compress.api import compress_model
from edgepress.compress.model.block_anatomy import BlockAnatomy
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import GateFailed
from edgepress.export.api import export_bundle
from edgepress.export.graph import whole_graph
from edgepress.export.graph.build import Build
from edgepress.export.proof.streamed_stacks import Feeds, StreamedEncoder, hidden_states
from edgepress.files.storage import read_json
from edgepress.runtime.kernels.library import library

pytestmark = pytest.mark.chain

Make = Callable[..., Path]
PLANTED = 1


def batches() -> list[Feeds]:
    """Texts of unequal length, and one alone."""
    generator, found = np.random.default_rng(0), []
    for lengths in ((9, 1, 4), (12,)):
        ids, mask = (np.zeros((len(lengths), max(lengths)), np.int64) for _ in range(2))
        for row, length in enumerate(lengths):
            ids[row, :length], mask[row, :length] = generator.integers(5, 60, length), 1
        found.append({"input_ids": ids, "attention_mask": mask})
    return found


def made(family: str, folder: Path, make_encoder: Make) -> Path:
    return save_embedder(folder, family, {}) if family == "mistral" else make_encoder(folder, family)


@pytest.mark.parametrize("scheme", [None, "W8A8"])
@pytest.mark.parametrize("family", ["bert", "albert", "modernbert", "mpnet", "deberta-v2", "mistral"])
def test_it_is_the_whole_model_as_stored(
    family: str, scheme: str | None, make_encoder: Make, tmp_path: Path
) -> None:
    path = made(family, tmp_path / "m", make_encoder)
    if scheme is not None:
        path = compress_model(str(path), scheme=scheme, output=tmp_path / "c")
    model, whole = StreamedEncoder(WeightSource.open(path)), load_model(path, embedding=scheme is not None)
    left = model.entered_by(batches(), rounded=scheme is not None)
    for index in range(len(model.blocks)):
        with model.block(index) as module:
            left = model.through(module, index, left, model.as_stored)
    blocks = [module for stack in model.skeleton.stacks() for module in stack]
    assert all(parameter.is_meta for module in blocks for parameter in module.parameters())
    with model.leaving() as given:
        for feeds, states in zip(batches(), left, strict=True):
            given.states = states.hidden
            found, real = hidden_states(given.model, feeds), feeds["attention_mask"].astype(bool)
            want = hidden_states(whole, feeds)
            # A flipped rounding of an activation reaches this far.
            atol = 1e-5 if scheme is None else 5e-2
            np.testing.assert_allclose(found.numpy()[real], want.numpy()[real], atol=atol)
    assert [module for stack in model.skeleton.stacks() for module in stack] == blocks


def epsilon(block: BlockAnatomy) -> BlockAnatomy:
    return replace(block, norm2=replace(block.norm2, eps=1e-2))


def factor(block: BlockAnatomy) -> BlockAnatomy:
    return replace(block, mixer=replace(block.attention, scale=0.1))


def activation(block: BlockAnatomy) -> BlockAnatomy:
    return replace(block, feed_forward=replace(block.mlp, activation="relu"))


@pytest.mark.parametrize("scheme", [None, "W4A16", "W8A8"])
@pytest.mark.parametrize("change", [epsilon, factor, activation])
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_a_wrong_block_is_named(
    family: str,
    change: Callable[[BlockAnatomy], BlockAnatomy],
    scheme: str | None,
    make_encoder: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make_encoder(tmp_path / "m", family)
    if scheme is not None:
        path = compress_model(str(path), scheme=scheme, output=tmp_path / "c")

    def wrong(original: Callable[..., None]) -> Callable[..., None]:
        def planted(build: Build, *rest: Any) -> None:
            anatomy = build.weights.anatomy
            blocks = [change(block) if block.index == PLANTED else block for block in anatomy.blocks]
            build.weights.anatomy = replace(anatomy, blocks=tuple(blocks))
            original(build, *rest)

        return planted

    for name in ("build_encoder", "build_packed_encoder"):
        monkeypatch.setattr(whole_graph, name, wrong(getattr(whole_graph, name)))
    with pytest.raises(GateFailed, match=rf"difference of .*\.{PLANTED} with float weights"):
        export_bundle(path, output=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("operators", ["edgepress", "standard"])
def test_parts_are_counted_in_the_manifest(operators: str, pico_bert: Path, tmp_path: Path) -> None:
    if operators == "edgepress" and library() is None:
        pytest.skip("the library of operators was not built here")
    path = compress_model(str(pico_bert), scheme="W8A8", output=tmp_path / "c")
    bundle = export_bundle(path, output=tmp_path / "b", operators=operators)
    parity = read_json(bundle / "manifest.json")["parity"]
    blocks = len(WeightSource.open(path).anatomy.blocks)
    assert parity["float"]["parts"] == parity["codes"]["parts"] == blocks + 2
    assert parity["float"]["max_abs_difference"] <= parity["float"]["bound"]
    assert 0 <= parity["quantized"]["cosine_distance_mean"] <= 0.01
    assert torch.is_grad_enabled()
