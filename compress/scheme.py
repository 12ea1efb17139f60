"""``Scheme``: how the weights and activations of a layer are stored. A value, not a class tree.

Names follow compressed-tensors' presets: ``W4A16`` is 4-bit weights with untouched activations,
``W4A16_ASYM`` has zero points, ``W8A8`` adds dynamic per-token int8 activations. A group size is appended
after a dash: ``W4A16-g64``.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ..errors import UnknownName

BITS = (2, 3, 4, 8)
GROUP_SIZES = (16, 32, 64, 128, 256)
DEFAULT_GROUP_SIZE = 128
PRESETS = ("W2A16", "W3A16", "W4A16", "W8A16", "W2A16_ASYM", "W3A16_ASYM", "W4A16_ASYM", "W8A16_ASYM", "W8A8")

_NAME = re.compile(
    r"W(?P<bits>[2348])A(?P<act>16|8)(?P<asym>_ASYM)?(?:-g(?P<group>\d+)|-(?P<channel>channel))?$"
)


class Scheme(BaseModel):
    """Bits and granularity of a quantized linear.

    ``group_size`` counts input channels that share a scale; ``None`` is one scale per output channel.
    ``activations`` is ``"token"`` for dynamic symmetric int8 with one scale per token, or ``None``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bits: Literal[2, 3, 4, 8]
    group_size: int | None = Field(
        DEFAULT_GROUP_SIZE, description="input channels per scale; null is per channel"
    )
    symmetric: bool = True
    activations: Literal["token"] | None = None

    @field_validator("group_size")
    @classmethod
    def _known_group(cls, value: int | None) -> int | None:
        if value is not None and (value < 16 or value > 256):
            raise ValueError(f"group_size {value} is outside 16–256; use null for one scale per channel")
        return value

    @classmethod
    def parse(cls, name: str) -> Scheme:
        """The scheme called ``name``.

        Raises:
            UnknownName: not a known preset; suggests the nearest.
        """
        match = _NAME.match(name)
        if match is None or (match["act"] == "8" and match["bits"] != "8"):
            raise UnknownName("scheme", name, PRESETS, fix="")
        group: int | None = int(match["group"]) if match["group"] else DEFAULT_GROUP_SIZE
        if match["channel"] or (match["act"] == "8" and not match["group"]):
            group = None
        return cls(
            bits=int(match["bits"]),
            group_size=group,
            symmetric=match["asym"] is None,
            activations="token" if match["act"] == "8" else None,
        )

    @property
    def name(self) -> str:
        """The preset name with its group: ``W4A16-g64``; :meth:`parse` reads it back."""
        head = f"W{self.bits}A{8 if self.activations else 16}{'' if self.symmetric else '_ASYM'}"
        if self.group_size is None:
            return head if self.activations else f"{head}-channel"
        return f"{head}-g{self.group_size}"

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest code, both inclusive, of the signed storage."""
        return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1

    def groups(self, in_features: int) -> int:
        """Number of scales per output channel for ``in_features`` inputs (which the group must divide)."""
        return 1 if self.group_size is None else in_features // self.group_size

    def bits_per_weight(self, in_features: int, scale_bits: int = 16) -> float:
        """Stored bits per weight with scales and zero points counted."""
        overhead = scale_bits + (0 if self.symmetric else self.bits)
        return self.bits + overhead * self.groups(in_features) / in_features
