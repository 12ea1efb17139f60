"""``allocate_sparsity``: the budget holds, fragile layers keep more, and what makes no sense is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import RecipeError
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json

pytestmark = pytest.mark.chain


CALIBRATED: dict[str, Any] = {"samples": 16, "length": 32}


@pytest.mark.parametrize("using", ["magnitude", "wanda", "sparsegpt", "alps"])
def test_the_budget_holds(
    using: str, pico_llama: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    step = {"pass": "allocate_sparsity", "sparsity": 0.5, "using": {"pass": using}}
    out = run(pico_llama, pico_text, tmp_path, step)
    source, details = WeightSource.open(out), read_json(out / "edgepress.json")["steps"][0]["details"]
    zeros = total = 0
    for linear in source.anatomy.linears():
        weight = source.dense(linear.name)
        share = float((weight == 0).float().mean())
        assert share == pytest.approx(details["shares"][linear.name], abs=0.02)
        zeros, total = zeros + int((weight == 0).sum()), total + weight.numel()
    assert zeros / total == pytest.approx(details["sparsity"], abs=0.01) and zeros / total >= 0.495
    assert len(set(details["shares"].values())) > 1


def test_a_layer_that_matters_little_gives_most(
    make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    from safetensors.torch import load_file, save_file

    model = make_decoder(tmp_path / "m", num_hidden_layers=2)
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"] *= 1e-3
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    step = {"pass": "allocate_sparsity", "sparsity": 0.5, "using": {"pass": "magnitude"}}
    first, again = (run(model, pico_text, tmp_path, step, name=name) for name in ("first", "again"))
    shares = read_json(first / "edgepress.json")["steps"][0]["details"]["shares"]
    for part in ("gate", "up", "down"):
        assert shares[f"model.layers.1.mlp.{part}_proj"] == pytest.approx(0.7)
    assert hash_tree(first) == hash_tree(again)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"using": {"pass": "rtn"}}, "per_layer"),
        ({"using": {"pass": "wanda", "sparsity": 0.3}}, "but sparsity"),
        ({"using": {"pass": "wanda", "pattern": "2:4"}}, "either sparsity"),
        ({"sparsity": 1.5}, "sparsity"),
    ],
)
def test_what_makes_no_sense_is_refused(
    pico_llama: Path,
    pico_text: Path,
    tmp_path: Path,
    options: dict[str, Any],
    match: str,
    run: Callable[..., Path],
) -> None:
    with pytest.raises(RecipeError, match=match):
        run(pico_llama, pico_text, tmp_path, {"pass": "allocate_sparsity", "sparsity": 0.5, **options})
