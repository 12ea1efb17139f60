"""What embeds sentences is read as an encoder: a decoder's tokens see those before them alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError
from edgepress.files.storage import read_json, write_json

Make = Callable[..., Path]


def embedding(folder: Path) -> Path:
    (folder / "modules.json").write_text(json.dumps([{"type": "x.Transformer", "path": ""}]))
    return folder


@pytest.mark.parametrize("family", ["qwen3", "mistral", "gpt2"])
def test_a_decoder(family: str, make_decoder: Make, tmp_path: Path) -> None:
    source = WeightSource.open(embedding(make_decoder(tmp_path / "m", family)))
    anatomy = source.anatomy
    assert (anatomy.kind, anatomy.head, anatomy.tied, anatomy.looks_back) == ("encoder", None, False, True)
    assert all(block.attention.causal for block in anatomy.blocks)
    model = load_model(source.reader.path)
    assert type(model).__name__.endswith("Model")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        states, fewer = model(ids)[0], model(ids[:, :3])[0]
    assert torch.allclose(states[:, :3], fewer, atol=1e-5)


def test_an_encoder_looks_to_both_sides(make_encoder: Make, tmp_path: Path) -> None:
    source = WeightSource.open(embedding(make_encoder(tmp_path / "m")))
    assert source.anatomy.kind == "encoder" and not source.anatomy.looks_back


def test_tensors_of_a_model_without_a_head(make_decoder: Make, tmp_path: Path) -> None:
    """Neither the prefix of the whole model nor a head of its own need be stored."""
    from transformers import AutoModel

    whole = make_decoder(tmp_path / "whole", "mistral", tie_word_embeddings=False)
    bare = tmp_path / "bare"
    AutoModel.from_pretrained(whole).save_pretrained(bare)
    with pytest.raises(CheckpointError, match="MistralModel, not a causal language model"):
        WeightSource.open(bare)
    source = WeightSource.open(embedding(bare))
    assert source.anatomy.base == "" and source.anatomy.embedding == "embed_tokens"
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(load_model(bare)(ids)[0], AutoModel.from_pretrained(whole)(ids)[0])


def test_a_tied_model_without_prefixes_still_writes(make_decoder: Make, tmp_path: Path) -> None:
    from transformers import AutoModel

    whole, bare = make_decoder(tmp_path / "whole", "qwen3", tie_word_embeddings=True), tmp_path / "bare"
    AutoModel.from_pretrained(whole).save_pretrained(bare)
    config = read_json(bare / "config.json")
    write_json(bare / "config.json", {**config, "architectures": ["Qwen3ForCausalLM"]})
    assert WeightSource.open(bare).anatomy.kind == "decoder"
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(load_model(bare)(ids).logits, load_model(whole)(ids).logits)


def test_another_head_is_refused(make_decoder: Make, tmp_path: Path) -> None:
    model = embedding(make_decoder(tmp_path / "m", "qwen3"))
    config = read_json(model / "config.json")
    write_json(model / "config.json", {**config, "architectures": ["Qwen3ForSequenceClassification"]})
    with pytest.raises(CheckpointError, match="Qwen3ForSequenceClassification"):
        WeightSource.open(model)


def test_an_encoder_decoder_is_refused(make_encoder_decoder: Make, tmp_path: Path) -> None:
    model = embedding(make_encoder_decoder(tmp_path / "m", "t5"))
    with pytest.raises(CheckpointError, match="is of the kind encoder_decoder") as refused:
        WeightSource.open(model)
    assert "remove modules.json" in refused.value.fix
    (model / "modules.json").unlink()
    assert WeightSource.open(model).anatomy.kind == "encoder_decoder"
