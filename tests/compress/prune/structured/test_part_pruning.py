"""The repair that makes up for earlier blocks: against least squares in numpy, and its effect."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.passes import narrow as narrow_pass
from edgepress.compress.text.calibration import calibration_from
from edgepress.errors import RecipeError
from edgepress.runtime.text.tokenizer import Tokenizer

pytestmark = pytest.mark.chain


CALIBRATED: dict[str, Any] = {"samples": 32, "length": 32}


def run(model: Path, text: Path, folder: Path, name: str, step: dict[str, Any]) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": "r", "passes": [step]}))
    return compress_model(
        str(model), recipe=str(path), output=folder / name, calibration=str(text), **CALIBRATED
    )


def last_hidden_states(model: Path, original: Path, text: Path) -> torch.Tensor:
    """What the last block gives for the calibration text, ``[tokens, width]``."""
    kind = "encoder" if "bert" in original.name else "decoder"
    calibration = calibration_from(str(text), Tokenizer.open(original), kind=kind, batch_size=8, **CALIBRATED)
    loaded = load_model(model)
    with torch.no_grad():
        return torch.cat(
            [
                loaded(
                    input_ids=batch.input_ids,
                    attention_mask=batch.attention_mask,
                    output_hidden_states=True,
                ).hidden_states[-1][batch.attention_mask.bool()]
                for batch in calibration.batches
            ]
        )


def test_down_is_fitted_to_the_originals_hidden_states(
    pico_llama: Path, pico_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(narrow_pass, "DAMPING", 1e-7)  # next to none: what lstsq finds, then
    step = {"pass": "narrow", "parts": ["mlp"], "keep": 0.8, "widths": "uniform", "correction": 1}
    out = run(pico_llama, pico_text, tmp_path, "o", step)
    calibration = calibration_from(
        str(pico_text), Tokenizer.open(pico_llama), kind="decoder", batch_size=8, **CALIBRATED
    )
    rows: dict[str, list[torch.Tensor]] = {"x": [], "now": [], "wanted": []}
    for path, name in ((out, "now"), (pico_llama, "wanted")):
        model = load_model(path)
        block = model.get_submodule("model.layers.1")
        block.register_forward_hook(
            lambda _, args, output, name=name: rows[name].append(
                (output[0] if isinstance(output, tuple) else output).flatten(0, 1)
            )
        )
        if name == "now":
            down = block.get_submodule("mlp.down_proj")
            down.register_forward_pre_hook(lambda _, args: rows["x"].append(args[0].flatten(0, 1)))
        with torch.no_grad():
            for batch in calibration.batches:
                model(batch.input_ids)
    x, now, wanted = (torch.cat(rows[name]).double().numpy() for name in ("x", "now", "wanted"))
    weight = WeightSource.open(out).dense("model.layers.1.mlp.down_proj").double().numpy()
    target = wanted - (now - x @ weight.T)
    expected, *_ = np.linalg.lstsq(x, target, rcond=None)
    assert np.abs(weight - expected.T).max() < 1e-2 * np.abs(weight).max()
    for other in (weight * 1.02, weight * 0.98):
        assert np.square(target - x @ weight.T).sum() < np.square(target - x @ other.T).sum()


@pytest.mark.parametrize("model", ["pico_llama", "pico_bert"])
def test_it_brings_the_output_closer(
    model: str, pico_text: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(model)
    wanted = last_hidden_states(path, path, pico_text)
    found = []
    for correction in (0, 1):
        step = {"pass": "narrow", "keep": 0.6, "multiple": 16, "correction": correction}
        out = run(path, pico_text, tmp_path, str(correction), step)
        found.append(float((last_hidden_states(out, path, pico_text) - wanted).square().mean()))
    assert found[1] < found[0]  # on the text that it was fitted on: of other text it promises nothing


def test_it_is_part_of_the_repair(pico_llama: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    step = {"pass": "ffn", "keep": 0.8, "correction": 1, "repair": "none"}
    path.write_text(yaml.safe_dump({"name": "r", "passes": [step]}))
    with pytest.raises(RecipeError, match="least-squares"):
        plan_model(str(pico_llama), recipe=str(path))
