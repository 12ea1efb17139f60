"""Blocks of GGUF's types: the gguf package reads them as we do, and what is read is packed as it was."""

import numpy as np
import pytest
import torch
from edgepress.compress.model.checkpoint.packed_codes import pack_blocks, row_inputs, unpack_blocks
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
