"""``allocate``: within the budget, no worse by its own measure than any uniform scheme, and repeatable."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.solve import allocation as scheme_budget
from edgepress.compress.solve import scheme_costs
from edgepress.compress.solve.allocation import mixed_strip, read_allocation, strip
from edgepress.errors import RecipeError, ShapeError
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json

pytestmark = pytest.mark.chain


CALIBRATED: dict[str, Any] = {"samples": 16, "length": 32}
SCHEMES = [f"W{bits}A16-g32" for bits in (2, 3, 4, 8)]


def run(model: Path, text: Path, folder: Path, name: str = "o", **options: Any) -> Path:
    path = folder / f"{name}.yaml"
    step = {"pass": "allocate", "schemes": SCHEMES, "using": {"pass": "rtn"}, **options}
    path.write_text(yaml.safe_dump({"name": "mixed", "passes": [step]}))
    return compress_model(
        str(model), recipe=str(path), output=folder / name, calibration=str(text), **CALIBRATED
    )


def details(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(path / "edgepress.json")["steps"][0]["details"]
    return found


@pytest.mark.parametrize("bits", [2.5, 3.0, 3.5, 4.5, 6.0])
def test_it_keeps_the_budget_and_beats_what_is_uniform(
    pico_llama: Path, pico_text: Path, tmp_path: Path, bits: float
) -> None:
    path = run(pico_llama, pico_text, tmp_path, bits=bits)
    source, found = WeightSource.open(path), details(path)
    linears = list(source.anatomy.linears())
    assert {linear.name: source.schemes[linear.name].name for linear in linears} == found["allocation"]
    sizes = [linear.out_features * linear.in_features for linear in linears]
    spent = sum(
        source.schemes[linear.name].bits_per_weight(linear.in_features) * size
        for linear, size in zip(linears, sizes, strict=True)
    )
    assert spent / sum(sizes) == pytest.approx(found["bits_per_weight"]) and spent <= bits * sum(sizes)
    for scheme in SCHEMES:
        if Scheme.parse(scheme).bits_per_weight(64) <= bits:
            uniform = sum(found["costs"][linear.name][scheme] for linear in linears)
            assert found["predicted"] <= uniform * (1 + 1e-9)
    for block in source.anatomy.blocks:
        for group in block.inputs():
            assert len({source.schemes[linear.name] for linear in group}) == 1


def test_a_plan_can_be_read_back_edited_and_used_again(
    pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    first = run(pico_llama, pico_text, tmp_path, "first", bits=3.5)
    again = run(pico_llama, pico_text, tmp_path, "again", plan=str(first))
    before, after = (
        hash_tree(path, skip=frozenset({"README.md", "edgepress.json", "bom.cdx.json"}))
        for path in (first, again)
    )
    assert before == after
    plan = dict(read_allocation(str(first)))
    plan["model.layers.0.self_attn.q_proj"] = "W8A16-g32"
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    edited = WeightSource.open(
        run(pico_llama, pico_text, tmp_path, "edited", plan=str(tmp_path / "plan.yaml"))
    )
    assert {name: scheme.name for name, scheme in edited.schemes.items()} == plan
    lines = strip(edited.anatomy, edited.schemes)
    assert [line.split()[0] for line in lines] == ["q", "k", "v", "o", "gate", "up", "down"]
    for line in lines:
        role, digits = line.split()
        wanted = [plan[one.name][1] for one in edited.anatomy.linears() if one.role == role]
        assert list(digits) == wanted
    assert mixed_strip(edited.anatomy, edited.schemes) == lines
    same = dict.fromkeys(edited.schemes, Scheme.parse("W4A16-g32"))
    assert mixed_strip(edited.anatomy, same) == []


def test_costs_are_measured_once(
    pico_llama: Path, pico_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(pico_llama, pico_text, tmp_path, "first", bits=3.5)
    other = run(pico_llama, pico_text, tmp_path, "other", bits=3.0)
    monkeypatch.setattr(scheme_costs, "ChangeLosses", None)
    again = run(pico_llama, pico_text, tmp_path, "again", bits=3.0, costs=str(first))
    assert details(again) == details(other)
    monkeypatch.undo()

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(scheme_budget, "choose", killed)
        run(pico_llama, pico_text, tmp_path, "killed", bits=3.0)
    monkeypatch.setattr(scheme_costs, "ChangeLosses", None)
    assert details(run(pico_llama, pico_text, tmp_path, "killed", bits=3.0)) == details(other)


def test_the_plan_of_the_work_counts_the_budget(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    path = run(pico_llama, pico_text, tmp_path, bits=3.0)
    recipe = str(tmp_path / "o.yaml")
    plan = plan_model(str(pico_llama), recipe=recipe, calibration=str(pico_text), **CALIBRATED)
    spent = sum(
        source.stored_bytes(f"{linear.name}.weight")
        for source in [WeightSource.open(path)]
        for linear in source.anatomy.linears()
    )
    assert 0.8 * plan.steps[0].bytes_after < spent < 1.5 * plan.steps[0].bytes_after


def test_the_plan_of_the_work_counts_the_bits_of_each_layer(
    pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    source = WeightSource.open(pico_llama)
    linears = list(source.anatomy.linears())
    allocation = {one.name: "W2A16-g32" if one.role == "down" else "W8A16-g32" for one in linears[:-1]}
    recipe = tmp_path / "r.yaml"
    step = {"pass": "allocate", "plan": allocation, "using": {"pass": "rtn"}}
    recipe.write_text(yaml.safe_dump({"name": "planned", "passes": [step]}))
    planned = plan_model(str(pico_llama), recipe=str(recipe)).steps[0]
    weights = {one.name: one.out_features * one.in_features for one in linears}
    bits = {name: Scheme.parse(scheme).bits_per_weight(32) for name, scheme in allocation.items()}
    assert planned.layers == len(allocation)
    assert planned.bytes_after == pytest.approx(
        sum(weights[name] * bits[name] / 8 for name in bits), rel=0.01
    )


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({}, RecipeError, "either bits"),
        ({"bits": 3.0, "plan": {"x": "W4A16-g32"}}, RecipeError, "either bits"),
        ({"bits": 3.0, "costs": "nowhere"}, RecipeError, "left its costs"),
        ({"bits": 3.0, "costs": {"x": {"W4A16-g32": 1.0}}}, RecipeError, "do not name"),
        ({"bits": 1.5}, RecipeError, "below"),
        ({"bits": 3.0, "using": {"pass": "magnitude"}}, RecipeError, "using"),
        ({"bits": 3.0, "using": {"pass": "gptq", "scheme": "W4A16"}}, RecipeError, "using"),
        ({"bits": 3.0, "using": {"pass": "gptq", "samples": 4}}, RecipeError, "using"),
        ({"bits": 3.0, "using": {"pass": "gptq", "dampin": 1}}, RecipeError, "using"),
        ({"plan": {"no.such.layer": "W4A16-g32"}}, RecipeError, "no linear"),
        ({"plan": {"model.layers.0.self_attn.q_proj": "W4A16-g128"}}, ShapeError, "divide"),
        ({"plan": "/no/such/file.yaml"}, RecipeError, "cannot read"),
        ({"bits": 3.0, "schemes": ["W4A16-g48", "W2A16-g48"]}, ShapeError, "divide"),
    ],
)
def test_what_makes_no_sense_is_refused(
    pico_llama: Path,
    pico_text: Path,
    tmp_path: Path,
    options: dict[str, Any],
    error: type[Exception],
    match: str,
) -> None:
    with pytest.raises(error, match=match):
        run(pico_llama, pico_text, tmp_path, **options)
    assert not (tmp_path / "o").exists()
