"""optimum-quanto's checkpoints; ``quanto_qmap.json`` beside config.json names the type of each linear.

Of 8 bits ``weight._data [out, in]`` holds int8 or FP8 and ``weight._scale [out, 1]`` what they are multiplied
by. Of 2 and 4 bits ``weight._data._data`` holds groups one below the other, and nothing says how many rows a
matrix has: optimum-quanto makes the model first and asks its linears.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor

from .....errors import CheckpointError
from ....numbers.qtensor import QTensor
from ....numbers.scheme import Scheme
from ..coded_weights import CodedWeight, Read, StoredForm
from ..header import TensorEntry
from ._blocks import block_scaled
from ._grids import Grid, as_codes
from ._parts import FLOATS, Parts, modules_with
from .fp8 import CODES

BITS = 8
_ROWS = Scheme(bits=BITS, group_size=None)
_DATA, _SCALE, _PACKED = "weight._data", "weight._scale", "weight._data._data"
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
        found = {}
        for stored in modules_with("_data", tensors):
            module, _, within = stored.rpartition(".weight")
            if within == "._data":
                raise CheckpointError(
                    f"{module} is stored in 2 or 4 bits by optimum-quanto, which does not say how many rows "
                    "a matrix has",
                    fix="open it with optimum-quanto, put weight.dequantize() in the place of each weight "
                    "and save the model, or start from the model as it was before it was quantized",
                )
            if module and not within:
                found[module] = _weight(Parts(module, tensors))
        return found


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
