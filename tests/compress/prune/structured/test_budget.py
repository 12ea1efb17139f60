"""Budgets of parameters, bytes and modelled time."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.prune.structured.budget import Budget
from edgepress.compress.recipe import load_recipe
from edgepress.errors import RecipeError
from edgepress.files.storage import read_json

pytestmark = pytest.mark.chain


CALIBRATED: dict[str, Any] = {"samples": 16, "length": 32}
SLOW = {"of": "latency", "bandwidth": 10.0, "peak": 0.1}


def run(model: Path, text: Path, folder: Path, step: dict[str, Any]) -> Path:
    path = folder / "r.yaml"
    path.write_text(yaml.safe_dump({"name": "r", "passes": [step], "embedding": None}))
    return compress_model(
        str(model), recipe=str(path), output=folder / "o", calibration=str(text), **CALIBRATED
    )


def naive_seconds(source: WeightSource, tokens: int, context: int) -> float:
    """The time of one pass on a machine of 10 GB/s and 0.1 TFLOPS, float32."""
    anatomy, total = source.anatomy, 0.0
    for block in anatomy.blocks:
        for linear in block.linears():
            weights = linear.out_features * linear.in_features
            total += max(4 * weights / 10e9, 2 * tokens * weights / 0.1e12)
        total += 4 * tokens * context * block.attention.heads * block.attention.head_dim / 0.1e12
    table = anatomy.vocab_size * anatomy.hidden_size
    return total + max(4 * table / 10e9, 2 * tokens * table / 0.1e12)


@pytest.mark.parametrize(("tokens", "context"), [(1, 0), (1, 64), (128, 64)])
def test_time_is_the_roofline_of_every_matrix(tokens: int, context: int, pico_llama: Path) -> None:
    source = WeightSource.open(pico_llama)
    budget = Budget.model_validate({**SLOW, "tokens": tokens, "context": context})
    assert budget.total(source.anatomy) / 1e15 == pytest.approx(naive_seconds(source, tokens, context))


def test_bytes_are_those_of_the_file(pico_llama: Path) -> None:
    source = WeightSource.open(pico_llama)
    norms = sum(4 * shape[0] for shape in source.shapes.values() if len(shape) == 1)
    stored = sum(source.stored_bytes(name) for name in source.shapes)
    assert Budget(of="bytes").total(source.anatomy) == stored - norms
    half = Budget(of="bytes", block_bits=4, outside_bits=8).total(source.anatomy)
    assert half == Budget().total(source.anatomy) // 2 + Budget(of="bytes").outside(source.anatomy) // 4


@pytest.mark.parametrize("name", ["narrow", "layers", "width"])
@pytest.mark.parametrize("of", ["bytes", "latency"])
def test_the_budget_is_kept_by_the_whole_model(
    name: str, of: str, pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    budget: Any = of if of == "bytes" else {**SLOW, "tokens": 8, "context": 8}
    step = {"pass": name, "keep": 0.8, "budget": budget}
    out = run(pico_llama, pico_text, tmp_path, step | ({"multiple": 16} if name != "layers" else {}))
    counted = Budget.model_validate({"of": "bytes"} if of == "bytes" else budget)
    before, after = (WeightSource.open(path).anatomy for path in (pico_llama, out))
    assert counted.total(after) <= 0.8 * counted.total(before)
    if name == "narrow":
        found = read_json(out / "edgepress.json")["steps"][0]["details"][of]
        assert found == pytest.approx(counted.total(after) / counted.total(before))


def test_a_budget_that_the_head_alone_exceeds_is_refused(
    pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="bytes of the model"):
        run(pico_llama, pico_text, tmp_path, {"pass": "narrow", "keep": 0.05, "budget": "bytes"})


def test_latency_needs_a_machine(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: r\npasses:\n  - {pass: narrow, keep: 0.5, budget: {of: latency}}\n")
    with pytest.raises(RecipeError, match="bandwidth"):
        load_recipe(str(path))
