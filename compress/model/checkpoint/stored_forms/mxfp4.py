"""MXFP4 as gpt-oss is published (OpenAI, gpt-oss-120b & gpt-oss-20b Model Card, 2025, arXiv 2508.10925; the
numbers: Rouhani et al., Microscaling Data Formats for Deep Learning, 2023, arXiv 2310.10537): the matrices of
its experts, which :mod:`.tensor_names` gives one by one.

``blocks [out, groups, 16]`` holds the E2M1 codes of 32 inputs, two a byte, the first one low; ``scales [out,
groups]`` the exponent of what they are multiplied by, plus 127.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .....errors import CheckpointError
from ....numbers.qtensor import QTensor
from ....numbers.scheme import Scheme
from ..coded_weights import CodedWeight, Read, StoredForm
from ..header import TensorEntry
from ..packed_codes import unpack_e2m1, unpack_e8m0
from ._parts import Parts, block_scaled, modules_with

BITS, GROUP = 4, 32
SCHEME = Scheme.parse("MXFP4A16")
_BYTES = GROUP * BITS // 8


class Mxfp4:
    """The form."""

    def described(self, settings: Mapping[str, Any]) -> str:
        """By its name alone: it has one kind of groups."""
        return "MXFP4"

    def weights(
        self, settings: Mapping[str, Any], tensors: Mapping[str, TensorEntry], read: Read
    ) -> dict[str, CodedWeight]:
        """Every matrix with ``blocks``."""
        return {module: _weight(Parts(module, tensors)) for module in modules_with("blocks", tensors)}


def _weight(parts: Parts) -> CodedWeight:
    out, groups, size = parts.take("blocks", ("U8",), 3)
    if parts.take("scales", ("U8",)) != (out, groups) or size != _BYTES:
        raise parts.refuse(f"blocks of {_BYTES} bytes with a scale each were expected")
    blocks, scales = parts.names

    module = parts.module

    def grid(read: Read) -> tuple[Tensor, Tensor]:
        """The codes doubled, and half their scales."""
        return unpack_e2m1(read(blocks).flatten(1)), unpack_e8m0(scales, read(scales)) / 2

    def dequantized(read: Read) -> Tensor:
        return block_scaled(*grid(read), (1, GROUP))

    def codes(scheme: Scheme, read: Read) -> QTensor:
        codes, scale = grid(read)
        if not bool(torch.isfinite(codes.view(out, groups, GROUP).abs().amax(-1) * scale).all()):
            raise CheckpointError(f"{module} holds weights that are not finite in float32")
        return QTensor(scheme, codes, scale)

    return CodedWeight((out, groups * GROUP), (blocks, scales), BITS, dequantized, lambda read: SCHEME, codes)


FORM: StoredForm = Mxfp4()
