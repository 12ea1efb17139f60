"""Rope tables are what transformers computes for the same settings."""

from typing import Any

import numpy as np
import pytest
import torch
from edgepress.compress.model.block_anatomy import Rope
from edgepress.compress.model.graph_limits import check_rope
from edgepress.errors import CheckpointError, ShapeError
from edgepress.export.graph.attention.positions import rope_tables

POSITIONS = 256
SETTINGS: list[dict[str, Any]] = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings["rope_type"])
def test_tables(settings: dict[str, Any]) -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(
        hidden_size=128,
        num_attention_heads=4,
        max_position_embeddings=POSITIONS,
        rope_parameters={"rope_theta": 5e5, **settings},
    )
    positions = torch.arange(POSITIONS)[None]
    cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(1), positions)
    scaling = {} if settings["rope_type"] == "default" else settings
    ours = rope_tables(Rope(5e5, 32, scaling), POSITIONS)
    for mine, theirs in zip(ours, (cos, sin), strict=True):
        assert mine.shape == (POSITIONS, 16)
        np.testing.assert_allclose(mine, theirs[0, :, :16].numpy(), atol=1e-6)


def test_what_one_table_cannot_hold_is_refused() -> None:
    with pytest.raises(CheckpointError, match="of another kind"):
        check_rope(Rope(1e4, 32, {"rope_type": "of another kind"}))
    with pytest.raises(ShapeError, match="24 channels"):
        check_rope(Rope(1e4, 24))
