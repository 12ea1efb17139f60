"""Activations, keys and values rounded in training, as a runtime will round them.

Keys and values come as a quantized cache would hand them back: a scale for each token and head, and a
gradient that passes straight through.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor, nn

from ...model.anatomy import Anatomy, module_name
from ...model.kv_tap import tap
from ...numbers.fake_quant import quantize_tokens, straight_through

Activations = Literal["float", "int8", "int4"]

ACTIVATION_BITS: dict[Activations, int | None] = {"float": None, "int8": 8, "int4": 4}


def round_cache(model: nn.Module, anatomy: Anatomy, bits: int) -> None:
    """Let every attention of ``model`` read its keys and values rounded to ``bits``.

    Raises:
        CheckpointError: an attention that takes no cache.
    """
    rounding = partial(quantize_tokens, bits=bits)

    def change(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(straight_through(one, rounding(one.detach())) for one in (key, value))  # type: ignore[return-value]

    for block in anatomy.blocks:
        tap(model.get_submodule(module_name(anatomy, block.attention.module)), change)
