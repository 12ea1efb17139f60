"""Rotary settings of a config, in either of the two forms that checkpoints carry.

Since transformers 5 there is ``rope_parameters`` with everything in it; before, ``rope_theta`` and
``rope_scaling`` lay at the top. Su et al., RoFormer, 2021, arXiv 2104.09864.
"""

from __future__ import annotations

from typing import Any

from ....errors import CheckpointError
from ..anatomy import Rope
from ._tensors import Config, number, text

DEFAULT_THETA = 10_000.0
TYPES = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")
# These scale from the length of the pretraining, which is the model's own where nothing else is said.
_NEED_ORIGINAL_LENGTH = ("llama3", "yarn", "longrope")


def rope(config: Config, head_dim: int) -> Rope:
    """The rotary embedding of a decoder whose heads have ``head_dim`` channels.

    ``scaling`` of the result always has ``rope_type``, and is empty for plain rope.

    Raises:
        CheckpointError: settings of the wrong type, an unknown rope type, or a different rope for each kind
        of layer.
    """
    parameters = _parameters(config)
    merged = {**config, **parameters}
    theta = number(merged, "rope_theta", DEFAULT_THETA)
    rotated = int(head_dim * number(merged, "partial_rotary_factor", 1.0))
    if rotated % 2 or not 0 < rotated <= head_dim:
        raise CheckpointError(
            f"config.json: rope turns {rotated} of {head_dim} channels; it needs pairs within a head"
        )
    kind = text(parameters, "rope_type", text(parameters, "type", "default"))
    if kind not in TYPES:
        raise CheckpointError(f"config.json: unknown rope_type {kind!r}", fix=f"known: {', '.join(TYPES)}")
    if kind == "default":
        return Rope(theta, rotated)
    own = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
    scaling = {"rope_type": kind, **{key: value for key, value in parameters.items() if key not in own}}
    if kind in _NEED_ORIGINAL_LENGTH and "original_max_position_embeddings" not in scaling:
        length = config.get("original_max_position_embeddings", config.get("max_position_embeddings"))
        scaling["original_max_position_embeddings"] = length
    return Rope(theta, rotated, scaling)


def _parameters(config: Config) -> dict[str, Any]:
    for key in ("rope_parameters", "rope_scaling"):
        value = config.get(key)
        if not value:
            continue
        if not isinstance(value, dict) or any(isinstance(item, dict) for item in value.values()):
            raise CheckpointError(f"config.json: {key} must be one table for all layers, not {value!r}")
        return value
    return {}
