"""Rotary position embedding as two tables: cosines and sines of every position.

The frequencies come from transformers' own functions, so that scaled variants are what the model was trained
with.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from ....compress.model.anatomy import Rope
from ....errors import CheckpointError, ShapeError
from ..graph_writer import Array

# Variants whose frequencies do not change with the length, as long as that stays within the model's
# positions.
FIXED = ("default", "linear", "dynamic", "yarn", "llama3")
_CHANNEL_STEP = 16  # GroupQueryAttention rotates pairs of channels in eights


def check_rope(rope: Rope) -> None:
    """Refuse what one pair of tables cannot hold.

    Raises:
        CheckpointError: a variant whose frequencies depend on the length of the text.
        ShapeError: a number of rotated channels that the kernel cannot handle.
    """
    kind = _kind(rope)
    if kind not in FIXED:
        raise CheckpointError(
            f"rope type {kind!r} cannot be exported", why=f"one table of angles serves {', '.join(FIXED)}"
        )
    if rope.dim % _CHANNEL_STEP:
        raise ShapeError(
            f"rope over {rope.dim} channels of a head",
            why=f"ONNX Runtime's GroupQueryAttention rotates multiples of {_CHANNEL_STEP} channels",
        )


def rope_tables(rope: Rope, positions: int, factor: float = 1.0) -> tuple[Array, Array]:
    """Cosines and sines ``[positions, dim / 2]`` float32, times ``factor``."""
    frequencies, scale = _frequencies(rope, positions)
    scale *= factor
    angles = torch.arange(positions, dtype=torch.float32)[:, None] * frequencies[None, :]
    return (angles.cos() * scale).numpy().astype(np.float32), (angles.sin() * scale).numpy().astype(
        np.float32
    )


def _kind(rope: Rope) -> str:
    return str(rope.scaling.get("rope_type", rope.scaling.get("type", "default")))


def _frequencies(rope: Rope, positions: int) -> tuple[torch.Tensor, float]:
    if _kind(rope) == "default":
        return 1.0 / (rope.theta ** (torch.arange(0, rope.dim, 2, dtype=torch.float32) / rope.dim)), 1.0
    from transformers import PretrainedConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling: dict[str, Any] = {key: value for key, value in rope.scaling.items() if key != "type"}
    scaling.pop("partial_rotary_factor", None)  # dim counts the rotated channels already
    scaling |= {"rope_type": _kind(rope), "rope_theta": rope.theta}
    config = PretrainedConfig(
        hidden_size=rope.dim,
        num_attention_heads=1,
        head_dim=rope.dim,
        max_position_embeddings=positions,
        rope_theta=rope.theta,
        rope_parameters=scaling,
    )
    frequencies, scale = ROPE_INIT_FUNCTIONS[_kind(rope)](config, "cpu")
    if not math.isfinite(scale) or not bool(torch.isfinite(frequencies).all()):
        raise CheckpointError(f"rope settings give angles that are not finite: {dict(rope.scaling)}")
    return frequencies, float(scale)
