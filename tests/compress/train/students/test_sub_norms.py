"""Sub-norms: a Llama becomes BitNet's form, keeps directions; what cannot is refused before any work."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.compress.train.students.sub_norms import source_with_sub_norms
from edgepress.errors import RecipeError
from edgepress.export.api import export_bundle
from edgepress.files.storage import read_json
from safetensors.torch import load_file

pytestmark = pytest.mark.chain


CPU = torch.device("cpu")
IDS = torch.arange(3, 43).view(2, 20)
MASK = torch.ones(2, 20, dtype=torch.long)
MASK[1, 12:] = 0
TERNARY: dict[str, Any] = {
    "pass": "ternary",
    "sub_norms": True,
    "group_size": 32,
    "scales": "matrix",
    "batch_tokens": 64,
    "piece_tokens": 64,
    "learning_rate": 0.01,
    "epochs": 4,
    "precision": "float32",
}


def compressed(model: Path, folder: Path, text: Path, *passes: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"name": "normed", "passes": list(passes)}))
    return compress_model(
        str(model), recipe=str(recipe), output=folder / "o", calibration=str(text), samples=24, length=32
    )


def inputs(model: Any, name: str) -> torch.Tensor:
    """What the linear ``name`` reads, of the real tokens."""
    kept: list[torch.Tensor] = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    with torch.no_grad():
        model(IDS, attention_mask=MASK)
    handle.remove()
    return kept[0][MASK.bool()]


def test_the_norms_begin_at_the_mean_size_and_keep_the_direction(pico_llama: Path, tmp_path: Path) -> None:
    source = WeightSource.open(pico_llama)
    made = source_with_sub_norms(source, [MicroBatch(0, IDS, MASK, int(MASK.sum()))], tmp_path, CPU)
    assert made.anatomy.model_type == "bitnet" and made.anatomy.blocks[0].normed_inside
    plain, normed = load_model(pico_llama), load_model(made.reader.path)
    name = "model.layers.0.self_attn.o_proj"  # nothing that changed comes before it
    before, after = inputs(plain, name), inputs(normed, name)
    size = before.square().mean().sqrt()
    torch.testing.assert_close(made.tensor("model.layers.0.self_attn.attn_sub_norm.weight"), size.expand(64))
    assert torch.nn.functional.cosine_similarity(before, after, dim=-1).min() > 0.9999
    torch.testing.assert_close(after.square().mean(-1).sqrt(), size.expand(len(after)), rtol=1e-3, atol=0)
    again = source_with_sub_norms(source, [], tmp_path, CPU)
    assert again.reader.path == made.reader.path


def test_what_a_config_leaves_unsaid_stays_llamas(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    path = make_decoder(tmp_path / "m", "llama", rope_parameters=None)
    config = json.loads((path / "config.json").read_text())
    for key in ("rope_parameters", "hidden_act", "rms_norm_eps", "bos_token_id"):
        config.pop(key, None)
    (path / "config.json").write_text(json.dumps(config))
    source = WeightSource.open(path)
    made = source_with_sub_norms(source, [MicroBatch(0, IDS, MASK, 32)], tmp_path, CPU)
    assert made.anatomy.rope == source.anatomy.rope
    assert made.anatomy.blocks[0].mlp.activation == "silu" and made.reader.config["bos_token_id"] == 1
    assert made.anatomy.blocks[0].norm1 == source.anatomy.blocks[0].norm1


def test_from_a_pruned_llama_to_a_bitnet_that_transformers_and_the_exporter_take(
    pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, BitNetForCausalLM

    path = compressed(pico_llama, tmp_path, pico_text, {"pass": "magnitude", "sparsity": 0.3}, TERNARY)
    step = read_json(path / "edgepress.json")["steps"][1]
    # Over six draws of the weights the ratio is 0.53, with a standard deviation of 0.10.
    assert min(loss for _, loss in step["details"]["held_out"]) < 0.9 * step["details"]["held_out"][0][
        1
    ] and step["statuses"] == {"ok": 21}
    source = WeightSource.open(path)
    norms = [source.tensor(f"model.layers.{index}.mlp.ffn_sub_norm.weight") for index in range(3)]
    assert all(float(norm.std()) > 0 for norm in norms)  # they have learned
    loaded = AutoModelForCausalLM.from_pretrained(path)
    assert isinstance(loaded, BitNetForCausalLM)
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, load_model(path)(IDS).logits, rtol=0, atol=1e-4)
    bundle = export_bundle(str(path), output=tmp_path / "bundle")
    assert read_json(bundle / "manifest.json")["parity"]
    packed = export_bundle(str(path), output=tmp_path / "packed", format="bitnet")
    assert any("ffn_sub_norm" in name for file in packed.rglob("*.safetensors") for name in load_file(file))


@pytest.mark.parametrize(
    ("model_type", "changes", "why"),
    [
        ("qwen2", {}, "no Llama"),
        ("bitnet", {}, "already"),
        ("llama", {"mlp_bias": True}, "biases"),
        ("llama", {"head_dim": 32}, "as wide"),
    ],
)
def test_what_has_not_the_form_is_refused_before_any_work(
    make_decoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    model_type: str,
    changes: dict[str, Any],
    why: str,
) -> None:
    model = make_decoder(tmp_path / "m", model_type, **changes)
    with pytest.raises(RecipeError) as refused:
        compressed(model, tmp_path / "w", pico_text, TERNARY)
    assert why in refused.value.why and not (tmp_path / "w" / "o").exists()


def test_a_quantized_llama_is_refused(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    again = {**TERNARY, "requantize": True}
    with pytest.raises(RecipeError, match="quantized"):
        compressed(pico_llama, tmp_path, pico_text, {"pass": "rtn", "scheme": "W8A16-g32"}, again)
