"""``KVScheme``: how a decoder's key/value cache is stored; ``KVScales``: what the codes of one block mean.

Symmetric integers with static scales: a cache is written one token at a time, so that its grid must be known
before the text is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from .block_anatomy import Attention


class KVScheme(BaseModel):
    """Bits and granularity of a quantized cache, the same in every layer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bits: Literal[8, 4] = Field(8, description="of each cached number")
    granularity: Literal["per-tensor", "per-channel"] = Field(
        "per-channel", description="one scale a layer, or one for each channel of each key/value head"
    )

    @property
    def name(self) -> str:
        """``KV8-channel`` or ``KV8-tensor``: how tables call it."""
        return f"KV{self.bits}-{self.granularity.removeprefix('per-')}"

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest code, both inclusive."""
        return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1

    def scale_shape(self, attention: Attention) -> tuple[int, ...]:
        """Shape of the key's and of the value's scale: ``[1]`` or ``[kv_heads, 1, head_dim]``."""
        return (1,) if self.granularity == "per-tensor" else (attention.kv_heads, 1, attention.head_dim)

    def codes(self, values: Tensor, scale: Tensor) -> Tensor:
        """Nearest codes (float, integral) of ``values [batch, kv_heads, tokens, head_dim]``."""
        return (values / scale).round_().clamp_(*self.code_range)


@dataclass(frozen=True)
class KVScales:
    """The scales of one block, float32: ``key`` of keys after rope, as they are cached, and ``value``."""

    scheme: KVScheme
    key: Tensor
    value: Tensor

    def round(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """What a cache gives back for ``key`` and ``value [batch, kv_heads, tokens, head_dim]``."""
        return self._rounded(key, self.key), self._rounded(value, self.value)

    def _rounded(self, values: Tensor, scale: Tensor) -> Tensor:
        scale = scale.to(values.device)
        codes = self.scheme.codes(values.to(torch.float32), scale)
        return codes.mul_(scale).to(values.dtype)
