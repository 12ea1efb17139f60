"""Packaged recipes in a search: word for word, as one choice of the candidates, and first of all trials."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.recipe_files import FOLDER
from edgepress.fit.asked.wish import Wish
from edgepress.fit.budgets import Budget
from edgepress.fit.candidates import space_of
from edgepress.fit.choices import recipe_of
from edgepress.fit.job import Job
from edgepress.fit.losses import given_by, packaged_methods, packaged_recipe
from edgepress.fit.methods import Method
from edgepress.fit.outer.method_space import PRESETS, first_of
from edgepress.fit.outer.outer_search import OuterSearch
from edgepress.fit.quantities import DISK
from edgepress.terminal.progress import Silent


def method(name: str) -> Method:
    return next(one for one in packaged_methods() if one.packaged == name)


def test_a_recipe_is_followed_word_for_word() -> None:
    settings = {"source": "wikipedia", "samples": 128, "length": 512, "seed": 3}
    written = yaml.safe_load((FOLDER / "best-small.yaml").read_text(encoding="utf-8"))
    found = packaged_recipe("best-small", settings)
    assert found.pop("calibration") == {**settings, "samples": 48}
    assert found == {key: value for key, value in written.items() if key not in ("about", "calibration")}
    few = packaged_recipe("best-small", {**settings, "samples": 16, "length": 32})
    assert (few["calibration"]["samples"], few["calibration"]["length"]) == (16, 32)


def test_those_that_store_weights_otherwise_or_cut_are_none() -> None:
    known = {one.packaged for one in packaged_methods()}
    assert {"w4a16-gptq", "w3a16-tuned", "best", "best-small", "w4a16-rtn"} <= known
    assert not {"narrow70-w4a16", "sparse50-w4a16", "half-distilled", "w3a16-qat"} & known
    tuned = method("w3a16-tuned")
    assert (tuned.rounding, tuned.scaled, tuned.epochs, tuned.cached) == ("corrected", True, 1, False)
    assert tuned.name == "w3a16-tuned as packaged"


@pytest.mark.parametrize("name", ["w4a16-gptq", "best-small"])
def test_a_recipe_is_one_choice(name: str, pico_llama: Path) -> None:
    source = WeightSource.open(pico_llama)
    given = given_by(source, name)
    assert given is not None
    assert {given[one.name] for one in source.anatomy.linears()} == {Scheme.parse("W4A16-g64")}
    tables = {"w4a16-gptq": "W8A16-g32", "best-small": "W4A16-g64"}
    assert given[source.anatomy.embedding] == Scheme.parse(tables[name])
    whole, single = space_of(source, None), space_of(source, None, given)
    assert single.shipped == pytest.approx(whole.shipped)
    for unit, one in zip(whole.units, single.units, strict=True):
        (option,) = one.options
        assert one.modules == unit.modules and option in unit.options
    settings = {"samples": 128, "length": 512, "seed": 0}
    made = recipe_of(single, (0,) * len(single.units), method(name), settings)
    assert made == packaged_recipe(name, settings)


def test_integer_products_are_of_encoders_alone(pico_llama: Path, pico_bert: Path) -> None:
    assert given_by(WeightSource.open(pico_llama), "fp8-dynamic") is None
    llama, bert = (given_by(WeightSource.open(one), "w8a8") for one in (pico_llama, pico_bert))
    assert llama is None and bert is not None and Scheme.parse("W8A8") in bert.values()


@pytest.mark.chain
def test_the_best_that_keeps_the_budget_comes_first(
    pico_llama: Path, pico_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    source = WeightSource.open(pico_llama)
    room = 1.02 * _size(source, "balanced")
    wish = Wish(
        str(pico_llama),
        (Budget(DISK, room),),
        str(pico_text),
        samples=16,
        length=32,
        threads=1,
        trials=6,
    )
    search = Job(wish, tmp_path, Silent()).search(time.monotonic() + 3600)
    found = _claimed(OuterSearch(search, tmp_path / "first.journal", 6))
    assert found == [method("balanced"), Method(), Method("corrected")]
    dear = [packaged for _, packaged in first_of(search, PRESETS, dear=True)]
    assert dear[-1] in ("best", "best-small") and set(dear[:-1]) == {""}
    assert first_of(search, (), dear=False) == []  # where all are sampled
    less = replace(wish, budgets=(Budget(DISK, 0.98 * _size(source, "balanced")),))
    search = Job(less, tmp_path, Silent()).search(time.monotonic() + 3600)
    (first, *_) = _claimed(OuterSearch(search, tmp_path / "less.journal", 6))
    assert _size(source, first.packaged) < 0.98 * _size(source, "balanced")


def _size(source: WeightSource, name: str) -> float:
    given = given_by(source, name)
    assert given is not None
    space = space_of(source, None, given)
    return space.shipped + sum(row[0] for row in space.sizes)


def _claimed(search: OuterSearch) -> list[Method]:
    """The methods of the first three trials, none of which is run."""
    found = []
    for _ in range(3):
        with search._alone():
            claim = search._claim()
            assert claim is not None
            found.append(claim.method)
            search._tell(claim.trial, None, {})
            claim.lock.release()
    return found
