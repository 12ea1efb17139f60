"""torchao's checkpoints, as transformers writes them to safetensors (Or et al., TorchAO, 2025, arXiv
2507.16099).

Of a matrix ``X.weight`` the parts are ``X._weight_qdata``, ``X._weight_scale`` and ``X._weight_zero_point``.
Of which of torchao's tensors they are, and what shares a scale (``block_size``), is JSON in the metadata of
the file. ``Int8Tensor`` and ``IntxUnpackedToInt8Tensor``: codes ``[out, in]`` int8 of 1 to 8 bits, scales and
zero points by blocks; a weight is ``(code − zero point) · scale``. ``Int4Tensor``: two signed codes a byte,
the first one low, scales and zero points ``[groups, out]`` in float; ``code · scale + zero point``.
``Float8Tensor``: FP8 with scales by blocks.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .....errors import CheckpointError
from ....numbers.qtensor import QTensor
from ....numbers.scheme import Scheme
from ..coded_weights import CodedWeight, Notes, Read, StoredForm
from ..header import METADATA, TensorEntry
from ._parts import FLOATS, Block, Grid, Parts, as_codes, block_of, block_scaled, modules_with, scheme_of
from .fp8 import fp8_weight

_DATA, _SCALE, _ZERO = "_weight_qdata", "_weight_scale", "_weight_zero_point"
_PRE_SCALE = "_weight_act_pre_scale"
_ACTIVATIONS = ("_weight_act_quant_scale", "_weight_act_quant_zero_point")  # a weight does without them
_BEFORE = "start from the model as it was before it was quantized"


class TorchAo:
    """The form."""

    def described(self, settings: Mapping[str, Any]) -> str:
        """With the name of torchao's config."""
        types = settings.get("quant_type")
        default = types.get("default") if isinstance(types, dict) else None
        name = default.get("_type") if isinstance(default, dict) else None
        return f"torchao, {name!s:.60}" if name else "torchao"

    def weights(
        self, settings: Mapping[str, Any], tensors: Mapping[str, TensorEntry], read: Read
    ) -> dict[str, CodedWeight]:
        """Every matrix with codes."""
        other = next((name for name in tensors if name.endswith("qdata") and not _is_weight(name)), None)
        if other is not None:
            raise CheckpointError(
                f"{other} holds codes that are of no matrix X.weight, or named as torchao before 0.15 did",
                fix=f"save the model again with transformers 5 and torchao 0.15 or later, or {_BEFORE}",
            )
        notes: Notes = settings[METADATA]
        said, found = notes(), {}
        for module in modules_with(_DATA, tensors):
            parts = Parts(module, tensors)
            kind, values = _note(module, said)
            if kind not in _KINDS:
                raise CheckpointError(
                    f"{module} is stored as torchao's {kind!a:.60}; {', '.join(_KINDS)} are read",
                    why="its other kinds are laid out for kernels of one processor, or four-bit floats",
                    fix=f"save it in one of these (int4_packing_format=plain), or {_BEFORE}",
                )
            if _PRE_SCALE in parts:
                raise CheckpointError(
                    f"{module}.{_PRE_SCALE} scales an activation, which the model as it was before does not",
                    fix=_BEFORE,
                )
            found[module] = _KINDS[kind](parts, values)
        return found


def _is_weight(name: str) -> bool:
    return name.endswith(f".{_DATA}")


def _note(module: str, notes: Mapping[str, str]) -> tuple[str, Mapping[str, Any]]:
    """The kind of torchao's tensor, and its attributes."""
    try:
        found = json.loads(notes.get(f"{module}.weight", ""))
    except (ValueError, RecursionError):
        found = None
    values = found.get("_data") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(values, dict):
        raise CheckpointError(
            f"{module} has codes of torchao, and the metadata of their file does not say of which kind",
            fix="save the model again with transformers, or " + _BEFORE,
        )
    return str(found.get("_type")), values


def _blocks(parts: Parts, shape: tuple[int, int], values: Mapping[str, Any]) -> Block:
    block = block_of(values, "block_size")
    if block is None or shape[0] % block[0] or shape[1] % block[1]:
        raise parts.refuse(f"its block_size {values.get('block_size')!a:.40} does not divide {list(shape)}")
    return block


def _integers(parts: Parts, values: Mapping[str, Any]) -> CodedWeight:
    out, inputs = parts.take(_DATA, ("I8",))
    block = _blocks(parts, (out, inputs), values)
    wanted = (out // block[0], inputs // block[1])
    fits = parts.take(_SCALE, FLOATS) == wanted
    if not fits or (_ZERO in parts and parts.take(_ZERO, ("I8", *FLOATS)) != wanted):
        raise parts.refuse(f"a scale and a zero point for each {block[0]} × {block[1]} were expected")
    whole = _ZERO not in parts or parts.entry(_ZERO).dtype == "I8"
    for part in _ACTIVATIONS:
        if part in parts:
            parts.take(part, ("I8", *FLOATS), None)
    stored = _Integers(parts.module, _bits(parts, values), block, wanted, _ZERO in parts)
    kept = (stored.scheme, stored.codes) if whole and block[0] == 1 else ()
    return CodedWeight((out, inputs), tuple(parts.names), stored.bits, stored.dequantized, *kept)


def _bits(parts: Parts, values: Mapping[str, Any]) -> int:
    """Those of ``target_dtype``; all of a byte where there is none."""
    kind = values.get("target_dtype")
    if kind is None:
        return 8
    name = str(kind.get("_data")) if isinstance(kind, dict) else ""
    if name not in (f"int{bits}" for bits in range(1, 9)):
        raise parts.refuse(f"its codes are said to be of the type {kind!a:.60}")
    return int(name.removeprefix("int"))


@dataclass(frozen=True)
class _Integers:
    """Codes a byte each, whose parts fit; ``scaled`` is the shape of scales and zero points."""

    module: str
    bits: int
    block: Block
    scaled: tuple[int, int]
    shifted: bool

    def dequantized(self, read: Read) -> Tensor:
        zero = read(f"{self.module}.{_ZERO}") if self.shifted else None
        return block_scaled(self._codes(read), read(f"{self.module}.{_SCALE}"), self.block, zero)

    def scheme(self, read: Read) -> Scheme | None:
        return scheme_of(self.bits, self.scaled[1] * self.block[1], self._zero_point(read), None)

    def codes(self, scheme: Scheme, read: Read) -> QTensor:
        scale = read(f"{self.module}.{_SCALE}").to(torch.float32)
        return as_codes(
            self.module, scheme, Grid(self.bits, self._codes(read), scale, self._zero_point(read))
        )

    def _codes(self, read: Read) -> Tensor:
        return self._in_range(_DATA, read)

    def _zero_point(self, read: Read) -> Tensor:
        return self._in_range(_ZERO, read) if self.shifted else torch.zeros(self.scaled, dtype=torch.int8)

    def _in_range(self, part: str, read: Read) -> Tensor:
        found, half = read(f"{self.module}.{part}"), 1 << (self.bits - 1)
        if not -half <= int(found.min()) <= int(found.max()) < half:
            raise CheckpointError(f"{self.module}.{part} holds values that are none of {self.bits} bits")
        return found


def _int4(parts: Parts, values: Mapping[str, Any]) -> CodedWeight:
    out, half = parts.take(_DATA, ("I8", "U8"))
    shape = (out, 2 * half)
    rows, size = _blocks(parts, shape, values)
    wanted = (shape[1] // size, out)
    fits = parts.take(_SCALE, FLOATS) == wanted and parts.take(_ZERO, FLOATS) == wanted
    if not fits or rows != 1 or values.get("shape") != list(shape):
        raise parts.refuse(f"scales and zero points of groups of {size} were expected, of {list(shape)}")
    data, scales, zeros = parts.names

    def dequantized(read: Read) -> Tensor:
        packed = read(data).view(torch.uint8)
        codes = torch.stack((packed & 15, packed >> 4), -1).flatten(1)
        weight = block_scaled((codes ^ 8).to(torch.int8) - 8, read(scales).T, (1, size))
        groups = weight.view(out, -1, size)
        groups += read(zeros).T.to(torch.float32).unsqueeze(-1)
        return weight

    return CodedWeight(shape, tuple(parts.names), 4, dequantized)


def _float8(parts: Parts, values: Mapping[str, Any]) -> CodedWeight:
    block = block_of(values, "block_size") if values.get("block_size") else None
    return fp8_weight(parts, _SCALE, block, _DATA)


_KINDS: Mapping[str, Callable[[Parts, Mapping[str, Any]], CodedWeight]] = {
    "Int8Tensor": _integers,
    "IntxUnpackedToInt8Tensor": _integers,
    "Int4Tensor": _int4,
    "Float8Tensor": _float8,
}

FORM: StoredForm = TorchAo()
