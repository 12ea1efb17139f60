"""Blocks of GGUF's types, which the gguf package reads as we do, and words of a trellis: both round-trip."""

import numpy as np
import pytest
import torch
from edgepress.compress.model.checkpoint.packed_codes import (
    pack_blocks,
    pack_words,
    row_inputs,
    unpack_blocks,
    unpack_words,
    word_inputs,
)
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.compress.numbers.scheme import GGUF, Scheme
from edgepress.compress.numbers.super_blocks import quantize_blocks
from edgepress.errors import CheckpointError, ShapeError
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize


@pytest.mark.parametrize("name", GGUF)
def test_the_gguf_package_reads_what_the_codes_stand_for(name: str) -> None:
    weight = torch.randn(12, 512, generator=torch.Generator().manual_seed(0)) * 0.03
    weight[1], weight[2, :256], weight[3] = 0, 0, weight[3].abs()
    weight[4] *= 1e4
    scheme = Scheme.parse(name)
    kind = GGMLQuantizationType[scheme.name]
    tensor = quantize_blocks(weight, scheme)
    blocks = pack_blocks(tensor)
    inputs, stored = GGML_QUANT_SIZES[kind]
    assert blocks.shape == (12, 512 // inputs * stored) and row_inputs(scheme, blocks.shape[1]) == 512
    assert 8 * stored / inputs == scheme.bits_per_weight(512)
    assert torch.equal(torch.from_numpy(dequantize(blocks.numpy(), kind)), tensor.dequantize())
    read = unpack_blocks(blocks, scheme)
    assert torch.equal(read.codes, tensor.codes) and torch.equal(read.scale, tensor.scale)
    assert torch.equal(unpack_blocks(pack_blocks(read), scheme).dequantize(), tensor.dequantize())


@pytest.mark.parametrize("name", GGUF)
def test_any_bytes_are_read_as_the_gguf_package_reads_them(name: str) -> None:
    scheme = Scheme.parse(name)
    kind = GGMLQuantizationType[scheme.name]
    stored = GGML_QUANT_SIZES[kind][1]
    blocks = torch.randint(
        0, 256, (64, stored), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )
    with np.errstate(invalid="ignore"):  # some units are NaN
        expected = torch.from_numpy(dequantize(blocks.numpy(), kind))
    found = unpack_blocks(blocks, scheme)
    finite = expected.isfinite().all(1)
    assert finite.sum() > 40 and torch.equal(found.dequantize()[finite], expected[finite])


def test_what_is_none_of_the_type_is_refused() -> None:
    scheme = Scheme.parse("Q6_K")
    scales = torch.rand(1, 16, generator=torch.Generator().manual_seed(0)) + 0.5
    with pytest.raises(ShapeError, match="count in no unit"):
        pack_blocks(QTensor(scheme, torch.zeros(1, 256, dtype=torch.int8), scales))
    with pytest.raises(CheckpointError, match="no whole blocks of Q6_K"):
        row_inputs(scheme, 211)


@pytest.mark.parametrize(("bits", "rows"), [(2, 8), (3, 8), (3, 21), (4, 16)])
def test_words_are_the_bits_of_their_symbols(bits: int, rows: int) -> None:
    scheme = Scheme.parse(f"T{bits}A16")
    codes = torch.randint(0, 1 << bits, (rows, 40), generator=torch.Generator().manual_seed(bits))
    words = pack_words(QTensor(scheme, codes.to(torch.int8), torch.ones(rows, 1)))
    assert words.shape == (-(-rows // 8), 5 * 8 * bits) and word_inputs(scheme, words.shape[1]) == 40
    word = int.from_bytes(words[0, : 8 * bits].numpy().tobytes(), "little")
    for place in range(64):  # row by row
        assert word >> bits * place & (1 << bits) - 1 == int(codes[place // 8, place % 8])
    assert torch.equal(unpack_words(words, bits)[:rows], codes.to(torch.int8))
    with pytest.raises(CheckpointError, match=f"no whole words of {scheme.name}"):
        word_inputs(scheme, words.shape[1] - 1)
