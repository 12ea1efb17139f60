"""Seconds of candidates on a device: those of its kernel table, for one row and for a prompt."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from operator import gt
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from edgepress.compress.model.weights import WeightSource
from edgepress.devices.kernel_table.kept import keep_table
from edgepress.errors import InputError
from edgepress.fit.budgets import Budget
from edgepress.fit.candidates import space_of
from edgepress.fit.corrections import Corrections
from edgepress.fit.latency import costs_of, timed_lengths, times_of
from edgepress.fit.methods import METHODS
from edgepress.fit.quantities import DECODE, DISK, FIRST_TOKEN
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
