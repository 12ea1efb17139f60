"""A weight that was pruned is exactly zero after every pass that may follow, in a stage of its own or not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.pipeline.pass_names import pass_names
from edgepress.errors import InputError

pytestmark = pytest.mark.chain


CALIBRATED: dict[str, Any] = {"samples": 16, "length": 32}
PRUNED = {"pass": "magnitude", "pattern": "2:4"}
LEARNING = {"tokens": 512, "measurements": 2}

# What follows pruning, by the pass that the row is about.
LATER: dict[str, list[dict[str, Any]]] = {
    "rtn": [{"pass": "rtn", "scheme": "W4A16_ASYM-g32"}],
    "hqq": [{"pass": "hqq", "scheme": "W3A16_ASYM-g32"}],
    "gptq": [{"pass": "gptq", "scheme": "W3A16_ASYM-g32", "correction": 1, "refinements": 2}],
    "awq": [{"pass": "awq", "scheme": "W4A16_ASYM-g32"}],
    "autoround": [{"pass": "autoround", "scheme": "W3A16_ASYM-g32", "iterations": 3}],
    "smoothquant": [{"pass": "smoothquant"}],
    "w8a8": [{"pass": "w8a8"}],
    "tune": [{"pass": "gptq", "scheme": "W3A16_ASYM-g32"}, {"pass": "tune", **LEARNING}],
    "tune zero points": [
        {"pass": "rtn", "scheme": "W3A16_ASYM-g32"},
        {"pass": "tune", "learn": ["scales", "zero_points"], **LEARNING},
    ],
    "qat": [{"pass": "qat", "scheme": "W3A16_ASYM-g32", **LEARNING}],
    "block_qat": [{"pass": "block_qat", "scheme": "W3A16_ASYM-g32", "epochs": 1}],
    "ternary": [{"pass": "ternary", "group_size": 32, **LEARNING}],
    "distill": [{"pass": "distill", **LEARNING}],
    "float formats": [{"pass": "rtn", "scheme": "NVFP4A16"}],
    "recover": [{"pass": "recover", **LEARNING}],
    "recover, then qat": [
        {"pass": "recover", **LEARNING},
        {"pass": "qat", "scheme": "W3A16_ASYM-g32", **LEARNING},
    ],
    "allocate": [{"pass": "allocate", "bits": 4.0, "schemes": ["W3A16-g32", "W8A16-g32"]}],
    "allocate_sparsity": [{"pass": "allocate_sparsity", "sparsity": 0.6}],
    "kv_cache": [{"pass": "kv_cache"}],
    "vocabulary": [{"pass": "vocabulary"}],
    "embedding": [{"pass": "embedding", "scheme": "W4A16-g32"}],
    "prune, by magnitude": [{"pass": "prune", "score": "magnitude", "sparsity": 0.6}],
    "prune, by wanda": [{"pass": "prune", "score": "wanda", "sparsity": 0.6}],
    "sparsegpt": [{"pass": "sparsegpt", "sparsity": 0.6}],
    "alps": [{"pass": "alps", "sparsity": 0.6}],
}
# Blocks get other shapes, so that weights change their places (see `structured/`), or must have others.
ELSEWHERE = {"experts", "k_quants", "narrow", "layers", "rotate", "width"}


def run(model: Path, text: Path, folder: Path, name: str, *passes: dict[str, Any]) -> WeightSource:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": "r", "passes": list(passes)}))
    out = compress_model(
        str(model), recipe=str(path), output=folder / name, calibration=str(text), **CALIBRATED
    )
    return WeightSource.open(out)


@pytest.fixture(scope="module")
def model(make_decoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_decoder(tmp_path_factory.mktemp("zeros") / "m", num_hidden_layers=1)


def test_every_pass_is_asked() -> None:
    assert set(pass_names()) <= {name.partition(",")[0] for name in LATER} | ELSEWHERE


@pytest.mark.parametrize("name", LATER)
def test_pruned_weights_stay_zero(name: str, model: Path, pico_text: Path, tmp_path: Path) -> None:
    before = run(model, pico_text, tmp_path, "pruned", PRUNED)
    after = run(model, pico_text, tmp_path, "after", PRUNED, *LATER[name])
    for linear in before.anatomy.linears():
        pruned = before.dense(linear.name) == 0
        weight = after.dense(linear.name)
        assert int(pruned.sum()) == weight.numel() // 2
        assert not bool(weight[pruned].any())
        assert bool(weight[~pruned].any())


def test_rotation_would_mix_zeros_with_the_rest_and_is_refused(
    model: Path, pico_text: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="pruned"):
        run(model, pico_text, tmp_path, "turned", PRUNED, {"pass": "rotate"})
