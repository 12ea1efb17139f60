"""AWQ's checkpoints, as AutoAWQ writes them (Lin et al., AWQ, 2023, arXiv 2306.00978): its form ``gemm``.

``qweight [in, out / 8]`` holds the 4-bit codes of eight output channels in a word, in the order 0 2 4 6 1 3 5
7, the first one lowest; ``qzeros [groups, out / 8]`` the zero points in the same way; ``scales [groups,
out]``. A weight is ``(code − zero point) · scale``, where codes count from 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .....errors import CheckpointError
from ....numbers.qtensor import QTensor
from ....numbers.scheme import Scheme
from ..coded_weights import CodedWeight, Read, StoredForm
from ..header import TensorEntry
from ..packed_codes import unpack
from ._parts import FLOATS, WORD, WORDS, Grid, Parts, as_codes, dequantized, modules_with, scheme_of
from .gptq import groups_said

BITS = 4
_PLACES = [0, 4, 1, 5, 2, 6, 3, 7]  # of channels 0 to 7 in a word
_PER_WORD = WORD // BITS


class Awq:
    """The form."""

    def described(self, settings: Mapping[str, Any]) -> str:
        """With the size of its groups."""
        return f"AWQ, {groups_said(settings.get('group_size', settings.get('q_group_size', -1)))}"

    def weights(
        self, settings: Mapping[str, Any], tensors: Mapping[str, TensorEntry], read: Read
    ) -> dict[str, CodedWeight]:
        """Every linear with a ``qweight``."""
        version = str(settings.get("version", "gemm")).lower()
        bits = settings.get("bits", settings.get("w_bit", BITS))
        if version != "gemm" or bits != BITS:
            raise CheckpointError(
                f"quantization_config has the version {version!r:.80} with {bits!r:.20} bits: of AWQ's forms "
                f"gemm with {BITS} bits is read",
                fix="start from the model as it was before it was quantized",
            )
        scaled = next((name for name in tensors if name.endswith(".act.scales")), None)
        if scaled is not None:
            raise CheckpointError(
                f"{scaled} scales an activation, which the model as it was before does not do",
                fix="start from the model as it was before it was quantized",
            )
        return {module: awq_weight(Parts(module, tensors)) for module in modules_with("qweight", tensors)}


def awq_weight(parts: Parts) -> CodedWeight:
    """The linear that ``parts`` store."""
    inputs, words = parts.take("qweight", WORDS)
    groups, out = parts.take("scales", FLOATS)
    zeros = parts.take("qzeros", WORDS)
    if out != words * _PER_WORD or zeros != (groups, words) or inputs % groups:
        raise parts.refuse(f"{words * _PER_WORD} × {inputs} codes of {BITS} bits were expected")
    stored = _Stored(parts.module, inputs)
    return CodedWeight(
        (out, inputs), tuple(parts.names), BITS, stored.dequantized, stored.scheme, stored.codes
    )


@dataclass(frozen=True)
class _Stored:
    """A linear whose parts fit."""

    module: str
    inputs: int

    def dequantized(self, read: Read) -> Tensor:
        return dequantized(self._grid(read))

    def scheme(self, read: Read) -> Scheme | None:
        return scheme_of(BITS, self.inputs, _channels(read(f"{self.module}.qzeros")), None)

    def codes(self, scheme: Scheme, read: Read) -> QTensor:
        return as_codes(self.module, scheme, self._grid(read))

    def _grid(self, read: Read) -> Grid:
        codes, zeros = (_channels(read(f"{self.module}.{part}")) for part in ("qweight", "qzeros"))
        scale = read(f"{self.module}.scales").to(torch.float32).T.contiguous()
        return Grid(BITS, codes, scale, zeros)


def _channels(words: Tensor) -> Tensor:
    """Signed codes ``[out, rows]`` of ``words [rows, out / 8]``."""
    rows, count = words.shape
    stored = unpack(words.view(torch.int32), BITS, count * _PER_WORD)
    return stored.view(rows, count, _PER_WORD)[..., _PLACES].flatten(1).T.contiguous()


FORM: StoredForm = Awq()
