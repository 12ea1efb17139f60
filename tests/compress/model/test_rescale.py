"""The rescale keeps the function and changes the weights, for every shape of Llama-like model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.model.checkpoint.reader import CheckpointReader
from edgepress.compress.model.family import anatomy_of
from edgepress.compress.model.rescale import HIGH, LOW, rescale
from edgepress.errors import InputError

CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True}),
    ("llama", {"num_key_value_heads": 1, "tie_word_embeddings": False}),
    ("mistral", {}),
    ("qwen2", {}),
    ("qwen3", {"head_dim": 32}),
    ("gemma", {}),
    ("gemma2", {}),
    ("bitnet", {}),
]


@pytest.mark.parametrize(("model_type", "changes"), CASES)
def test_logits_stay_and_weights_move(
    model_type: str, changes: dict[str, Any], make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    make_decoder(tmp_path, model_type, **changes)
    reader = CheckpointReader.open(tmp_path)
    anatomy = anatomy_of(reader.config, reader.shapes)
    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tensors = dict(model.state_dict())
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    tokens = torch.arange(3, 43).view(2, 20)
    with torch.no_grad():
        expected = model(tokens).logits
        rescale(tensors, anatomy, seed=1)
        actual = model(tokens).logits
    assert (actual - expected).abs().max() < 1e-4
    for linear in anatomy.linears():
        ratio = tensors[f"{linear.name}.weight"] / before[f"{linear.name}.weight"]
        assert ratio.std() > 0.05, f"{linear.name} has not left its grid"
        assert ratio.min() > LOW**2 * 0.999 and ratio.max() < HIGH**2 * 1.001
    assert torch.equal(tensors["model.embed_tokens.weight"], before["model.embed_tokens.weight"])


def test_the_seed_decides(pico_llama: Path) -> None:
    reader = CheckpointReader.open(pico_llama)
    anatomy = anatomy_of(reader.config, reader.shapes)
    runs = [reader.read(reader.shapes) for _ in range(3)]
    for tensors, seed in zip(runs, (1, 1, 2), strict=True):
        rescale(tensors, anatomy, seed=seed)
    name = "model.layers.2.mlp.down_proj.weight"
    assert torch.equal(runs[0][name], runs[1][name])
    assert not torch.equal(runs[0][name], runs[2][name])


def test_encoders_are_refused(pico_bert: Path) -> None:
    reader = CheckpointReader.open(pico_bert)
    with pytest.raises(InputError, match="bert model cannot be rescaled"):
        rescale(reader.read(reader.shapes), anatomy_of(reader.config, reader.shapes), seed=0)
