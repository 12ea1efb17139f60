"""Seconds of candidates on a device: those of its kernel table, for one row and for a prompt."""

import math
from dataclasses import replace
from functools import partial
from operator import gt, lt
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from edgepress.benchmarks.speed.planned_subject import subject_of
from edgepress.compress.model.weights import WeightSource
from edgepress.devices.kernel_table.table import keep_table
from edgepress.devices.predict.caches import Place
from edgepress.devices.predict.from_table import TablePrediction
from edgepress.devices.predict.subject import PredictedWork
from edgepress.devices.predict.table_cost import TableCost
from edgepress.errors import InputError
from edgepress.fit.budgets import Budget
from edgepress.fit.candidates import Space, space_of
from edgepress.fit.corrections import Corrections
from edgepress.fit.cuts.cut_space import with_cuts
from edgepress.fit.cuts.possible import Profile, cuts_of
from edgepress.fit.methods import METHODS
from edgepress.fit.quantities import DECODE, DISK, FIRST_TOKEN, Quantity
from edgepress.fit.solve import Infeasible, Solution, Table, solve_any
from edgepress.fit.speed.device_times import costs_of, times_of
from edgepress.fit.speed.products import timed_lengths
from edgepress.runtime.bundle.bundle import Bundle

from ...devices.kernel_table.tables import COMPUTING, plain_seconds, small_table

BUDGETS = [Budget(DECODE, 100.0, "here"), Budget(FIRST_TOKEN, 0.5, "here"), Budget(DISK, 1e9)]


def tables_of(space: Space, source: WeightSource) -> dict[str, Table]:
    """Seconds by unit and option, where all bundles take the same; what a pass takes beside products is among
    those of the last unit.
    """
    times = times_of(space, source, BUDGETS, costs_of(BUDGETS, 1))
    assert all(len(one.sizes) == 1 for one in times.values())
    return {key: one.within(math.inf) for key, one in times.items()}


@pytest.mark.usefixtures("table")
def test_a_decoded_token_costs_the_bytes_of_its_weights(pico_llama: Path) -> None:
    source = WeightSource.open(pico_llama)
    space = space_of(source, None)
    times = tables_of(space, source)
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
    fastest = 1 / sum(min(row) for row in times["decode on here"].within(math.inf))
    space = replace(space, times=times)
    corrections = Corrections()
    for factor, kind in ((0.999, Solution), (1.001, Infeasible)):
        budget = Budget(DECODE, factor * fastest, "here")
        found = solve_any(space.sizes, corrections.limits(space, [budget], METHODS[0]))
        assert isinstance(found, kind)


@pytest.mark.usefixtures("table")
def test_what_an_encoder_reads_is_read_once(pico_t5: Path) -> None:
    keep_table("here", small_table(partial(plain_seconds, peak=COMPUTING)))
    source = WeightSource.open(pico_t5)
    space = space_of(source, None)
    times = tables_of(space, source)
    for unit, decode, first in list(zip(space.units, *times.values(), strict=True))[:-1]:
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
        found.append(tables_of(space, source))
    rows = found[0]["decode on here"], *(one["first token on here"] for one in found)
    for unit, decode, whole, half in list(zip(space.units, *rows, strict=True))[:-1]:
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
        found.append(tables_of(space, source))
    assert found[0]["decode on here"][:-1] == found[1]["decode on here"][:-1]
    pairs = zip(space.units, *(one["first token on here"] for one in found), strict=True)
    assert all(all(map(gt, whole, short)) for unit, whole, short in pairs if not unit.is_table)


def test_a_device_without_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(InputError, match="this machine has no kernel table yet") as error:
        costs_of(BUDGETS, None)
    assert "edgepress devices measure" in error.value.fix
    assert costs_of(BUDGETS[2:], None) == {}


class CacheCost(TableCost):
    """Of a machine whose caches hold a bundle of so many bytes, and nothing of a larger one."""

    def __init__(self, holds: float) -> None:
        super().__init__(small_table(), 1)
        self.holds = holds

    def place(self, working_set: float) -> Place:
        far = float(working_set > self.holds)
        return Place(far, far)


@pytest.mark.usefixtures("table")
def test_times_are_of_each_size_that_changes_them(pico_llama: Path) -> None:
    source = WeightSource.open(pico_llama)
    space = space_of(source, None)
    least, most = (space.shipped + sum(map(of, space.sizes)) for of in (min, max))
    budget, middle = Budget(DECODE, 100.0, "here"), (least + most) / 2
    (times,) = times_of(space, source, [budget], {"here": CacheCost(middle)}).values()
    small, large = times.sizes
    assert middle / 1.2 <= small <= middle and large == pytest.approx(most)
    assert times.step(least) == times.step(small) == small and times.step(small + 1) == large
    assert times.step(2 * most) == large
    for near, far in zip(times.within(small), times.within(large), strict=True):
        assert all(map(lt, near, far))
    both = [1 / sum(min(row) for row in times.within(size)) for size in times.sizes]
    found = solve_any(
        space.sizes,
        Corrections().limits(
            replace(space, times={budget.key: times}), [replace(budget, bound=0.99 * both[0])], METHODS[0]
        ),
    )
    assert isinstance(found, Solution) and both[1] < 0.99 * both[0]
    for bound in (small, least * 1.01):
        within = [budget, Budget(DISK, bound)]
        (less,) = times_of(space, source, within, {"here": CacheCost(middle)}).values()
        assert less.sizes == (bound,)


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
    space = replace(space, times=times_of(space, source, [budget], costs))
    options = [[option.name for option in unit.options].index("W4A16-g32") for unit in space.units]
    found = Corrections().predicted(space, options, METHODS[0], [budget])[budget.key]
    work = PredictedWork(*[min(128, source.anatomy.max_positions // 2)] * 2)
    values = {
        one.name: one.value for one in TablePrediction(subject, small_table(), 1).predict(work, "").quantities
    }
    expected = values["decode_tps"] if quantity is DECODE else (values["ttft_ms"] or 0) / 1e3
    assert found == pytest.approx(expected, rel=0.05)


@pytest.mark.usefixtures("table")
def test_of_what_nothing_is_predicted_products_alone_are(pico_llama: Path) -> None:
    source = WeightSource.open(pico_llama)
    space = space_of(source, None)
    whole = tables_of(space, source)
    keep_table(
        "here", small_table(families=[one for one in small_table().families if "Attention" not in one.op])
    )
    alone = tables_of(space, source)
    for key in whole:
        assert whole[key][:-1] == alone[key][:-1] and all(map(gt, whole[key][-1], alone[key][-1]))


@pytest.mark.usefixtures("table")
def test_fewer_heads_channels_and_blocks_take_less_and_keep_a_rate_that_no_bits_keep(
    pico_llama: Path,
) -> None:
    source = WeightSource.open(pico_llama)
    whole, cuts = space_of(source, None), cuts_of(source)
    found = with_cuts(whole, source, None, cuts)
    costs = costs_of(BUDGETS[:1], 1)
    (alone,) = (one.within(math.inf) for one in times_of(whole, source, BUDGETS[:1], costs).values())
    (times,) = times_of(found.space, source, BUDGETS[:1], costs, cuts).values()
    table = times.within(math.inf)
    for unit, row, before in zip(found.space.units, table, alone, strict=True):
        assert row[: len(before)] == pytest.approx(before)
        named = {(option.kept, option.name): s for option, s in zip(unit.options, row, strict=True)}
        for (kept, scheme), seconds in named.items():
            assert kept is None or seconds < named.get((None, scheme), 0)
            assert kept != 0 or seconds <= 0 < min(before)
    space = replace(found.space, times={BUDGETS[0].key: times})
    faster = Budget(DECODE, 1.1 / sum(min(row) for row in alone), "here")
    sets = Corrections().limits(space, [faster], METHODS[0])
    assert isinstance(found.solve(space.sizes, sets, only=Profile()), Infeasible)
    solution = found.solve(space.sizes, sets)
    assert isinstance(solution, Solution) and found.profile(solution.options)


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("cut", [Profile((), (0,)), Profile(((1, "heads", 1), (1, "ffn", 64)))])
def test_what_a_cut_leaves_is_predicted_as_a_model_of_its_own_is(
    cut: Profile, pico_llama: Path, tmp_path: Path
) -> None:
    """Norms, attention and nodes go with blocks and heads."""
    source, budgets = WeightSource.open(pico_llama), BUDGETS[:1]
    cuts, costs = cuts_of(source), costs_of(budgets, 1)
    found = with_cuts(space_of(source, None), source, None, cuts)
    (times,) = times_of(found.space, source, budgets, costs, cuts).values()
    options, floats = [], []
    for number, unit in enumerate(found.space.units):
        kept = cut.of(*found.places[number]) if number in found.places else None
        (option,) = [one for one in unit.options if one.kept == kept and one.name == "W4A16-g32"] or [
            one for one in unit.options if one.kept == kept and one.name == "float"
        ]
        floats += unit.modules if option.name == "float" and kept != 0 else ()
        options.append(unit.options.index(option))
    recipe = tmp_path / "recipe.yaml"
    passes = [*cut.passes(cuts.multiple), {"pass": "rtn", "scheme": "W4A16-g32", "ignore": floats}]
    recipe.write_text(yaml.safe_dump({"name": "a", "embedding": "W4A16-g32", "passes": passes}))
    subject = subject_of(str(pico_llama), recipe=str(recipe))
    work = PredictedWork(*[min(128, source.anatomy.max_positions // 2)] * 2)
    prediction = TablePrediction(subject, small_table(), 1).predict(work, "")
    rate = next(one.value for one in prediction.quantities if one.name == "decode_tps")
    assert 1 / times.seconds(math.inf, options) == pytest.approx(rate, rel=0.02)
