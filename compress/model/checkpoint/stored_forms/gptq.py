"""GPTQ's checkpoints, as auto-gptq and GPTQModel write them (Frantar et al., GPTQ, 2022, arXiv 2210.17323).

``qweight [in · bits / 32, out]`` holds the codes of an output channel one below the other as a stream of
bits, lowest first; ``qzeros [groups, out · bits / 32]`` the zero points of a group side by side; ``scales
[groups, out]``; ``g_idx [in]`` the group of each input, in any order where inputs were sorted by activation
(``desc_act``). A weight is ``(code − zero point) · scale``, where codes count from 0.

The first version of the form (``checkpoint_format: gptq``) stores zero points less by one. GPTQModel takes
one off whole words, so that a zero point of 0 borrows from the next code: one is added in the same way. Of 3
bits, which cross words, each code is counted by itself.
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
from ._parts import (
    FLOATS,
    WORD,
    WORDS,
    Grid,
    Parts,
    as_codes,
    dequantized,
    modules_with,
    scheme_of,
    unsigned,
    whole,
)

BITS = (2, 3, 4, 8)
_FIRST, _SECOND = "gptq", "gptq_v2"


class Gptq:
    """The form."""

    def described(self, settings: Mapping[str, Any]) -> str:
        """With the size of its groups."""
        return f"GPTQ, {groups_said(settings.get('group_size', -1))}"

    def weights(
        self, settings: Mapping[str, Any], tensors: Mapping[str, TensorEntry], read: Read
    ) -> dict[str, CodedWeight]:
        """Every linear with a ``qweight``."""
        version = settings.get("checkpoint_format") or _FIRST
        if version not in (_FIRST, _SECOND) or settings.get("is_marlin_format"):
            raise CheckpointError(
                f"quantization_config has the checkpoint_format {version!r:.80}: of GPTQ's forms "
                f"{_FIRST} and {_SECOND} are read",
                fix="load it with gptqmodel and save it in one of these",
            )
        return {
            module: gptq_weight(Parts(module, tensors), settings, first=version == _FIRST)
            for module in modules_with("qweight", tensors)
        }


def groups_said(size: object) -> str:
    """``groups of 128`` for a ``group_size``."""
    return f"groups of {size}" if isinstance(size, int) and size > 0 else "one scale per channel"


def gptq_weight(parts: Parts, settings: Mapping[str, Any], *, first: bool) -> CodedWeight:
    """The linear that ``parts`` store; ``first``: in the first version of the form."""
    rows, out = parts.take("qweight", WORDS)
    groups = parts.take("scales", FLOATS)
    zeros = parts.take("qzeros", WORDS)
    ordered = "g_idx" in parts
    inputs = parts.take("g_idx", ("I32", "I64"), 1)[0] if ordered else 0
    bits = rows * WORD // inputs if ordered else whole(settings, "bits")
    if bits not in BITS:
        raise parts.refuse(f"codes of {bits} bits, where {', '.join(map(str, BITS))} are read")
    inputs = inputs or rows * WORD // bits
    fits = inputs * bits == rows * WORD and groups[1] == out and groups[0] <= inputs
    if not fits or zeros != (groups[0], -(-out * bits // WORD)) or out * bits % WORD:
        raise parts.refuse(f"{out} × {inputs} codes of {bits} bits were expected")
    if not ordered and inputs % groups[0]:
        raise parts.refuse(f"{groups[0]} groups do not divide {inputs} inputs, and there is no g_idx")
    stored = _Stored(parts.module, bits, inputs, groups[0], ordered, first)
    return CodedWeight(
        (out, inputs), tuple(parts.names), bits, stored.dequantized, stored.scheme, stored.codes
    )


@dataclass(frozen=True)
class _Stored:
    """A linear whose parts fit; ``ordered``: it says which group each input is in."""

    module: str
    bits: int
    inputs: int
    groups: int
    ordered: bool
    first: bool

    def dequantized(self, read: Read) -> Tensor:
        return dequantized(self._grid(read))

    def scheme(self, read: Read) -> Scheme | None:
        return scheme_of(self.bits, self.inputs, self._zero_point(read), self._group_of(read))

    def codes(self, scheme: Scheme, read: Read) -> QTensor:
        return as_codes(self.module, scheme, self._grid(read))

    def _grid(self, read: Read) -> Grid:
        words = read(f"{self.module}.qweight").view(torch.int32).T.contiguous()
        scale = read(f"{self.module}.scales").to(torch.float32).T.contiguous()
        codes = unpack(words, self.bits, self.inputs)
        return Grid(self.bits, codes, scale, self._zero_point(read), self._group_of(read))

    def _zero_point(self, read: Read) -> Tensor:
        words = read(f"{self.module}.qzeros").view(torch.int32)
        whole_words = WORD % self.bits == 0
        if self.first and whole_words:
            words = _one_more(words, self.bits)
        points = unpack(words, self.bits, words.shape[1] * WORD // self.bits).T.contiguous()
        if self.first and not whole_words:
            half = 1 << (self.bits - 1)
            points = ((points + half + 1) & (2 * half - 1)) - half
        return points

    def _group_of(self, read: Read) -> Tensor | None:
        if not self.ordered:
            return None
        found = read(f"{self.module}.g_idx").long()
        if not 0 <= int(found.min()) <= int(found.max()) < self.groups:
            raise CheckpointError(
                f"{self.module}.g_idx names groups that have no scale: there are {self.groups}"
            )
        return found


def _one_more(words: Tensor, bits: int) -> Tensor:
    """``words`` with one added to each code; a carry goes to the next code of a word."""
    found = unsigned(unsigned(words) + sum(1 << start for start in range(0, WORD, bits)))
    return torch.where(found >= 1 << (WORD - 1), found - (1 << WORD), found).to(torch.int32)


FORM: StoredForm = Gptq()
