"""Seconds of candidates on a device: those of its kernel table, for one row and for a prompt."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from operator import gt
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from edgepress.benchmarks.speed.planned_subject import subject_of
from edgepress.compress.model.weights import WeightSource
from edgepress.devices.kernel_table.kept import keep_table
from edgepress.devices.predict.caches import Place
from edgepress.devices.predict.from_table import TablePrediction
from edgepress.devices.predict.table_cost import TableCost
from edgepress.devices.predict.workload import PredictedWork
from edgepress.errors import InputError
from edgepress.fit.budgets import Budget
from edgepress.fit.candidates import space_of
from edgepress.fit.corrections import Corrections
from edgepress.fit.cuts.cut_space import with_cuts
from edgepress.fit.cuts.possible import cuts_of
from edgepress.fit.cuts.profile import Profile
from edgepress.fit.latency import costs_of, rests_of, timed_lengths, times_of
from edgepress.fit.methods import METHODS
from edgepress.fit.quantities import DECODE, DISK, ENERGY, FIRST_TOKEN, Quantity
from edgepress.fit.solve import Infeasible, Solution, solve
from edgepress.runtime.bundle.bundle import Bundle

from ..devices.kernel_table.tables import COMPUTING, plain_seconds, small_table

BUDGETS = [Budget(DECODE, 100.0, "here"), Budget(FIRST_TOKEN, 0.5, "here"), Budget(DISK, 1e9)]


@pytest.mark.usefixtures("table")
def test_a_decoded_token_costs_the_bytes_of_its_weights(pico_llama: Path) -> None:
    source = WeightSource.open(pico_llama)
    space = space_of(source, None)
    times = times_of(space, source, BUDGETS, costs_of(BUDGETS, 1))
    assert list(times) == ["decode on here", "first token on here"]
    for rows in times.values():
        assert [len(row) for row in rows] == [len(unit.options) for unit in space.units]
    for unit, one in zip(space.units, times["decode on here"], strict=True):
        by_bits = {
            option.scheme.bits: s for option, s in zip(unit.options, one, strict=True) if option.scheme
        }
        assert by_bits[8] > by_bits[4] > by_bits[2] > 0


@pytest.mark.usefixtures("table")
def test_the_fastest_choice_is_within_its_own_budget_and_no_other_is(pico_llama: Path) -> None:
    source = WeightSource.open(pico_llama)
    space = space_of(source, None)
    times = times_of(space, source, BUDGETS[:1], costs_of(BUDGETS[:1], 1))
    fastest = 1 / sum(min(row) for row in times["decode on here"])
    space = replace(space, times=times)
    corrections = Corrections()
    for factor, kind in ((0.999, Solution), (1.001, Infeasible)):
        budget = Budget(DECODE, factor * fastest, "here")
        found = solve(space.sizes, corrections.limits(space, [budget], METHODS[0]))
        assert isinstance(found, kind)


@pytest.mark.usefixtures("table")
def test_what_an_encoder_reads_is_read_once(pico_t5: Path) -> None:
    keep_table("here", small_table(partial(plain_seconds, peak=COMPUTING)))
    source = WeightSource.open(pico_t5)
    space = space_of(source, None)
    times = times_of(space, source, BUDGETS, costs_of(BUDGETS, 1))
    for unit, decode, first in zip(space.units, *times.values(), strict=True):
        read = any(name.startswith("encoder.") or "EncDecAttention.k" in name for name in unit.modules)
        assert (max(decode) == 0) == read and min(first) > 0
        if not read:
            assert decode == first  # a row of the decoder, or of the head
    by_name = {unit.modules: row for unit, row in zip(space.units, times["first token on here"], strict=True)}
    both = {stack: by_name[f"{stack}.block.0.layer.0.SelfAttention.o",] for stack in ("encoder", "decoder")}
    assert all(read > wrote for read, wrote in zip(*both.values(), strict=True))


@pytest.mark.usefixtures("table")
def test_what_an_encoder_hears_is_as_many_rows_as_a_sound_has(pico_whisper: Path) -> None:
    keep_table("here", small_table(partial(plain_seconds, peak=COMPUTING)))
    source = WeightSource.open(pico_whisper)
    hearing = source.anatomy.hearing
    assert hearing is not None
    shorter = source.anatomy, replace(source.anatomy, hearing=replace(hearing, tokens=50))
    found = []
    for anatomy in shorter:
        source.anatomy = anatomy
        space = space_of(source, None)
        found.append(times_of(space, source, BUDGETS, costs_of(BUDGETS, 1)))
    for unit, decode, whole, half in zip(
        space.units, found[0]["decode on here"], *(one["first token on here"] for one in found), strict=True
    ):
        of_the_encoder = any(".encoder." in name or "encoder_attn.k" in name for name in unit.modules)
        assert (max(decode) == 0) == of_the_encoder
        assert all(map(gt, whole, half)) if of_the_encoder else decode == whole == half


@pytest.mark.parametrize(
    ("bundle", "lengths"),
    [
        ({"kind": "decoder", "decoder": SimpleNamespace(context_length=4096)}, (128, 128)),
        ({"kind": "decoder", "decoder": SimpleNamespace(context_length=97)}, (48, 48)),
        ({"kind": "encoder", "encoder": SimpleNamespace(max_length=77, filled=False)}, (77, 128)),
        ({"kind": "encoder", "encoder": SimpleNamespace(max_length=512, filled=True)}, (512, 128)),
        (
            {
                "kind": "encoder_decoder",
                "encoder_decoder": SimpleNamespace(max_length=64, context_length=96, prompt=[[1], [2, 3]]),
            },
            (64, 94),
        ),
    ],
)
def test_no_more_is_timed_than_fits_the_model(bundle: dict[str, Any], lengths: tuple[int, int]) -> None:
    assert timed_lengths(cast(Bundle, SimpleNamespace(**bundle))) == lengths


@pytest.mark.usefixtures("table")
def test_a_shorter_prompt_has_fewer_rows(pico_llama: Path) -> None:
    keep_table("here", small_table(partial(plain_seconds, peak=COMPUTING)))
    source = WeightSource.open(pico_llama)
    found = []
    for positions in (source.anatomy.max_positions, 32):
        source.anatomy = replace(source.anatomy, max_positions=positions)
        space = space_of(source, None)
        found.append(times_of(space, source, BUDGETS, costs_of(BUDGETS, 1)))
    assert found[0]["decode on here"] == found[1]["decode on here"]
    pairs = zip(space.units, *(one["first token on here"] for one in found), strict=True)
    assert all(all(map(gt, whole, short)) for unit, whole, short in pairs if not unit.is_table)


def test_a_device_without_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(InputError, match="this machine has no kernel table yet") as error:
        costs_of(BUDGETS, None)
    assert "edgepress devices measure" in error.value.fix
    assert costs_of(BUDGETS[2:], None) == {}


class RecordingCost(TableCost):
    """Keeps the bytes of all graphs that are asked about."""

    def __init__(self) -> None:
        super().__init__(small_table(), 1)
        self.asked: list[float] = []

    def place(self, working_set: float) -> Place:
        self.asked.append(working_set)
        return super().place(working_set)


@pytest.mark.usefixtures("table")
def test_weights_lie_where_those_of_the_largest_choice_within_the_budgets_do(pico_llama: Path) -> None:
    source = WeightSource.open(pico_llama)
    space = space_of(source, None)
    sizes = [space.shipped + sum(map(of, space.sizes)) for of in (min, max)]

    def size(*budgets: Budget) -> float:
        cost = RecordingCost()
        times_of(space, source, budgets, {"here": cost})
        return cost.asked[-1]

    slow, fast = (Budget(DECODE, rate, "here") for rate in (1.0, 1e9))
    assert size(slow) == pytest.approx(sizes[1]) and size(fast) == pytest.approx(sizes[0])
    times = times_of(space, source, [slow], costs_of([slow], 1))["decode on here"]
    rates = [1 / sum(map(of, times)) for of in (min, max)]
    middle = replace(slow, bound=sum(rates) / 2)
    assert sizes[0] < size(middle) < sizes[1]
    assert size(slow, Budget(DISK, sizes[0] * 1.1)) == pytest.approx(sizes[0] * 1.1)
    assert size(replace(middle, quantity=ENERGY, bound=1.0)) == pytest.approx(sizes[0])


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("quantity", [DECODE, FIRST_TOKEN])
def test_a_choice_is_predicted_before_any_trial_as_its_recipe_is(
    pico_llama: Path, quantity: Quantity, tmp_path: Path
) -> None:
    budget = Budget(quantity, 1e3 if quantity is DECODE else 1.0, "here")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: a\nembedding: W4A16-g32\npasses: [{pass: rtn, scheme: W4A16-g32}]\n")
    subject = subject_of(str(pico_llama), recipe=str(recipe))
    source = WeightSource.open(pico_llama)
    space, costs = space_of(source, None), costs_of([budget], 1)
    rests = rests_of(space, source, [budget], costs)
    space = replace(space, rests=rests, times=times_of(space, source, [budget], costs, rests))
    options = [[option.name for option in unit.options].index("W4A16-g32") for unit in space.units]
    found = Corrections().predicted(space, options, METHODS[0], [budget])[budget.key]
    work = PredictedWork(*[min(128, source.anatomy.max_positions // 2)] * 2)
    values = {
        one.name: one.value for one in TablePrediction(subject, small_table(), 1).predict(work, "").quantities
    }
    expected = values["decode_tps"] if quantity is DECODE else (values["ttft_ms"] or 0) / 1e3
    assert found == pytest.approx(expected, rel=0.05)
    without = Corrections().predicted(replace(space, rests={}), options, METHODS[0], [budget])[budget.key]
    assert without != pytest.approx(expected, rel=0.05)


@pytest.mark.usefixtures("table")
def test_of_what_nothing_is_predicted_the_first_trial_says_the_rest(pico_llama: Path) -> None:
    source = WeightSource.open(pico_llama)
    space, costs = space_of(source, None), costs_of(BUDGETS, 1)
    assert set(rests_of(space, source, BUDGETS, costs)) == {"decode on here", "first token on here"}
    few = small_table(families=[one for one in small_table().families if "Attention" not in one.op])
    keep_table("here", few)
    assert rests_of(space, source, BUDGETS, costs_of(BUDGETS, 1)) == {}


@pytest.mark.usefixtures("table")
def test_fewer_heads_and_channels_take_less_and_keep_a_rate_that_no_bits_keep(pico_llama: Path) -> None:
    source = WeightSource.open(pico_llama)
    whole = space_of(source, None)
    found = with_cuts(whole, source, None, cuts_of(source))
    costs = costs_of(BUDGETS[:1], 1)
    (alone,) = times_of(whole, source, BUDGETS[:1], costs).values()
    (times,) = times_of(found.space, source, BUDGETS[:1], costs).values()
    for unit, row, before in zip(found.space.units, times, alone, strict=True):
        assert row[: len(before)] == before
        named = {(option.kept, option.name): s for option, s in zip(unit.options, row, strict=True)}
        for (kept, scheme), seconds in named.items():
            assert (seconds == 0) == (kept == 0) and (kept in (None, 0) or seconds < named[None, scheme])
    space = replace(found.space, times={BUDGETS[0].key: times})
    faster = Budget(DECODE, 1.1 / sum(min(row) for row in alone), "here")
    limits = Corrections().limits(space, [faster], METHODS[0])
    assert isinstance(found.solve(space.sizes, limits, only=Profile()), Infeasible)
    solution = found.solve(space.sizes, limits)
    assert isinstance(solution, Solution) and found.profile(solution.options)
