"""The search for the scales of GGUF's types, held against llama.cpp's own on the same weights."""

import numpy as np
import pytest
import torch
from edgepress.compress.numbers.block_types import BLOCK_TYPES, POINTS
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.numbers.super_blocks import quantize_blocks

_DRAWN = np.random.default_rng(0)
WEIGHT = (_DRAWN.standard_normal((8, 512)) * _DRAWN.uniform(0.3, 1, (8, 1))).astype(np.float32)
WEIGHT[:, ::37] *= 4
IMPORTANCE = _DRAWN.uniform(0.05, 4, 512).astype(np.float32)
# Relative squared errors of `ggml_quantize_chunk` (llama-cpp-python 0.3.36), plain and by importance.
THEIRS = {
    "Q2_K": (0.10536, 0.07718),
    "Q3_K": (0.03638, 0.03234),
    "Q4_K": (0.006925, 0.006310),
    "Q5_K": (0.0017812, 0.0016654),
    "Q6_K": (0.0004689, 0.0004200),
    "IQ4_NL": (0.009090, 0.008278),
}


def error(found: torch.Tensor, importance: np.ndarray) -> float:
    weight = WEIGHT.astype(np.float64)
    left = np.square(found.numpy().astype(np.float64) - weight) * importance
    return float(left.sum() / (np.square(weight) * importance).sum())


@pytest.mark.parametrize("name", THEIRS)
def test_the_error_is_less_than_that_of_llama_cpp(name: str) -> None:
    scheme, weight = Scheme.parse(name), torch.from_numpy(WEIGHT)
    plain = quantize_blocks(weight, scheme).dequantize()
    weighed = quantize_blocks(weight, scheme, torch.from_numpy(IMPORTANCE)).dequantize()
    assert error(plain, np.ones(512)) < 0.98 * THEIRS[name][0]
    assert error(weighed, IMPORTANCE) < 0.98 * THEIRS[name][1]
    assert error(weighed, IMPORTANCE) < error(plain, IMPORTANCE)


@pytest.mark.parametrize("name", THEIRS)
def test_what_is_found_is_what_the_type_holds(name: str) -> None:
    weight = torch.from_numpy(WEIGHT).clone()
    weight[0], weight[1, :256] = 0, 0
    weight[2], weight[3] = weight[2].abs(), weight[3] * 1e-4
    scheme, kind = Scheme.parse(name), BLOCK_TYPES[name.lower()]
    tensor = quantize_blocks(weight, scheme)
    lowest, highest = scheme.code_range
    assert lowest <= int(tensor.codes.min()) and int(tensor.codes.max()) <= highest
    assert not kind.uneven or bool(torch.isin(tensor.codes, POINTS).all())
    assert (tensor.minimum is None) == (kind.minima == 0)
    assert torch.equal(tensor.dequantize()[0], weight[0])
    assert torch.equal(tensor.dequantize()[1, :256], weight[1, :256])
    assert torch.equal(tensor.rows(torch.tensor([2, 0])).dequantize(), tensor.dequantize()[[2, 0]])


def test_a_code_is_the_nearest_point() -> None:
    values = torch.linspace(-140, 130, 541) + 0.01
    nearest = (values[:, None] - POINTS).abs().argmin(1)
    assert torch.equal(BLOCK_TYPES["iq4_nl"].nearest(values.clone()), POINTS[nearest].float())


def test_names_and_sizes() -> None:
    for name in THEIRS:
        scheme = Scheme.parse(name.lower())
        assert scheme.name == name and scheme.of_gguf and scheme.group_size == BLOCK_TYPES[name.lower()].size
        assert scheme.block == (32 if name == "IQ4_NL" else 256)
    with pytest.raises(ValueError, match="its own bits and groups"):
        Scheme(bits=6, group_size=32, format="q6_k")
