"""Tensors under the names of their publication, and matrices that transformers cuts into several."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.model.checkpoint.reader import CheckpointReader
from edgepress.errors import CheckpointError
from edgepress.files.storage import read_json, write_json
from safetensors.torch import load_file, save_file

MODERN = {
    "layers.0.self_attn.q_proj.weight",
    "layers.0.self_attn.o_proj.weight",
    "layers.1.mlp.gate_proj.weight",
    "layers.1.post_mlp_layernorm.bias",
    "embeddings.LayerNorm.weight",
}


@pytest.fixture
def model(make_encoder: Callable[..., Path], tmp_path: Path) -> Path:
    """A Nomic-BERT as it is published."""
    return make_encoder(tmp_path / "model", "nomic_bert")


@pytest.mark.parametrize(("family", "prefix"), [("nomic_bert", ""), ("gte", ""), ("gte", "new.")])
def test_each_part_is_what_transformers_makes_of_it(
    family: str, prefix: str, make_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    from transformers import AutoModel

    model = make_encoder(tmp_path / "model", family)
    stored = load_file(model / "model.safetensors")
    assert any("qkv" in name.lower() for name in stored)
    stored = {f"{prefix}{name}": tensor for name, tensor in stored.items()}
    save_file(stored, model / "model.safetensors", {"format": "pt"})
    reader = CheckpointReader.open(model)
    theirs: dict[str, Any] = dict(
        AutoModel.from_pretrained(model, add_pooling_layer=False).named_parameters()
    )
    assert reader.shapes.keys() == theirs.keys() and theirs.keys() >= MODERN
    assert all(torch.equal(reader.read([name])[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoder.layers.0.attn.Wqkv.weight": torch.ones(64, 64)}, "parts do not share evenly"),
        ({"layers.0.self_attn.q_proj.weight": torch.ones(64, 64)}, "under its old name and its new one"),
    ],
)
def test_what_does_not_divide_or_comes_twice_is_named(
    changed: dict[str, torch.Tensor], message: str, model: Path
) -> None:
    save_file(load_file(model / "model.safetensors") | changed, model / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        CheckpointReader.open(model)


def test_other_families_keep_their_names(model: Path) -> None:
    config = read_json(model / "config.json")
    write_json(model / "config.json", config | {"model_type": "bert"})
    assert "encoder.layers.0.attn.Wqkv.weight" in CheckpointReader.open(model).shapes
