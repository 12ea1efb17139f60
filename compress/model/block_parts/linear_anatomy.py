"""What blocks are made of: linears, norms and ropes, by the names and sizes of the stored tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal[
    "q", "k", "v", "qkv", "q_a", "q_b", "kv_a", "kv_b", "o", "gate", "up", "gate_up", "down", "in", "x", "out"
]


@dataclass(frozen=True)
class Linear:
    """One linear map. ``name`` is the full module name: ``model.layers.0.self_attn.q_proj``."""

    name: str
    role: Role
    out_features: int
    in_features: int
    bias: bool


@dataclass(frozen=True)
class Norm:
    """RMSNorm (``kind="rms"``) or LayerNorm (``kind="layer"``), by full module name.

    The scale is ``offset + weight``: 1 in Gemma, whose weights are stored around zero.
    """

    name: str
    kind: Literal["rms", "layer"]
    eps: float
    offset: float = 0.0
    bias: bool = False


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding over the first ``dim`` channels of a head; ``scaling`` may be empty.

    What turns together is channel ``i`` and channel ``i + dim / 2``, or where ``interleaved`` two neighbours.
    """

    theta: float
    dim: int
    scaling: Mapping[str, Any] = field(default_factory=dict, hash=False)
    interleaved: bool = False

    def halves(self, head_dim: int) -> list[int]:
        """The channels of a head in the order in which those that turn together are half of ``dim`` apart."""
        pairs = range(0, self.dim, 2) if self.interleaved else range(self.dim)
        seconds = range(1, self.dim, 2) if self.interleaved else ()
        return [*pairs, *seconds, *range(self.dim, head_dim)]
