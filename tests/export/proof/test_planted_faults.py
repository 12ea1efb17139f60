"""A fault in one block of a decoder's graph, or of the two of an encoder–decoder, is found, and named by the
block or norm that it is in.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edgepress.compress.api import compress_model
from edgepress.compress.model.anatomy import Anatomy
from edgepress.compress.model.block_anatomy import BlockAnatomy
from edgepress.errors import GateFailed
from edgepress.export.api import export_bundle
from edgepress.export.graph import whole_graph
from edgepress.export.graph.build import Build, WeightView
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.kernels.library import library

pytestmark = pytest.mark.chain

Make = Callable[..., Path]
Change = Callable[[BlockAnatomy], BlockAnatomy]
PLANTED = 1


@pytest.fixture(scope="module")
def quantized(make_decoder: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 of three blocks, which has biases, at 4 bits."""
    folder = tmp_path_factory.mktemp("planted")
    model = make_decoder(folder / "model", "qwen2", num_hidden_layers=3)
    return compress_model(str(model), scheme="W4A16", group_size=32, output=folder / "w4")


def attention(**changes: Any) -> Change:
    return lambda block: replace(block, mixer=replace(block.attention, **changes))


def epsilon(block: BlockAnatomy) -> BlockAnatomy:
    return replace(block, norm2=replace(block.norm2, eps=1e-3))


def first_epsilon(block: BlockAnatomy) -> BlockAnatomy:
    return replace(block, norm1=replace(block.norm1, eps=1e-3))


def without_bias(block: BlockAnatomy) -> BlockAnatomy:
    part = block.attention
    return replace(block, mixer=replace(part, v=replace(part.v, bias=False)))


def other_activation(block: BlockAnatomy) -> BlockAnatomy:
    return replace(block, feed_forward=replace(block.mlp, activation="gelu"))


BLOCK = f"model.layers.{PLANTED}"
FAULTS: dict[str, tuple[Change, str]] = {
    "norm": (epsilon, BLOCK),
    "first norm": (first_epsilon, f"{BLOCK}.input_layernorm"),
    "window": (attention(sliding_window=5), BLOCK),
    "factor": (attention(scale=0.2), BLOCK),
    "bias": (without_bias, BLOCK),
    "activation": (other_activation, BLOCK),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_block_is_named(
    name: str, quantized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, module = FAULTS[name]
    original = whole_graph.build_decoder

    def planted(build: Build) -> None:
        anatomy = build.weights.anatomy
        blocks = [change(block) if block.index == PLANTED else block for block in anatomy.blocks]
        build.weights.anatomy = replace(anatomy, blocks=tuple(blocks))
        original(build)

    monkeypatch.setattr(whole_graph, "build_decoder", planted)
    with pytest.raises(GateFailed, match=rf"difference of {module} with float weights"):
        export_bundle(quantized, output=tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def wrong_scale(tensor: Any) -> Any:
    return replace(tensor, scale=tensor.scale * 1.002)


def swapped_heads(tensor: Any) -> Any:
    half = tensor.codes.shape[0] // 2
    return replace(tensor, codes=tensor.codes.roll(half, 0), scale=tensor.scale.roll(half, 0))


@pytest.mark.parametrize("operators", ["edgepress", "standard"])
@pytest.mark.parametrize("change", [wrong_scale, swapped_heads])
def test_wrong_codes_are_named(
    change: Callable[[Any], Any],
    operators: str,
    quantized: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if operators == "edgepress" and library() is None:
        pytest.skip("the library of operators was not built here")
    original = WeightView.quantized

    def planted(self: WeightView, linear: str) -> Any:
        tensor = original(self, linear)
        return change(tensor) if linear == f"{BLOCK}.self_attn.q_proj" else tensor

    monkeypatch.setattr(WeightView, "quantized", planted)
    with pytest.raises(GateFailed, match=rf"difference of {BLOCK} with quantized weights"):
        export_bundle(quantized, output=tmp_path / "bundle", operators=operators)


def test_what_was_proven_is_in_the_manifest(quantized: Path, tmp_path: Path) -> None:
    parity = Bundle.open(export_bundle(quantized, output=tmp_path / "bundle")).manifest["parity"]
    assert parity["float"]["parts"] == parity["codes"]["parts"] == 5
    farthest = parity["quantized"]["block"]
    assert 0 < farthest["distance"] <= farthest["bound"] and farthest["at"].startswith("model.")
    assert parity["greedy"]["tokens"] == 64 and parity["greedy"]["tie_margin"] >= 1


def other_factor(block: BlockAnatomy) -> BlockAnatomy:
    assert block.cross is not None
    return replace(block, cross=replace(block.cross, scale=0.2))


def values_without_bias(block: BlockAnatomy) -> BlockAnatomy:
    assert block.cross is not None
    return replace(block, cross=replace(block.cross, v=replace(block.cross.v, bias=False)))


def norm_between(block: BlockAnatomy) -> BlockAnatomy:
    assert block.cross_norm is not None
    return replace(block, cross_norm=replace(block.cross_norm, eps=0.1))


# In which stack, and what is named of BART's block: in graphs for hubs the decoder makes keys and values.
STACKS: dict[str, tuple[int, Change, str]] = {
    "norm of the encoder": (0, epsilon, f"model.encoder.layers.{PLANTED}"),
    "activation of the decoder": (1, other_activation, f"model.decoder.layers.{PLANTED}"),
    "factor": (1, other_factor, f"model.decoder.layers.{PLANTED}"),
    "norm between": (1, norm_between, f"model.decoder.layers.{PLANTED}"),
    "values that are read": (1, values_without_bias, rf"model.decoder.layers.{PLANTED}.encoder_attn|read"),
}


@pytest.mark.parametrize(
    ("format", "scheme"),
    [
        ("onnx", None),
        ("onnx_hub", "W4A16-g32"),
        pytest.param("onnx", "W4A16-g32", marks=pytest.mark.slow),
        pytest.param("onnx_hub", None, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", STACKS)
def test_a_wrong_block_of_a_stack_is_named(
    name: str,
    format: str,
    scheme: str | None,
    make_encoder_decoder: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stack, change, module = STACKS[name]
    path = make_encoder_decoder(tmp_path / "m", "bart", activation_function="relu")
    if scheme is not None:
        path = compress_model(str(path), scheme=scheme, output=tmp_path / "c")
    original = Anatomy.stacks

    def planted(anatomy: Anatomy) -> tuple[Anatomy, Anatomy]:
        both = list(original(anatomy))
        blocks = both[stack].blocks
        changed = (*blocks[:PLANTED], change(blocks[PLANTED]), *blocks[PLANTED + 1 :])
        both[stack] = replace(both[stack], blocks=changed)
        return both[0], both[1]

    monkeypatch.setattr(Anatomy, "stacks", planted)
    with pytest.raises(GateFailed, match=rf"difference of ({module}) with float weights"):
        export_bundle(path, format=format, output=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
