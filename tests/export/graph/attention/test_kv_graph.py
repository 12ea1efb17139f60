"""Decoder graphs with quantized and half-precision caches against torch with the same rounding.

A difference in the seventh digit flips a code here and there, so that logits are compared as distributions;
the codes themselves are compared one by one where their inputs are equal, in the first layer.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from edgepress.compress.model.kv_scheme import KVScales, KVScheme, tap
from edgepress.export.graph.graph_writer import Opset
from edgepress.export.proof.distances import divergence, log_softmax
from edgepress.runtime.session.session import open_session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.chain


CONTEXT = 192
IDS = np.random.default_rng(6).integers(0, 300, (3, CONTEXT), dtype=np.int64)
# Of what rounding the cache costs, in KL. A code that falls the other way moves a whole step, 12 times the
# variance of its rounding; it does where its value lies within the error of float32 sums (64 × 6e-8 of at
# most 127 steps, through a few layers 1e-3) of a tie: 0.2 % of codes, 12 × 0.2 % = 2.4 % of the cost.
FLIPS = 0.1


def unpacked(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes ``[…, head_dim]`` of a cache: int8 as they are, 4-bit ones from two a byte, low half first."""
    if bits == 8:
        return codes.astype(np.int64)
    pairs = np.stack([codes & 15, codes >> 4], axis=-1).astype(np.int64) - 8
    return pairs.reshape(*codes.shape[:-1], -1)


def cost(want: np.ndarray, unrounded: np.ndarray) -> float:
    """Mean KL of the logits with a rounded cache from those without."""
    return float(divergence(log_softmax(want), log_softmax(unrounded)).mean())


def agree(found: np.ndarray, want: np.ndarray, noise: float) -> None:
    """Both ``[batch, seq, vocab]``; a flip weighs more in the mean of a short case."""
    positions = found.shape[0] * found.shape[1]
    apart = float(divergence(log_softmax(want), log_softmax(found)).mean())
    assert apart <= FLIPS * noise * (1 if positions > 60 else 8)


@pytest.mark.parametrize("granularity", ["per-tensor", "per-channel"])
@pytest.mark.parametrize("bits", [8, 4])
def test_batches_lengths_and_depths(
    bits: int, granularity: str, make_decoder: Callable[..., Path], export_graph: Any, tmp_path: Path
) -> None:
    scheme = KVScheme.model_validate({"bits": bits, "granularity": granularity})
    checkpoint = make_decoder(tmp_path / "m", max_position_embeddings=CONTEXT)
    exported = export_graph(checkpoint, kv=scheme)
    want = exported.source.logits(IDS, activations=False, cache=True)
    noise = cost(want, exported.source.logits(IDS, activations=False))
    with exported.driver() as driver:
        for batch in (1, 3):
            for new in (1, 7, 128):
                for depth in (0, 1, 63, CONTEXT - new):
                    # Several tokens extend a cached batch row by row: the runtime does that.
                    if depth + new > CONTEXT or (batch > 1 and depth and new > 1):
                        continue
                    found = driver.logits(IDS[:batch, : depth + new], depth=depth)
                    agree(found, want[:batch, depth : depth + new], noise)
        ragged = driver.logits(IDS, lengths=[CONTEXT, 7, 128])
        agree(ragged[1:2, :7], want[1:2, :7], noise)
        agree(ragged[2:, :128], want[2:, :128], noise)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("family", ["mistral", "gemma2", "qwen3", "gpt2", "gpt_neox", "phi", "gpt_oss"])
def test_families(
    family: str, bits: int, make_decoder: Callable[..., Path], export_graph: Any, tmp_path: Path
) -> None:
    """A sliding window, soft-caps, norms of q and k, fused q k v, no rope, partial rope, sinks."""
    changes = {"sliding_window": 24} if family == "mistral" else {}
    checkpoint = make_decoder(tmp_path / "m", family, num_hidden_layers=2, **changes)
    exported = export_graph(checkpoint, kv=KVScheme.model_validate({"bits": bits}))
    want = exported.source.logits(IDS[:1], activations=False, cache=True)
    unrounded = exported.source.logits(IDS[:1], activations=False)
    noise = cost(want, unrounded)
    assert noise > 1e-6  # far above the last digits of float32: the comparison can tell the two apart
    with exported.driver() as driver:
        agree(driver.logits(IDS[:1]), want, noise)
        agree(driver.logits(IDS[:1, :160], depth=70), want[:, 70:160], noise)
        agree(driver.logits(IDS[:1, :101], depth=100), want[:, 100:101], noise)


@pytest.mark.parametrize("granularity", ["per-tensor", "per-channel"])
@pytest.mark.parametrize("bits", [8, 4])
def test_the_cache_holds_torch_s_codes(
    bits: int,
    granularity: str,
    make_decoder: Callable[..., Path],
    export_graph: Any,
    torch_logits: Any,
    tmp_path: Path,
) -> None:
    scheme = KVScheme.model_validate({"bits": bits, "granularity": granularity})
    exported = export_graph(make_decoder(tmp_path / "m", num_hidden_layers=1), kv=scheme)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    model = exported.source.model(activations=False)
    attention = exported.source.anatomy.blocks[0].attention
    tap(model.get_submodule(attention.module), lambda key, value: seen.append((key, value)) or (key, value))
    torch_logits(model, IDS[:1])
    scales = exported.source.kv_scales(attention)
    with exported.driver() as driver:
        cache = driver.cache(IDS[:1], CONTEXT)
    for part, values, scale in zip(("key", "value"), seen[0], (scales.key, scales.value), strict=True):
        found = unpacked(cache[f"past_key_values.0.{part}"], bits)
        half = 1 << (bits - 1)
        want = (values / scale).numpy().clip(-half, half - 1)
        # The nearest code; of two as near either, with float32 sums good to 64 × 6e-8 of 127 steps.
        assert np.abs(found - want).max() <= 0.5 + 1e-3


def test_scales_of_another_channel_are_noticed(
    make_decoder: Callable[..., Path], export_graph: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgepress.export.graph.build import WeightView

    original = WeightView.kv_scales

    def swapped(self: WeightView, attention: Any) -> KVScales | None:
        scales = original(self, attention)
        return None if scales is None else KVScales(scales.scheme, scales.key.flip(2) * 0.3, scales.value)

    monkeypatch.setattr(WeightView, "kv_scales", swapped)
    exported = export_graph(make_decoder(tmp_path / "m"), kv=KVScheme(bits=8))
    want = exported.source.logits(IDS[:1], activations=False, cache=True)
    noise = cost(want, exported.source.logits(IDS[:1], activations=False))
    with exported.driver() as driver, pytest.raises(AssertionError):
        agree(driver.logits(IDS[:1]), want, noise)


# All experts are chosen: a last digit may send a token to another one.
ALL_EXPERTS: dict[str, dict[str, Any]] = {
    "gpt_oss": {"num_experts_per_tok": 6},
    "deepseek_v3": {"num_experts_per_tok": 8, "topk_group": 4},
}


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "gemma2", *ALL_EXPERTS])
def test_half_precision(
    family: str, make_decoder: Callable[..., Path], export_graph: Any, tmp_path: Path
) -> None:
    checkpoint = make_decoder(tmp_path / "m", family, **ALL_EXPERTS.get(family, {}))
    exported = export_graph(checkpoint, kv_dtype="float16")
    want = exported.source.logits(IDS, activations=False)
    with exported.driver() as driver:
        assert all(array.dtype == np.float16 for array in driver.empty_cache(1, 4).values())
        for found, expected in (
            (driver.logits(IDS), want),
            (driver.logits(IDS[:, :64], depth=63), want[:, 63:64]),
            (driver.logits(IDS[:1, :128], depth=63), want[:1, 63:128]),
        ):
            kl = divergence(log_softmax(expected), log_softmax(found))
            assert float(kl.mean()) < 1e-4


@pytest.mark.parametrize("kv_dtype", ["int8", "uint8", "float16"])
def test_the_exact_twin_has_a_float_cache(
    kv_dtype: str, make_decoder: Callable[..., Path], export_graph: Any, tmp_path: Path
) -> None:
    bits = {"int8": 8, "uint8": 4}.get(kv_dtype)
    scheme = None if bits is None else KVScheme.model_validate({"bits": bits})
    exported = export_graph(make_decoder(tmp_path / "m", "qwen3"), "W4A16-g32", kv=scheme, kv_dtype=kv_dtype)
    want = exported.source.logits(IDS[:1, :64], activations=False)
    with exported.driver(exact=True) as driver:
        assert np.abs(driver.logits(IDS[:1, :64]) - want).max() < 5e-5


class OneAttention:
    """A session of a single attention over a cache of ``bits``, with keys and values given as they are."""

    HEADS, WIDTH = 2, 16

    def __init__(self, bits: int, scale: np.ndarray, opset: Opset, path: Path) -> None:
        self.dtype = {8: np.int8, 4: np.uint8}[bits]
        kind = {8: ir.DataType.INT8, 4: ir.DataType.UINT8}[bits]
        self.width = self.WIDTH * bits // 8
        value = lambda name, dtype, shape: ir.Value(  # noqa: E731
            name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape)
        )
        cache = ["batch", self.HEADS, "capacity", self.width]
        inputs = [
            value("qkv", ir.DataType.FLOAT, ["batch", "seq", 3 * self.HEADS * self.WIDTH]),
            *(value(name, kind, cache) for name in ("past.key", "past.value")),
            value("last", ir.DataType.INT32, ["batch"]),
            value("total", ir.DataType.INT32, []),
        ]
        scales = [ir.tensor(scale.astype(np.float32), name=name) for name in ("k_scale", "v_scale")]
        constants = [
            ir.Value(
                name=tensor.name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor
            )
            for tensor in scales
        ]
        qkv, key, past_value, last, total = inputs
        node = ir.node(
            "GroupQueryAttention",
            [qkv, None, None, key, past_value, last, total, *[None] * 5, *constants],
            {
                "num_heads": self.HEADS,
                "kv_num_heads": self.HEADS,
                "kv_cache_bit_width": bits,
                "k_quant_type": "PER_CHANNEL",
                "v_quant_type": "PER_CHANNEL",
            },
            domain="com.microsoft",
            num_outputs=3,
        )
        for output, name in zip(node.outputs, ("y", "key", "value"), strict=True):
            output.name = name
            output.type = ir.TensorType(ir.DataType.FLOAT if name == "y" else kind)
        imports = {"": opset.version, "com.microsoft": 1}
        graph = ir.Graph(
            inputs, node.outputs, nodes=[node], initializers=constants, opset_imports=imports, name="g"
        )
        ir.save(ir.Model(graph, ir_version=opset.ir_version), path)
        self.session = open_session(path, threads=1)

    def codes(self, keys: np.ndarray) -> np.ndarray:
        """The cache after ``keys [tokens, heads, head_dim]`` went in, as it lies in memory."""
        tokens = len(keys)
        flat = keys.reshape(1, tokens, -1)
        empty = np.zeros((1, self.HEADS, tokens, self.width), self.dtype)
        feeds = {
            "qkv": np.concatenate([flat, flat, flat], axis=-1).astype(np.float32),
            "past.key": empty,
            "past.value": empty,
            "last": np.array([tokens - 1], np.int32),
            "total": np.array(tokens, np.int32),
        }
        return np.asarray(self.session.run(["key"], feeds)[0])


@pytest.fixture(scope="module")
def attentions(
    opset: Opset, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, tuple[OneAttention, np.ndarray]]:
    """By bits, with the scale of each channel."""
    folder, scale = tmp_path_factory.mktemp("one"), np.random.default_rng(2).uniform(0.1, 2, (1, 2, 1, 16))
    return {bits: (OneAttention(bits, scale, opset, folder / f"{bits}.onnx"), scale) for bits in (8, 4)}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**20), bits=st.sampled_from([8, 4]), tokens=st.integers(1, 9))
def test_codes_make_the_round_trip_through_the_kernel(
    attentions: dict[int, tuple[OneAttention, np.ndarray]], seed: int, bits: int, tokens: int
) -> None:
    """Every code, the extremes and beyond them, each channel with a scale of its own, packed and unpacked."""
    attention, scale = attentions[bits]
    half = 1 << (bits - 1)
    wanted = np.random.default_rng(seed).integers(-half - 3, half + 3, (1, 2, tokens, 16))
    values = (wanted * scale).transpose(2, 0, 1, 3)[:, 0]
    found = unpacked(attention.codes(values), bits)
    assert np.array_equal(found, wanted.clip(-half, half - 1))
