"""optimum-quanto's checkpoints; ``quanto_qmap.json`` beside config.json names the type of each linear.

Of 8 bits ``weight._data [out, in]`` holds int8 or FP8 and ``weight._scale [out, 1]`` what they are multiplied
by. Of 2 and 4 bits ``weight._data._data`` holds groups one below the other, the first part of them in the
lowest bits of its bytes, the next part above; a weight is ``code · _scale − _shift``, or, where the shift is
an integer, ``(code − _shift) · _scale``. The file does not say how many rows a matrix has: optimum-quanto
makes the model first and asks its linears, and so does this.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor

from ....numbers.qtensor import QTensor
from ....numbers.scheme import Scheme
from ..coded_weights import CodedWeight, Read, StoredForm
from ..header import TensorEntry
from ..linear_shapes import LINEARS
from ._parts import FLOATS, Grid, Parts, as_codes, block_scaled, modules_with
from .fp8 import CODES

BITS = 8
_ROWS = Scheme(bits=BITS, group_size=None)
_DATA, _PACKED = "weight._data", "weight._data._data"
_SCALE, _SHIFT = "weight._scale", "weight._shift"
_PACKED_BITS = {"qint4": 4, "qint2": 2}
_INTEGERS = ("I8", "U8")
_ACTIVATIONS = ("input_scale", "output_scale")  # a weight does without them


class Quanto:
    """The form."""

    def described(self, settings: Mapping[str, Any]) -> str:
        """With the types of its numbers."""
        layers = [one["weights"] for one in settings.values() if isinstance(one, dict) and "weights" in one]
        return ", ".join(["optimum-quanto", *sorted({f"{one!s:.20}" for one in layers})[:4]])

    def weights(
        self, settings: Mapping[str, Any], tensors: Mapping[str, TensorEntry], read: Read
    ) -> dict[str, CodedWeight]:
        """Every linear with codes."""
        found, linears = {}, dict[str, tuple[int, int]]()
        for stored in modules_with("_data", tensors):
            module, _, within = stored.rpartition(".weight")
            if module and not within:
                found[module] = _weight(Parts(module, tensors))
            elif module and within == "._data":
                linears = linears or settings[LINEARS]()
                found[module] = _packed(Parts(module, tensors), settings.get(module), linears.get(module))
        return found


def _packed(parts: Parts, layer: Any, shape: tuple[int, int] | None) -> CodedWeight:
    """Of 2 or 4 bits, as ``quanto_qmap.json`` says of the ``layer``; its ``shape`` is the model's."""
    bits = _PACKED_BITS.get(str(layer.get("weights"))) if isinstance(layer, dict) else None
    rows, size = parts.take(_PACKED, ("U8",))
    groups = prod(parts.take(_SCALE, FLOATS))
    if bits is None or shape is None:
        raise parts.refuse("the model of config.json has no such linear, or nothing says its bits")
    fits = prod(shape) == groups * size and shape[1] % size == 0 and rows == -(-groups * bits // 8)
    shift = parts.take(_SHIFT, (*FLOATS, *_INTEGERS))
    if not fits or prod(shift) != groups:
        raise parts.refuse(f"{list(shape)} weights of {bits} bits in groups were expected")
    for part in _ACTIVATIONS:
        if part in parts:
            parts.take(part, FLOATS, None)
    packed, scale, shifted, *_ = parts.names
    whole = parts.entry(_SHIFT).dtype in _INTEGERS

    def dequantized(read: Read) -> Tensor:
        codes, weight = read(packed), torch.empty(groups, size)
        scales, shifts = (read(name).to(torch.float32).reshape(-1, 1) for name in (scale, shifted))
        for place in range(8 // bits):
            part = slice(place * rows, min((place + 1) * rows, groups))
            values = (codes >> bits * place & ((1 << bits) - 1))[: max(0, part.stop - part.start)]
            values = values.to(torch.float32)
            if whole:
                weight[part] = (values - shifts[part]) * scales[part]
            else:
                weight[part] = values * scales[part] - shifts[part]
        return weight.view(shape)

    return CodedWeight(shape, tuple(parts.names), bits, dequantized)


def _weight(parts: Parts) -> CodedWeight:
    shape = parts.take(_DATA, ("I8", *CODES))
    out, inputs = shape
    scale = parts.take(_SCALE, FLOATS, None)
    if prod(scale) != 1 and scale != (out, 1):
        raise parts.refuse("a scale for each row, or one, was expected")
    integers, by_row = parts.entry(_DATA).dtype == "I8", prod(scale) != 1 or out == 1
    for part in _ACTIVATIONS:
        if part in parts:
            parts.take(part, FLOATS, None)
    names, module = tuple(parts.names), parts.module

    def dequantized(read: Read) -> Tensor:
        scales = read(names[1]).reshape(-1, 1)
        return block_scaled(read(names[0]), scales, (1 if by_row else out, inputs))

    def codes(scheme: Scheme, read: Read) -> QTensor:
        scales = read(names[1]).to(torch.float32).reshape(-1, 1)
        return as_codes(
            module, scheme, Grid(BITS, read(names[0]), scales, torch.zeros(scales.shape, dtype=torch.int8))
        )

    if integers and by_row:
        return CodedWeight((out, inputs), names, BITS, dequantized, lambda read: _ROWS, codes)
    return CodedWeight((out, inputs), names, BITS, dequantized)


FORM: StoredForm = Quanto()
