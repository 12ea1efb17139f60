"""Weights in FP8 (E4M3) with a scale for each block, as DeepSeek-V3 and Qwen3 are published (DeepSeek-AI,
DeepSeek-V3, 2024, arXiv 2412.19437), or with one for a whole matrix or row.

``weight [out, in]``; ``weight_scale_inv [blocks of rows, blocks of columns]``, which a code is multiplied by;
without ``weight_block_size`` a single number, or ``weight_scale`` as AutoFP8 writes it.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

from torch import Tensor

from ..coded_weights import CodedWeight, Read, StoredForm
from ..header import TensorEntry
from ._parts import FLOATS, Block, Parts, block_of, block_scaled, modules_with, scales_fit

BITS = 8
CODES = ("F8_E4M3", "F8_E5M2")
SCALES = (*FLOATS, "F8_E8M0")
_INVERSE, _PLAIN = "weight_scale_inv", "weight_scale"


class Fp8:
    """The form."""

    def described(self, settings: Mapping[str, Any]) -> str:
        """With the size of its blocks."""
        block = block_of(settings, "weight_block_size")
        return "FP8" if block is None else f"FP8, blocks of {block[0]} × {block[1]}"

    def weights(
        self, settings: Mapping[str, Any], tensors: Mapping[str, TensorEntry], read: Read
    ) -> dict[str, CodedWeight]:
        """Every linear with a scale."""
        block = block_of(settings, "weight_block_size")
        return {
            module: fp8_weight(Parts(module, tensors), part, block)
            for part in (_INVERSE, _PLAIN)
            for module in modules_with(part, tensors)
        }


def fp8_weight(parts: Parts, scale: str, block: Block | None, codes: str = "weight") -> CodedWeight:
    """The linear that ``parts`` store as ``codes``, with the scales ``scale``: of blocks, of rows or of
    all.
    """
    out, inputs = parts.take(codes, CODES)
    found = parts.take(scale, SCALES, None)
    size = block
    if prod(found) == 1:
        size = (out, inputs)
    elif block is None and found in ((out,), (out, 1)):
        size = (1, inputs)
    if size is None or (
        prod(found) > 1 and block is not None and not scales_fit(found, (out, inputs), block)
    ):
        raise parts.refuse("scales are of blocks that quantization_config gives, of rows, or of all")
    names, own = tuple(parts.names), size

    def dequantized(read: Read) -> Tensor:
        scales = read(names[1])
        return block_scaled(read(names[0]), scales.reshape(-(-out // own[0]), -(-inputs // own[1])), own)

    return CodedWeight((out, inputs), names, BITS, dequantized)


FORM: StoredForm = Fp8()
