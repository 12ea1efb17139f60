"""Each operator against a naive reference in numpy, over shapes with tails, groups, zero points and caches,
with every set of instructions that this processor has: all of them give the same bits.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
import pytest
from edgepress.export.graph.linear.tiles import TileLayout, pack_tiles
from edgepress.runtime.kernels.library import instructions, library
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from .conftest import SETS

BITS = (2, 3, 4, 5, 6, 8)
pytestmark = pytest.mark.skipif(library() is None, reason="the library of operators was not built here")
TYPES = {np.dtype(np.float32): 1, np.dtype(np.uint8): 2, np.dtype(np.int8): 3, np.dtype(np.int32): 6}
TYPES |= {np.dtype(np.int64): 7, np.dtype(np.float16): 10}
Array = NDArray[Any]


def run(
    op: str, inputs: dict[str, Array | None], outputs: int = 1, threads: int = 1, **attributes: Any
) -> list[Array]:
    """The outputs of one operator; what is None is left out."""
    given_inputs = {name: value for name, value in inputs.items() if value is not None}
    names = [name if value is not None else "" for name, value in inputs.items()]
    infos = [helper.make_tensor_value_info(n, TYPES[v.dtype], v.shape) for n, v in given_inputs.items()]
    outs = [helper.make_tensor_value_info(f"out{i}", TensorProto.UNDEFINED, None) for i in range(outputs)]
    node = helper.make_node(op, names, [out.name for out in outs], domain="edgepress", **attributes)
    graph = helper.make_graph([node], "one", infos, outs)
    for out, kind in zip(graph.output, _kinds(op), strict=False):
        out.type.tensor_type.elem_type = kind
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("edgepress", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    options.register_custom_ops_library(str(library()))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return [np.asarray(value) for value in session.run(None, given_inputs)]


def _kinds(op: str) -> list[int]:
    if op == "PackTokens":
        return [7, 7, 7, 7]
    cache = {"CachedAttention16": 10, "CachedAttention8": 3, "CachedAttention4": 2}.get(op, 1)
    return [1, cache, cache]


@dataclass
class Matrix:
    """Random codes and what they mean."""

    layout: TileLayout
    tiles: Array
    weight: Array  # [rows, columns] float64


def matrix(
    rows: int,
    columns: int,
    bits: int,
    group: int | None,
    zero_points: bool,
    seed: int = 0,
    *,
    half: bool = True,
    step: float = 0.1,
) -> Matrix:
    """``group`` None is one scale for each output; scales are up to ``step``."""
    random = np.random.default_rng(seed)
    shared = -(-columns // 64) if group is None else 1 + group // 256
    layout = TileLayout(bits, min(group or 64, 128), rows, columns, shared, zero_points, half)
    codes = random.integers(0, 1 << bits, (rows, columns)).astype(np.uint8)
    scales = (random.random((rows, layout.groups)) * step).astype(np.float16 if half else np.float32)
    zeros = random.integers(0, 1 << bits, (rows, layout.groups)).astype(np.uint8) if zero_points else None
    middle = np.full((rows, layout.groups), 1 << (bits - 1)) if zeros is None else zeros
    each = layout.group * layout.shared
    wide = [np.repeat(part, each, 1)[:, :columns].astype(np.float64) for part in (middle, scales)]
    tiles = pack_tiles(codes, scales.astype(np.float32), zeros, layout)
    assert tiles.nbytes == layout.nbytes
    return Matrix(layout, tiles, (codes - wide[0]) * wide[1])


def rounded(x: Array, group: int) -> Array:
    """``x [rows, columns]`` as int8 codes by groups mean it, in float64."""
    rows, columns = x.shape
    padded = np.zeros((rows, -(-columns // group) * group), np.float32)
    padded[:, :columns] = x
    parts = padded.reshape(rows, -1, group)
    top = np.abs(parts).max(-1, keepdims=True)
    inverse = np.where(top > 1e-36, np.float32(127) / np.where(top > 0, top, 1), 0).astype(np.float32)
    codes = np.rint(parts * inverse).astype(np.float64)
    return np.asarray((codes * (top / np.float32(127))).reshape(rows, -1)[:, :columns])


def close(found: Array, expected: Array, terms: Array) -> None:
    """Within what float32 sums of so large ``terms`` (sums of absolute products) may lose."""
    assert (np.abs(found - expected) <= 1e-6 * terms + 1e-30).all()


SHAPES = [(16, 64, 1), (50, 200, 3), (33, 128, 13), (1, 33, 9), (96, 576, 2), (33, 200, 55), (50, 1100, 17)]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("zero_points", [False, True])
def test_a_product_is_that_of_dequantized_weights_and_rounded_activations(kernels, bits, zero_points):
    for group in (16, 32, 48, 64, 96, 256, None):
        for rows, columns, tokens in SHAPES:
            held = matrix(rows, columns, bits, group, zero_points, half=group != 64)
            random = np.random.default_rng(1)
            x = random.standard_normal((1, tokens, columns)).astype(np.float32)
            bias = random.standard_normal(rows).astype(np.float32) if tokens > 1 else None
            attributes = held.layout.attributes()
            inputs = {"x": x, "w": held.tiles, "bias": bias}
            added = 0 if bias is None else bias
            (found,) = run("QuantizedProduct", inputs, **attributes)
            seen = rounded(x[0], held.layout.group)
            close(found[0], seen @ held.weight.T + added, np.abs(seen) @ np.abs(held.weight).T + 8)
            (exact,) = run("QuantizedProduct", inputs, exact=1, **attributes)
            close(exact[0], x[0] @ held.weight.T + added, np.abs(x[0]) @ np.abs(held.weight).T + 8)


@pytest.mark.parametrize("bits", BITS)
def test_rows_of_a_table_are_its_weights(kernels, bits):
    for group in (16, 32, 48, None):
        held = matrix(50, 200, bits, group, True)
        ids = np.array([[0, 49, 17], [16, 15, 31]], np.int64)
        (found,) = run("QuantizedRows", {"w": held.tiles, "ids": ids}, **held.layout.attributes())
        assert np.array_equal(found, held.weight[ids].astype(np.float32))


@pytest.mark.parametrize("tokens", [5, 37, 384])
@pytest.mark.parametrize("outputs", [64, 96, 288])
def test_a_gated_product_joins_its_halves(kernels, tokens, outputs):
    """Halves of an odd number of tiles, too, the last of which stands alone beside those of another task."""
    held = matrix(outputs, 64, 4, 64, False)
    x = np.random.default_rng(2).standard_normal((1, tokens, 64)).astype(np.float32) * 30
    (whole,) = run("QuantizedProduct", {"x": x, "w": held.tiles}, **held.layout.attributes())
    (found,) = run(
        "QuantizedProduct", {"x": x, "w": held.tiles}, threads=2, gated=1, **held.layout.attributes()
    )
    gate, up = whole[..., : outputs // 2].astype(np.float64), whole[..., outputs // 2 :]
    expected = gate / (1 + np.exp(-gate)) * up
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("gated", [0, 1])
@pytest.mark.parametrize("exact", [0, 1])
@pytest.mark.parametrize("counts", [(0, 3, 0, 10), (1, 0, 0, 0), (0, 0, 0, 0), (2, 1, 30, 4)])
def test_routed_rows_are_multiplied_each_with_its_own_matrix(kernels, gated, exact, counts):
    held = [matrix(64, 70, 4, 32, True, seed) for seed in range(4)]
    x = np.random.default_rng(0).standard_normal((sum(counts), 70)).astype(np.float32)
    attributes = {**held[0].layout.attributes(), "gated": gated, "exact": exact}
    inputs = {"x": x, "w": np.concatenate([one.tiles for one in held]), "rows": np.array(counts, np.int64)}
    (found,) = run("RoutedProduct", inputs, threads=2, **attributes)
    ends = np.cumsum(counts)
    parts = [
        run("QuantizedProduct", {"x": x[end - count : end], "w": one.tiles}, **attributes)[0]
        for one, count, end in zip(held, counts, ends, strict=True)
    ]
    assert np.array_equal(found, np.concatenate(parts))


def test_a_matrix_without_rows_reaches_no_output():
    """Its scales are none, and a product with it would be none, too."""
    held = [matrix(64, 70, 4, 32, False, seed) for seed in range(3)]
    held[1].tiles[:] = 255
    x = np.random.default_rng(0).standard_normal((5, 70)).astype(np.float32)
    inputs = {"x": x, "w": np.concatenate([one.tiles for one in held]), "rows": np.array([2, 0, 3])}
    (found,) = run("RoutedProduct", inputs, **held[0].layout.attributes())
    assert np.isfinite(found).all()


@pytest.mark.parametrize("rows", [(2, 2, 2), (2, -1, 4), (5, 0), (5,), (), (1 << 40, 0, 5)])
def test_rows_that_do_not_add_up_are_refused(rows):
    held = matrix(50, 64, 4, 32, False)
    inputs = {"x": np.zeros((5, 64), np.float32), "w": np.tile(held.tiles, 3)}
    with pytest.raises(Exception, match="edgepress: "):
        run("RoutedProduct", {**inputs, "rows": np.array(rows, np.int64)}, **held.layout.attributes())


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_row_does_not_depend_on_its_neighbours_nor_on_threads(data):
    bits = data.draw(st.sampled_from(BITS))
    rows, columns = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 150))
    tokens = data.draw(st.integers(1, 20))
    group = data.draw(st.sampled_from([16, 32, 48, 64, 256, None]))
    held = matrix(rows, columns, bits, group, data.draw(st.booleans()), half=data.draw(st.booleans()))
    scale = data.draw(st.sampled_from([1e-42, 1e-30, 1.0, 1e30]))
    x = (np.random.default_rng(tokens).standard_normal((1, tokens, columns)) * scale).astype(np.float32)
    attributes = held.layout.attributes()
    (together,) = run("QuantizedProduct", {"x": x, "w": held.tiles}, threads=2, **attributes)
    alone = [
        run("QuantizedProduct", {"x": x[:, i : i + 1], "w": held.tiles}, **attributes)[0]
        for i in range(tokens)
    ]
    assert np.array_equal(together, np.concatenate(alone, axis=1))
    assert np.isfinite(together).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_seen(kernels, bad):
    held = matrix(50, 64, 4, 32, False)
    x = np.ones((1, 2, 64), np.float32)
    x[0, 1, 40] = bad
    (found,) = run("QuantizedProduct", {"x": x, "w": held.tiles}, **held.layout.attributes())
    assert np.isfinite(found[0, 0]).all() and np.isnan(found[0, 1]).all()


def test_every_set_of_instructions_gives_the_same_bits(monkeypatch):
    forms = [
        (bits, group, zeros) for bits in BITS for group, zeros in ((16, True), (64, False), (None, True))
    ]
    x = np.random.default_rng(3).standard_normal((1, 55, 200)).astype(np.float32)
    queries, cache, rest = _attention(9, 3, 40, np.float32, seed=3)
    found = {}
    for name in SETS:
        monkeypatch.setenv("EDGEPRESS_KERNELS", name)
        if instructions() == name:
            product = []
            for held in (matrix(50, 200, *form) for form in forms):
                inputs, attributes = {"x": x, "w": held.tiles}, held.layout.attributes()
                for exact in (0, 1):
                    product += run("QuantizedProduct", inputs, exact=exact, **attributes)
            attended = [
                out
                for more in (
                    {},
                    {"positions": None, "slopes": np.linspace(0.1, 0.6, HEADS, dtype=np.float32)},
                )
                for out in run("CachedAttention", {**queries, **cache, **rest, **more}, 3, **_attributes())
            ]
            found[name] = [*product, *attended]
    assert "plain" in found
    for values in found.values():
        for ours, plain in zip(values, found["plain"], strict=True):
            assert np.array_equal(ours, plain)


HEADS, KV_HEADS, DIM, CAPACITY = 6, 2, 24, 600


def _attributes(**more: Any) -> dict[str, Any]:
    return {"num_heads": HEADS, "kv_num_heads": KV_HEADS, "scale": 0.2, "do_rotary": 1, **more}


def _attention(seq: int, batch: int, past: int, dtype: Any, seed: int = 0) -> tuple[dict, dict, dict]:
    """Inputs with an empty cache, whose first ``past`` tokens the caller fills by a run of their own."""
    random = np.random.default_rng(seed)
    width = (HEADS + 2 * KV_HEADS) * DIM
    queries = {"qkv": random.standard_normal((batch, seq, width)).astype(np.float32), "k": None, "v": None}
    stored = DIM // 2 if dtype == np.uint8 else DIM
    shape = (batch, KV_HEADS, CAPACITY, stored)
    cache = {"past_k": np.zeros(shape, dtype), "past_v": np.zeros(shape, dtype)}
    angles = np.arange(CAPACITY)[:, None] / 10000 ** (np.arange(DIM // 2) / (DIM // 2))
    total = past + seq
    rest: dict[str, Array | None] = {
        "last": np.full(batch, total - 1, np.int32),
        "total": np.array([total], np.int32),
        "cos": np.cos(angles).astype(np.float32),
        "sin": np.sin(angles).astype(np.float32),
    }
    return queries, cache, rest


def _scales(dtype: Any) -> dict[str, Array | None]:
    if dtype not in (np.int8, np.uint8):
        return {}
    random = np.random.default_rng(9)
    step = 0.03 if dtype == np.int8 else 0.5
    values = (step * (1 + random.random((2, 1, KV_HEADS, 1, DIM)))).astype(np.float32)
    return {"positions": None, "slopes": None, "sinks": None, "k_scale": values[0], "v_scale": values[1]}


def _stored(x: Array, dtype: Any, scale: Array | None) -> Array:
    """``x [batch, tokens, kv_heads, dim]`` as the cache holds it, in float64."""
    if dtype == np.float32:
        return x.astype(np.float64)
    if dtype == np.float16:
        return x.astype(np.float16).astype(np.float64)
    assert scale is not None
    steps = scale[0, :, 0]
    least, most = (-128, 127) if dtype == np.int8 else (-8, 7)
    return np.clip(np.rint(x / steps), least, most) * steps.astype(np.float64)


def _rotated(x: Array, cos: Array, sin: Array) -> Array:
    a, b = x[..., : DIM // 2], x[..., DIM // 2 :]
    c, s = cos[: x.shape[1], None], sin[: x.shape[1], None]
    return np.concatenate([a * c - b * s, b * c + a * s], -1).astype(np.float32)


def naive(qkv: Array, rest: dict, dtype: Any, scales: dict, window: int = 0, softcap: float = 0.0) -> Array:
    """Attention of whole sequences ``qkv [batch, tokens, …]``, in float64; ``scales`` may have ``slopes`` and
    ``sinks``, too.
    """
    batch, tokens, _ = qkv.shape
    q, k, v = np.split(qkv.reshape(batch, tokens, -1, DIM), [HEADS, HEADS + KV_HEADS], axis=2)
    q, k = _rotated(q, rest["cos"], rest["sin"]), _rotated(k, rest["cos"], rest["sin"])
    k, v = _stored(k, dtype, scales.get("k_scale")), _stored(v, dtype, scales.get("v_scale"))
    k, v = (np.repeat(part, HEADS // KV_HEADS, axis=2) for part in (k, v))
    scores = np.einsum("bqhd,bkhd->bhqk", q.astype(np.float64), k) * 0.2
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    gap = np.arange(tokens)[:, None] - np.arange(tokens)
    if scales.get("slopes") is not None:
        scores = scores - scales["slopes"][:, None, None] * gap
    scores[..., (gap < 0) | ((gap >= window) if window else False)] = -np.inf
    top = scores.max(-1, keepdims=True)
    weights = np.exp(scores - top)
    total = weights.sum(-1, keepdims=True)
    if scales.get("sinks") is not None:
        total = total + np.exp(scales["sinks"][None, :, None, None] - top)
    out = np.einsum("bhqk,bkhd->bqhd", weights / total, v)
    return np.asarray(out.reshape(batch, tokens, -1))


NAMES = {np.float32: "", np.float16: "16", np.int8: "8", np.uint8: "4"}


@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize(
    "more", [{}, {"local_window_size": 20}, {"softcap": 2.0}, {"sinks": True}, {"slopes": True}]
)
def test_attention_is_that_of_the_definition_in_one_go_and_token_by_token(kernels, dtype, more):
    seq = 300 if kernels != "plain" else 40
    queries, cache, rest = _attention(seq, 1, 0, dtype)
    by_head = {key for key in ("sinks", "slopes") if key in more}
    scales = {"positions": None, "slopes": None, "sinks": None, **_scales(dtype)}
    scales |= {key: np.random.default_rng(4).random(HEADS).astype(np.float32) for key in by_head}
    attributes = _attributes(**{key: value for key, value in more.items() if key not in by_head})
    op = f"CachedAttention{NAMES[dtype]}"
    whole, keys, values = run(op, {**queries, **cache, **rest, **scales}, 3, **attributes)
    window, softcap = more.get("local_window_size", 0), more.get("softcap", 0)
    expected = naive(queries["qkv"], rest, dtype, scales, window, softcap)
    # A key within a rounding of the middle between two codes may be rounded either way.
    ties = 1e-5 if dtype in (np.float32,) else 2e-2
    assert np.abs(whole - expected).max() <= ties * np.abs(expected).max()
    parts, at = [], 0
    for count in (7, 30, 1, 1, 1, seq - 40):
        if count <= 0:
            continue
        piece = {**queries, "qkv": np.ascontiguousarray(queries["qkv"][:, at : at + count])}
        at += count
        rest |= {"last": np.full(1, at - 1, np.int32), "total": np.array([at], np.int32)}
        part, *filled = run(op, {**piece, **cache, **rest, **scales}, 3, threads=2, **attributes)
        cache = dict(zip(cache, filled, strict=True))
        parts.append(part)
    assert np.array_equal(np.concatenate(parts, axis=1), whole[:, :at])
    assert at < seq or (np.array_equal(cache["past_k"], keys) and np.array_equal(cache["past_v"], values))


def test_rows_of_a_batch_have_lengths_of_their_own():
    queries, cache, rest = _attention(12, 3, 0, np.float32)
    rest["last"] = np.array([11, 4, 7], np.int32)
    whole, *_ = run("CachedAttention", {**queries, **cache, **rest}, 3, **_attributes())
    for row, last in enumerate(rest["last"]):
        alone = {"qkv": np.ascontiguousarray(queries["qkv"][row : row + 1, : last + 1]), "k": None, "v": None}
        single = {name: value[:1] for name, value in cache.items()}
        length = {"last": np.array([last], np.int32), "total": np.array([last + 1], np.int32)}
        found, *_ = run("CachedAttention", {**alone, **single, **rest, **length}, 3, **_attributes())
        assert np.array_equal(whole[row, : last + 1], found[0])


@pytest.mark.parametrize(
    "change",
    [
        {"N": 0},
        {"N": 1 << 40},
        {"K": 63},
        {"bits": 7},
        {"group": 24},
        {"group": 1 << 20},
        {"group": 16},
        {"zero_points": 1},
        {"scale_bits": 32},
        {"scale_bits": 0},
        {"shared": 0},
        {"gated": 1, "N": 50},
        {"N": 66},
    ],
)
def test_sizes_that_do_not_fit_are_refused(change):
    held = matrix(50, 64, 4, 32, False)
    x = np.zeros((1, 1, 64), np.float32)
    with pytest.raises(Exception, match="edgepress: "):
        run("QuantizedProduct", {"x": x, "w": held.tiles}, **{**held.layout.attributes(), **change})


@pytest.mark.parametrize(
    "change",
    [
        {"last": np.array([600], np.int32)},
        {"last": np.array([-1], np.int32)},
        {"total": np.array([700], np.int32)},
        {"last": np.array([1, 1], np.int32)},
        {"cos": np.zeros((2, DIM // 2), np.float32), "sin": np.zeros((2, DIM // 2), np.float32)},
        {"cos": np.zeros((600, DIM), np.float32), "sin": np.zeros((600, DIM), np.float32)},
        {"qkv": np.zeros((1, 4, 7), np.float32)},
        {"positions": None, "slopes": np.zeros(HEADS + 1, np.float32)},
        {"past_v": np.zeros((1, KV_HEADS, 3, DIM), np.float32)},
        {
            "past_k": np.zeros((2, KV_HEADS, 600, DIM), np.float32),
            "past_v": np.zeros((2, KV_HEADS, 600, DIM), np.float32),
        },
    ],
)
def test_attention_refuses_what_lies_outside_its_buffers(change):
    queries, cache, rest = _attention(4, 1, 0, np.float32)
    with pytest.raises(Exception, match="edgepress: "):
        run("CachedAttention", {**queries, **cache, **rest, **change}, 3, **_attributes())


def test_ids_outside_the_table_are_refused():
    held = matrix(50, 64, 4, 32, False)
    for bad in (-1, 50):
        with pytest.raises(Exception, match="an id outside the table"):
            run("QuantizedRows", {"w": held.tiles, "ids": np.array([bad])}, **held.layout.attributes())


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_attention_of_any_shape_is_that_of_its_tokens_and_of_the_definition(data):
    kv_heads, group = data.draw(st.integers(1, 2)), data.draw(st.sampled_from([1, 2, 3, 5, 8]))
    dim, seq = data.draw(st.sampled_from([8, 16, 40, 64, 80])), data.draw(st.integers(1, 70))
    past, room = data.draw(st.sampled_from([0, 5, 240, 530])), data.draw(st.integers(0, 40))
    window = data.draw(st.sampled_from([0, 1, 17, 260]))
    heads, total, random = kv_heads * group, past + seq, np.random.default_rng(seq)
    width = (heads + 2 * kv_heads) * dim
    rows = random.standard_normal((1, total, width)).astype(np.float32)
    cache = {name: np.zeros((1, kv_heads, total + room, dim), np.float32) for name in ("past_k", "past_v")}
    attributes = {
        "num_heads": heads,
        "kv_num_heads": kv_heads,
        "scale": 0.2,
        "local_window_size": window or -1,
    }

    def attend(first: int, last: int, threads: int) -> Array:
        nonlocal cache
        piece = {"qkv": np.ascontiguousarray(rows[:, first:last]), "k": None, "v": None}
        lengths = {"last": np.full(1, last - 1, np.int32), "total": np.array([last], np.int32)}
        out, *filled = run("CachedAttention", {**piece, **cache, **lengths}, 3, threads=threads, **attributes)
        cache = dict(zip(cache, filled, strict=True))
        return out

    if past:
        attend(0, past, 2)
    whole = attend(past, total, 2)
    cut = data.draw(st.integers(0, seq))
    parts = [attend(past + i, past + j, 1) for i, j in ((0, cut), (cut, seq)) if j > i]
    last = attend(total - 1, total, 1)
    assert np.array_equal(np.concatenate(parts, axis=1), whole) and np.array_equal(last, whole[:, -1:])
    q, k, v = np.split(rows[0].astype(np.float64).reshape(total, -1, dim), [heads, heads + kv_heads], axis=1)
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    gap = np.arange(past, total)[:, None] - np.arange(total)
    scores = np.where((gap < 0) | ((gap >= window) if window else False), -np.inf, 0)
    scores = scores + np.einsum("qhd,khd->hqk", q[past:], k) * 0.2
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = np.einsum("hqk,khd->qhd", weights / weights.sum(-1, keepdims=True), v)
    assert np.abs(whole[0].reshape(seq, heads, dim) - expected).max() <= 1e-5 * np.abs(v).max()
