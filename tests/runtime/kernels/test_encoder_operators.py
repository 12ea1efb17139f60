"""The operators of encoders against naive references in numpy: products of integers, attention over packed
rows, and batches that are packed and unpacked; with every set of instructions the same bits.
"""

from dataclasses import dataclass, field
from math import erf
from typing import Any

import numpy as np
import pytest
from edgepress.export.graph.linear.integer_tiles import pack_lines
from edgepress.runtime.kernels.library import instructions, library
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from .conftest import SETS
from .test_operators import close, run

pytestmark = pytest.mark.skipif(library() is None, reason="the library of operators was not built here")
Array = NDArray[Any]
NONE, GELU, TANH_GELU, RELU = range(4)


@dataclass
class IntegerMatrix:
    """Random codes ``[rows, columns]``, and what they mean."""

    rows: int
    columns: int
    zero_points: bool = False
    weight: Array = field(init=False)  # float64
    inputs: dict[str, Array | None] = field(init=False)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.rows + self.columns)
        codes = random.integers(0, 256, (self.rows, self.columns)).astype(np.uint8)
        scales = (random.random(self.rows) * 0.02).astype(np.float32)
        zeros = random.integers(0, 256, self.rows).astype(np.uint8) if self.zero_points else None
        middle = np.full(self.rows, 128) if zeros is None else zeros
        self.weight = (codes - middle[:, None].astype(np.float64)) * scales[:, None]
        self.inputs = {"w": pack_lines(codes), "scales": scales, "zeros": zeros}

    def product(self, x: Array, bias: Array | None = None, **more: Any) -> Array:
        (found,) = run("IntegerProduct", {"x": x, **self.inputs, "bias": bias}, **self.attributes(), **more)
        return found

    def attributes(self) -> dict[str, int]:
        return {"N": self.rows, "K": self.columns}


def rounded(x: Array, scale: float = 0.0) -> Array:
    """``x [rows, columns]`` as the codes of its rows mean it, in float64; of one ``scale`` where given."""
    top = np.abs(x).max(-1, keepdims=True)
    step = top / np.float32(127.5)
    inverse = np.where(top > 1e-36, np.float32(127.5) / np.where(top > 0, top, 1), 0).astype(np.float32)
    if scale:
        step, inverse = np.float32(scale), np.float32(1) / np.float32(scale)
    return np.asarray(np.clip(np.rint(x * inverse), -128, 127).astype(np.float64) * step)


def activated(x: Array, activation: int) -> Array:
    if activation == GELU:
        return np.asarray(x * (1 + np.vectorize(erf)(x / np.sqrt(2))) / 2)
    if activation == TANH_GELU:
        return np.asarray(x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2)
    return np.maximum(x, 0) if activation == RELU else x


def normed(x: Array, scale: Array, bias: Array, epsilon: float) -> Array:
    x = x.astype(np.float64)
    centred = x - x.mean(-1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * scale + bias)


SHAPES = [(16, 64, 1), (50, 200, 3), (33, 127, 13), (1, 33, 9), (96, 576, 70), (112, 1, 8), (40, 100, 52)]


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("scale", [0.0, 0.011])
def test_a_product_is_that_of_codes_in_8_bits(kernels, zero_points, scale):
    for rows, columns, tokens in SHAPES:
        held = IntegerMatrix(rows, columns, zero_points)
        random = np.random.default_rng(1)
        x = random.standard_normal((tokens, columns)).astype(np.float32)
        bias = random.standard_normal(rows).astype(np.float32) if tokens > 1 else None
        added = 0 if bias is None else bias
        seen = rounded(x, scale)
        terms = np.abs(seen) @ np.abs(held.weight).T + 8
        close(held.product(x, bias, input_scale=scale), seen @ held.weight.T + added, terms)
        exact = held.product(x[None], bias, input_scale=scale, exact=1)
        close(exact[0], x @ held.weight.T + added, np.abs(x) @ np.abs(held.weight).T + 8)


@pytest.mark.parametrize("activation", [GELU, TANH_GELU, RELU])
def test_activation_functions_follow_a_product(kernels, activation):
    held = IntegerMatrix(50, 64)
    for size in (0.05, 1.0, 40.0):
        x = np.random.default_rng(2).standard_normal((9, 64)).astype(np.float32) * np.float32(size)
        for exact in (0, 1):
            before = held.product(x, exact=exact).astype(np.float64)
            found = held.product(x, exact=exact, activation=activation)
            assert (np.abs(found - activated(before, activation)) <= 1e-6 + 3e-7 * np.abs(before)).all()


def test_a_product_joins_its_residual_and_norm(kernels):
    random = np.random.default_rng(5)
    for rows, columns, tokens in SHAPES:
        held = IntegerMatrix(rows, columns)
        x = random.standard_normal((tokens, columns)).astype(np.float32)
        more = random.standard_normal((tokens + 3, rows)).astype(np.float32)
        inputs = {
            "x": x,
            **held.inputs,
            "bias": None,
            "residual": more[3:],
            "scale": more[0],
            "shift": more[1],
        }
        (found,) = run("IntegerProduct", inputs, epsilon=1e-3, **held.attributes())
        expected = normed(held.product(x) + more[3:], more[0], more[1], 1e-3)
        assert np.abs(found - expected).max() < 1e-4


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_row_does_not_depend_on_its_neighbours_nor_on_threads(data):
    tokens = data.draw(st.integers(1, 80))
    held = IntegerMatrix(
        data.draw(st.integers(1, 70)), data.draw(st.integers(1, 150)), data.draw(st.booleans())
    )
    size = data.draw(st.sampled_from([1e-42, 1e-30, 1.0, 1e30]))
    x = (np.random.default_rng(tokens).standard_normal((tokens, held.columns)) * size).astype(np.float32)
    activation = data.draw(st.integers(0, 3))
    together = held.product(x, threads=2, activation=activation)
    row = data.draw(st.integers(0, tokens - 1))
    alone = held.product(x[row : row + 1], activation=activation)
    assert np.array_equal(together[row], alone[0])
    assert np.isfinite(together).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("activation", range(4))
def test_what_is_no_number_is_seen(kernels, bad, activation):
    held = IntegerMatrix(50, 64)
    x = np.ones((2, 64), np.float32)
    x[1, 40] = bad
    found = held.product(x, activation=activation)
    assert np.isfinite(found[0]).all() and np.isnan(found[1]).all()


HEADS = 3


def attended(rows: Array, lengths: list[int], dim: int, scale: float) -> Array:
    """Attention of sequences ``[tokens, 3 · heads · dim]`` one after the other, in float64."""
    parts, at = [], 0
    for length in lengths:
        q, k, v = (
            rows[at : at + length].astype(np.float64).reshape(length, 3, HEADS, dim).transpose(1, 2, 0, 3)
        )
        scores = q @ k.transpose(0, 2, 1) * scale
        weights = np.exp(scores - scores.max(-1, keepdims=True)) if length else scores
        weights /= weights.sum(-1, keepdims=True)
        parts.append((weights @ v).transpose(1, 0, 2).reshape(length, HEADS * dim))
        at += length
    return np.concatenate(parts)


def _attend(rows: Array, lengths: list[int], scale: float, threads: int = 1, exact: int = 1) -> Array:
    inputs = {"rows": rows, "offsets": np.cumsum([0, *lengths])}
    return run("EncoderAttention", inputs, threads=threads, num_heads=HEADS, scale=scale, exact=exact)[0]


@pytest.mark.parametrize("dim", [1, 16, 24, 33, 64])
@pytest.mark.parametrize(("exact", "error"), [(1, 1e-5), (0, 2e-3)])
def test_attention_is_that_of_each_sequence_alone(kernels, dim, exact, error):
    lengths = [5, 0, 1, 33, 16, 97, 0] if kernels != "plain" else [5, 0, 1, 35]
    rows = np.random.default_rng(dim).standard_normal((sum(lengths), 3 * HEADS * dim)).astype(np.float32)
    found = _attend(rows, lengths, 0.3, threads=2, exact=exact)
    assert np.abs(found - attended(rows, lengths, dim, 0.3)).max() < error
    start = sum(lengths[:3])
    alone = _attend(rows[start : start + lengths[3]], lengths[3:4], 0.3, exact=exact)
    assert np.array_equal(found[start : start + lengths[3]], alone)


@pytest.mark.parametrize("exact", [0, 1])
def test_attention_to_large_scores_and_to_nothing(kernels, exact):
    rows = np.random.default_rng(1).standard_normal((40, 3 * HEADS * 16)).astype(np.float32)
    rows[:, : 2 * HEADS * 16] *= 3
    assert np.abs(_attend(rows, [40], 1.0, exact=exact) - attended(rows, [40], 16, 1.0)).max() < 0.02
    same = np.ones((600, 3 * HEADS * 16), np.float32)  # the largest sums of codes
    np.testing.assert_allclose(_attend(same, [600], 1.0, exact=exact), 1, atol=1e-3)
    assert not _attend(same * 0, [600], 1.0, exact=exact).any()
    assert _attend(rows[:0], [0, 0], 1.0, exact=exact).shape == (0, HEADS * 16)


@pytest.mark.parametrize("exact", [0, 1])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_attention_to_what_is_no_number_is_seen_in_its_sequence_alone(kernels, exact, bad):
    rows = np.random.default_rng(1).standard_normal((80, 3 * HEADS * 16)).astype(np.float32)
    rows[60] = bad
    found = _attend(rows, [40, 40], 0.3, exact=exact)
    assert np.isfinite(found[:40]).all() and not np.isfinite(found[60]).any()


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("groups", [1, 3])
def test_embeddings_are_sums_of_rows_and_their_norm(kernels, zero_points, typed, groups):
    random = np.random.default_rng(groups)
    codes = random.integers(0, 256, (9, 51)).astype(np.uint8)
    scales = (0.01 + random.random((9, groups))).astype(np.float32)
    zeros = random.integers(0, 256, (9, groups)).astype(np.uint8) if zero_points else None
    ids, positions, types = (random.integers(0, size, 40) for size in (9, 5, 2))
    scale, shift, *tables = random.standard_normal((9, 51)).astype(np.float32)
    places, kinds = np.stack(tables[:5]), np.stack(tables[5:])
    inputs = {"scale": scale, "shift": shift, "ids": ids, "positions": positions, "types": types}
    inputs |= {"codes": codes, "scales": scales, "places": places}
    inputs |= {"kinds": kinds if typed else None, "zeros": zeros}
    middle, step = (
        np.repeat(part, 51 // groups, 1) for part in (scales * 0 + 128 if zeros is None else zeros, scales)
    )
    total = (
        ((codes - middle.astype(np.float64)) * step)[ids] + places[positions] + (kinds[types] if typed else 0)
    )
    (found,) = run("EncoderEmbeddings", inputs, threads=2, epsilon=1e-5)
    assert np.abs(found - normed(total, scale, shift, 1e-5)).max() < 1e-4


MASK = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 1]])
IDS = np.array([[5, 6, 1, 1], [1, 1, 1, 1], [7, 1, 1, 8]])


def test_tokens_are_packed_and_unpacked():
    types = np.arange(12).reshape(3, 4)
    ids, positions, kinds, offsets = run("PackTokens", {"ids": IDS, "mask": MASK, "types": types}, 4)
    assert ids.tolist() == [5, 6, 7, 1, 8] and positions.tolist() == [0, 1, 0, 2, 3]
    assert kinds.tolist() == [0, 1, 8, 10, 11] and offsets.tolist() == [0, 2, 2, 5]
    counted = run("PackTokens", {"ids": IDS, "mask": MASK, "types": None}, 4, position_offset=2)
    # RoBERTa counts the tokens that are not padding (1) from 2 on, whatever the mask says.
    assert counted[1].tolist() == [2, 3, 2, 1, 3] and not counted[2].any()
    rows = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    (states,) = run("UnpackTokens", {"rows": rows, "mask": MASK})
    assert np.array_equal(states[MASK == 1], rows) and not states[MASK == 0].any()


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("unit", [0, 1])
def test_texts_are_pooled(first, unit):
    rows = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    inputs = {"rows": rows, "offsets": np.array([0, 2, 2, 5])}
    (found,) = run("PoolTokens", inputs, first=first, unit=unit)
    expected = [rows[0] if first else rows[:2].mean(0), rows[0] * 0, rows[2] if first else rows[2:].mean(0)]
    lengths = [np.linalg.norm(row) if unit and row.any() else 1 for row in expected]
    np.testing.assert_allclose(found, np.array(expected) / np.array(lengths)[:, None], atol=1e-6)


def test_every_set_of_instructions_gives_the_same_bits(monkeypatch):
    held = IntegerMatrix(50, 200, zero_points=True)
    random = np.random.default_rng(3)
    x = random.standard_normal((19, 200)).astype(np.float32)
    rows = random.standard_normal((50, 3 * HEADS * 24)).astype(np.float32)
    found = {}
    for name in SETS:
        monkeypatch.setenv("EDGEPRESS_KERNELS", name)
        if instructions() == name:
            products = [held.product(x * 9, activation=number) for number in range(4)]
            attention = [_attend(rows, [43, 7], 0.3, exact=exact) for exact in (0, 1)]
            found[name] = [*products, *attention]
    for values in found.values():
        for ours, plain in zip(values, found["plain"], strict=True):
            assert np.array_equal(ours, plain)


@pytest.mark.parametrize(
    "change",
    [
        {"N": 0},
        {"N": 1 << 40},
        {"N": 66},
        {"K": 0},
        {"K": 63},
        {"K": 1 << 20},
        {"activation": 4},
        {"activation": -1},
        {"input_scale": -1.0},
        {"input_scale": float("nan")},
        {"input_scale": 1e-40},
        {"scales": np.zeros(49, np.float32)},
        {"w": np.zeros(0, np.uint8)},
        {"zeros": np.zeros(49, np.uint8)},
        {"bias": np.zeros(51, np.float32)},
        {"residual": np.zeros((2, 50), np.float32)},
        {"scale": np.zeros(49, np.float32)},
        {"shift": None},
    ],
)
def test_products_of_sizes_that_do_not_fit_are_refused(change):
    held = IntegerMatrix(50, 64)
    row = np.zeros(50, np.float32)
    inputs = {"x": np.zeros((1, 64), np.float32), **held.inputs}
    inputs |= {"bias": row, "residual": row[None], "scale": row, "shift": row}
    attributes = held.attributes() | {name: value for name, value in change.items() if name not in inputs}
    inputs |= {name: value for name, value in change.items() if name in inputs}
    with pytest.raises(Exception, match="edgepress: "):
        run("IntegerProduct", inputs, **attributes)


ROWS = np.zeros((5, 18), np.float32)
TOKENS = np.array([0, 4])
TABLES: dict[str, Array | None] = {
    "scale": ROWS[0],
    "shift": ROWS[0],
    "ids": TOKENS,
    "positions": TOKENS,
    "types": TOKENS,
    "codes": np.zeros((5, 18), np.uint8),
    "scales": ROWS[:, :3],
    "places": ROWS,
    "kinds": ROWS,
    "zeros": np.zeros((5, 3), np.uint8),
}


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("EncoderAttention", {"rows": ROWS, "offsets": np.array([0, 6])}, {"num_heads": 3}),
        ("EncoderAttention", {"rows": ROWS, "offsets": np.array([0, 9, 5])}, {"num_heads": 3}),
        ("EncoderAttention", {"rows": ROWS, "offsets": np.array([0, -1, 5])}, {"num_heads": 3}),
        ("EncoderAttention", {"rows": ROWS, "offsets": np.array([1, 5])}, {"num_heads": 3}),
        ("EncoderAttention", {"rows": ROWS, "offsets": np.zeros(0, np.int64)}, {"num_heads": 3}),
        ("EncoderAttention", {"rows": ROWS, "offsets": np.array([0, 5])}, {"num_heads": 4}),
        ("EncoderAttention", {"rows": ROWS, "offsets": np.array([0, 5])}, {"num_heads": 0}),
        ("EncoderAttention", {"rows": ROWS[0], "offsets": np.array([0, 5])}, {"num_heads": 3}),
        ("PoolTokens", {"rows": ROWS, "offsets": np.array([0, 6])}, {}),
        ("PoolTokens", {"rows": ROWS, "offsets": np.array([0, 7, 5])}, {}),
        ("UnpackTokens", {"rows": ROWS, "mask": np.ones((2, 3), np.int64)}, {}),
        ("PackTokens", {"ids": IDS, "mask": MASK[:2], "types": None}, {}),
        ("PackTokens", {"ids": IDS, "mask": MASK, "types": IDS[:1]}, {}),
        ("PackTokens", {"ids": IDS[0], "mask": MASK[0], "types": None}, {}),
        ("EncoderEmbeddings", TABLES | {"ids": np.array([0, 5])}, {}),
        ("EncoderEmbeddings", TABLES | {"positions": np.array([-1, 0])}, {}),
        ("EncoderEmbeddings", TABLES | {"types": np.array([5, 0])}, {}),
        ("EncoderEmbeddings", TABLES | {"types": np.array([0])}, {}),
        ("EncoderEmbeddings", TABLES | {"places": ROWS[:4]}, {}),
        ("EncoderEmbeddings", TABLES | {"places": ROWS[:, :9]}, {}),
        ("EncoderEmbeddings", TABLES | {"kinds": ROWS[:, :9]}, {}),
        ("EncoderEmbeddings", TABLES | {"scales": ROWS[:4, :3]}, {}),
        ("EncoderEmbeddings", TABLES | {"scales": ROWS[:, :4]}, {}),
        ("EncoderEmbeddings", TABLES | {"zeros": np.zeros((5, 2), np.uint8)}, {}),
        ("EncoderEmbeddings", TABLES | {"codes": np.zeros((5, 17), np.uint8)}, {}),
        ("EncoderEmbeddings", TABLES | {"shift": ROWS[0, :9]}, {}),
    ],
)
def test_sizes_that_do_not_fit_are_refused(op, inputs, attributes):
    with pytest.raises(Exception, match="edgepress: "):
        run(op, inputs, 4 if op == "PackTokens" else 1, **attributes)
