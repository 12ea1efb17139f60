"""``width`` of encoder–decoders: channels that both stacks leave idle go, and the model stays what it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.errors import InputError
from edgepress.export.api import export_bundle
from edgepress.files.storage import read_json
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.chain

Make = Callable[..., Path]
GIVEN = {
    "input_ids": torch.tensor([[5, 9, 14, 3, 7, 1]]),
    "decoder_input_ids": torch.tensor([[0, 4, 9, 17]]),
}


def with_idle_channels(path: Path) -> list[int]:
    """Nothing writes to half of the channels of the residual stream; returns the others."""
    tensors, generator = load_file(path / "model.safetensors"), torch.Generator().manual_seed(3)
    order = torch.randperm(32, generator=generator)
    idle = order[16:]
    for name, tensor in tensors.items():
        if "layer_norm" in name:
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith((".o.weight", ".wo.weight")):
            tensor[idle] = 0
        elif name == "shared.weight":
            tensor[:, idle] = 0
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return sorted(order[:16].tolist())


def narrowed(path: Path, text: Path, folder: Path, **options: Any) -> Path:
    recipe = folder / "r.yaml"
    step = {"pass": "width", "keep": 0.5, "multiple": 8, "repair": "none", **options}
    recipe.write_text(yaml.safe_dump({"name": "r", "passes": [step], "embedding": None}))
    asked: dict[str, Any] = {"calibration": str(text), "samples": 8, "length": 24}
    return compress_model(str(path), recipe=str(recipe), output=folder / "o", **asked)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("t5", {}),
        ("t5", {"own_head": True}),
        ("mt5", {"feed_forward_proj": "gated-gelu", "own_head": True}),
    ],
)
def test_what_is_idle_goes_and_the_rest_stays_as_it_was(
    family: str, changes: dict[str, Any], make_encoder_decoder: Make, pico_text: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForSeq2SeqLM

    path = make_encoder_decoder(tmp_path / "m", family, **changes)
    kept = with_idle_channels(path)
    out = narrowed(path, pico_text, tmp_path)
    config = read_json(out / "config.json")
    assert (config["d_model"], config["d_kv"], config["num_heads"]) == (16, 8, 4)
    tables = [load_file(one / "model.safetensors")["shared.weight"] for one in (path, out)]
    assert torch.equal(tables[0][:, kept], tables[1])
    (layer,) = read_json(out / "edgepress.json")["layers"]
    assert layer["status"] == "ok" and layer["error"] < 1e-5
    theirs: Any = AutoModelForSeq2SeqLM.from_pretrained(out)
    with torch.no_grad():
        before, after = (load_model(one)(**GIVEN).logits for one in (path, out))
        plain = theirs(**GIVEN).logits
    assert float((before - after).abs().max()) < 1e-4 * float(before.abs().max())
    assert torch.allclose(after, plain, atol=1e-5)
    if family == "mt5":
        bundle = export_bundle(out, output=tmp_path / "b")
        assert read_json(bundle / "manifest.json")["parity"]["status"] == "passed"


def test_layer_norms_are_refused(make_encoder_decoder: Make, pico_text: Path, tmp_path: Path) -> None:
    path = make_encoder_decoder(tmp_path / "m", "bart")
    with pytest.raises(InputError, match="cannot shrink"):
        narrowed(path, pico_text, tmp_path)


@pytest.mark.parametrize(
    "options", [{"basis": "pca"}, {"basis": "reconstruction"}, {"repair": "least_squares"}]
)
def test_what_was_not_held_against_the_model_is_refused(
    options: dict[str, str], make_encoder_decoder: Make, pico_text: Path, tmp_path: Path
) -> None:
    path = make_encoder_decoder(tmp_path / "m", "t5")
    with pytest.raises(InputError, match="basis: activation"):
        narrowed(path, pico_text, tmp_path, **options)
