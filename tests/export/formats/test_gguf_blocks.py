"""Codes in GGUF's blocks, against the gguf package's own reading of them."""

import numpy as np
import pytest
import torch
from edgepress.compress.model.gguf.entry import Part
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.compress.numbers.scheme import Scheme
from edgepress.errors import ShapeError
from edgepress.export.formats.gguf import packed
from gguf.quants import dequantize


def tensor_of(scheme: Scheme, rows: int = 5, columns: int = 192) -> QTensor:
    generator = torch.Generator().manual_seed(scheme.bits)
    low, high = scheme.code_range
    codes = torch.randint(low, high + 1, (rows, columns), generator=generator, dtype=torch.int8)
    scale = torch.rand(rows, columns // (scheme.group_size or columns), generator=generator) - 0.5
    return QTensor(scheme, codes, scale.half().float(), None)


@pytest.mark.parametrize(
    ("scheme", "kind"),
    [
        *(("W4A16-g32", "Q4_0"), ("W5A16-g32", "Q5_0"), ("W8A16-g32", "Q8_0")),
        *(("W5A16-g64", "Q5_0"), ("W4A16-channel", "Q4_0")),
    ],
)
def test_blocks_are_read_as_the_codes_say(scheme: str, kind: str) -> None:
    tensor = tensor_of(Scheme.parse(scheme))
    found, kept_in = packed(tensor, Part("x.weight"), "TQ2_0")
    assert kept_in.name == kind
    assert np.array_equal(dequantize(found, kept_in), tensor.dequantize().numpy())


def test_codes_without_a_type_are_refused_by_name() -> None:
    with pytest.raises(ShapeError, match="x is W6A16-g32, which GGUF has no type for") as refused:
        packed(tensor_of(Scheme.parse("W6A16-g32")), Part("x.weight"), "TQ2_0")
    assert "4, 5 or 8 bits" in str(refused.value.fix)
