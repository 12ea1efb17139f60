"""Packed ternary blocks: what the gguf package and transformers unpack, and what they pack themselves."""

import gguf
import numpy as np
import pytest
import torch
from edgepress.errors import ShapeError
from edgepress.export.formats._ternary import block_scales, four_rows, tq1_0, tq2_0
from gguf import GGMLQuantizationType as Kind

CODES = np.random.default_rng(0).integers(-1, 2, (6, 512)).astype(np.int8)
SCALES = np.random.default_rng(1).uniform(0.01, 0.1, (6, 2)).astype(np.float16)
DENSE = CODES * np.repeat(SCALES.astype(np.float32), 256, axis=1)


@pytest.mark.parametrize(("pack", "kind", "bytes_"), [(tq1_0, Kind.TQ1_0, 54), (tq2_0, Kind.TQ2_0, 66)])
def test_gguf_blocks(pack: object, kind: Kind, bytes_: int) -> None:
    packed = pack(CODES, SCALES)  # type: ignore[operator]
    assert packed.shape == (6, 2 * bytes_)
    assert np.array_equal(gguf.quants.dequantize(packed, kind), DENSE)
    assert np.array_equal(packed, gguf.quants.quantize(DENSE, kind))


def test_scales_of_a_block_are_one() -> None:
    groups = np.repeat(SCALES.astype(np.float32), 2, axis=1)
    assert np.array_equal(block_scales(groups, 512, "w"), SCALES)
    with pytest.raises(ShapeError, match="several scales"):
        block_scales(np.arange(24, dtype=np.float32).reshape(6, 4), 512, "w")
    with pytest.raises(ShapeError, match="320 input channels"):
        block_scales(groups[:, :1], 320, "w")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_rows_as_transformers_packs_them() -> None:
    from transformers.integrations.bitnet import pack_weights

    codes = CODES[:4]
    expected = pack_weights(torch.from_numpy(codes.copy()))
    assert np.array_equal(four_rows(codes), expected.numpy())
    with pytest.raises(ShapeError, match="multiple of four"):
        four_rows(CODES)
