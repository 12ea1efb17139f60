"""How the inputs of linears are rounded in training, besides what their scheme says."""

from __future__ import annotations

from typing import Literal

Activations = Literal["float", "int8", "int4"]

ACTIVATION_BITS: dict[Activations, int | None] = {"float": None, "int8": 8, "int4": 4}
