"""The quantizers of other tools: what their variants say, and what decodes their formats."""

from pathlib import Path

import pytest
import torch
from edgepress.benchmarks.lab.peers.contract import CompressionTask, QuantizerVariant
from edgepress.benchmarks.lab.peers.quantizers import onnxruntime_nbits
from edgepress.benchmarks.lab.peers.quantizers._dense import write_dense
from edgepress.benchmarks.lab.peers.quantizers.gptqmodel import decode_layer, unpack
from edgepress.benchmarks.lab.peers.workspace import peers
from safetensors.torch import load_file, save_file


@pytest.mark.parametrize("name", sorted(peers("quantizers")))
def test_quantizers_say_what_the_comparison_asks(name: str) -> None:
    module = peers("quantizers")[name]
    assert module.TITLE
    assert callable(module.quantize)
    for one in module.VARIANTS.values():
        assert 2 <= one.bits <= one.stored_bits <= one.bits + 1


def packed(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """``[rows, columns]`` codes as a stream of bits along the rows, in int32 words: bit by bit."""
    words = torch.zeros(codes.shape[0] * bits // 32, codes.shape[1], dtype=torch.int64)
    for index in range(codes.shape[0]):
        for bit in range(bits):
            position = index * bits + bit
            words[position // 32] |= ((codes[index].long() >> bit) & 1) << (position % 32)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq_words_are_decoded(bits: int) -> None:
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(0, 2**bits, (64, 32), generator=generator)
    assert torch.equal(unpack(packed(codes, bits), bits), codes)
    zeros = torch.randint(1, 2**bits, (2, 32), generator=generator)
    scales = torch.rand(2, 32, generator=generator)
    group = torch.arange(64) // 32
    parts = {
        "qweight": packed(codes, bits),
        "qzeros": packed((zeros - 1).T.contiguous(), bits).T.contiguous(),
        "scales": scales,
        "g_idx": group.int(),
    }
    expected = torch.empty(32, 64)
    for out in range(32):
        for channel in range(64):
            one = int(group[channel])
            expected[out, channel] = (codes[channel, out] - zeros[one, out]) * scales[one, out]
    assert torch.equal(decode_layer(parts, bits), expected)


NAME = "model.layers.0.mlp.up_proj"


@pytest.fixture
def task(tmp_path: Path) -> CompressionTask:
    """A checkpoint with one linear layer and an embedding."""
    checkpoint, output = tmp_path / "checkpoint", tmp_path / "output"
    checkpoint.mkdir()
    output.mkdir()
    weight = torch.randn(24, 128, generator=torch.Generator().manual_seed(0))
    save_file(
        {f"{NAME}.weight": weight, "model.embed_tokens.weight": weight.clone()}, checkpoint / "m.safetensors"
    )
    (checkpoint / "config.json").write_text("{}", encoding="utf-8")
    return CompressionTask(checkpoint, tmp_path / "none.json", output)


def test_dense_weights_replace_only_the_linear_layers(task: CompressionTask) -> None:
    signs = torch.ones(24, 128)
    write_dense(task, QuantizerVariant("x", 2), {NAME: signs})
    before, after = (load_file(folder / "m.safetensors") for folder in (task.checkpoint, task.result))
    assert torch.equal(after[f"{NAME}.weight"], signs)
    assert torch.equal(after["model.embed_tokens.weight"], before["model.embed_tokens.weight"])


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({}, "was not quantized"),
        ({NAME: torch.ones(24, 64)}, "has the shape"),
        ({NAME: torch.randn(24, 128)}, "more than 2 bits can tell apart"),
        ({NAME: torch.ones(24, 128), "other.up_proj": torch.ones(1)}, "not in the checkpoint"),
    ],
)
def test_what_is_not_as_asked_is_refused(
    task: CompressionTask, weights: dict[str, torch.Tensor], said: str
) -> None:
    with pytest.raises(SystemExit, match=said):
        write_dense(task, QuantizerVariant("x", 2), weights)


@pytest.mark.chain
def test_onnxruntime_rounds_to_the_grid_it_was_asked_for(task: CompressionTask) -> None:
    onnxruntime_nbits.quantize(task, "w4-default")
    before, after = (
        load_file(folder / "m.safetensors")[f"{NAME}.weight"] for folder in (task.checkpoint, task.result)
    )
    step = before.reshape(24, 2, 64).abs().amax(-1) / 8
    assert ((before - after).reshape(24, 2, 64).abs().amax(-1) <= 1.001 * step).all()
    assert not torch.equal(before, after)
