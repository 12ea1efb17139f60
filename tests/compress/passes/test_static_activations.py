"""``W8A8_STATIC`` from the recipe to the bundle: read the same way in torch and in ONNX Runtime."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.passes.autoround import Autoround
from edgepress.export.api import export_bundle
from edgepress.files.storage import read_json
from edgepress.runtime.api import open_bundle
from edgepress.runtime.bundle.graph_file import GraphFile
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

pytestmark = pytest.mark.chain


STATIC = Scheme.parse("W8A8_STATIC")
IDS = torch.arange(5, 69).view(2, 32)


def compressed(model: Path, text: Path, out: Path, *passes: dict[str, object]) -> Path:
    recipe = out.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump({"passes": list(passes)}), encoding="utf-8")
    return compress_model(
        str(model), recipe=str(recipe), output=out, calibration=str(text), samples=8, length=32
    )


def logits(path: Path) -> Tensor:
    with torch.no_grad():
        return load_model(path)(IDS)[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["rtn", "gptq", "smoothquant"])
def test_transformers_gives_the_same_logits(
    name: str, pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    out = compressed(pico_llama, pico_text, tmp_path / "out", {"pass": name, "scheme": "W8A8_STATIC"})
    source = WeightSource.open(out)
    assert set(source.schemes.values()) == {STATIC}
    assert all((source.input_scale(layer) or 0) > 0 for layer in source.schemes)
    theirs = AutoModelForCausalLM.from_pretrained(out).eval()
    with torch.no_grad():
        assert torch.equal(logits(out), theirs(IDS)[0])


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_bundles_are_proven_and_have_no_scale_to_find(
    kind: str, pico_llama: Path, pico_bert: Path, pico_text: Path, tmp_path: Path
) -> None:
    model = pico_llama if kind == "decoder" else pico_bert
    out = compressed(model, pico_text, tmp_path / "out", {"pass": "smoothquant", "scheme": "W8A8_STATIC"})
    open_bundle(export_bundle(out, output=tmp_path / "default"))
    bundle = export_bundle(out, output=tmp_path / "bundle", operators="standard")
    assert read_json(bundle / "manifest.json")["parity"]
    kinds = {node.op for node in GraphFile.read(bundle / "model.onnx").nodes.values()}
    assert "ReduceMax" not in kinds and "MatMulIntegerToFloat" in kinds
    open_bundle(bundle)


def test_smoothing_moves_the_scale_with_the_inputs(
    make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path
) -> None:
    """A few large channels that say nothing new: with factors the scale shrinks, and so does the damage."""
    model = make_decoder(tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    for name, tensor in tensors.items():
        if "norm" in name and "layers" in name:
            tensor[::16] *= 100
        elif any(part in name for part in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")):
            tensor[:, ::16] /= 100
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    plain = compressed(model, pico_text, tmp_path / "plain", {"pass": "rtn", "scheme": "W8A8_STATIC"})
    smooth = compressed(
        model, pico_text, tmp_path / "smooth", {"pass": "smoothquant", "scheme": "W8A8_STATIC"}
    )
    name = "model.layers.1.mlp.gate_proj"
    scales = [WeightSource.open(path).input_scale(name) or 0 for path in (plain, smooth)]
    assert scales[1] < 0.7 * scales[0]
    with torch.no_grad():
        wanted = load_model(model)(IDS)[0]
    losses = [float((logits(path) - wanted).square().mean()) for path in (plain, smooth)]
    assert losses[1] < 0.7 * losses[0]


def test_passes_that_find_no_scale_refuse() -> None:
    with pytest.raises(ValidationError, match="takes rtn or gptq"):
        Autoround(scheme=STATIC)
