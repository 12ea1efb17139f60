"""Candidates: their bytes are those of the bundle, their damage is that of the whole model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.bundle_size import bits_in_bundle, bundle_bytes
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.scheme import BITS
from edgepress.compress.numbers.table_scheme import TableScheme, table_scheme
from edgepress.compress.pipeline.block_shards import Masks
from edgepress.compress.pipeline.stage import Stage
from edgepress.compress.text.calibration import Calibration, calibration_from
from edgepress.compress.text.token_batch import rows_of
from edgepress.devices.predict.prediction import sizes
from edgepress.devices.predict.run import Operations
from edgepress.devices.predict.subject import PredictedWork, Subject
from edgepress.fit import table_losses as tables_module
from edgepress.fit.candidates import space_of
from edgepress.fit.losses import Losses, known_losses, losses_file, measure_losses
from edgepress.fit.table_losses import table_schemes, tables_in_parts
from edgepress.runtime.text.tokenizer import Tokenizer
from edgepress.terminal.progress import Silent


def calibration(model: Path, text: Path) -> Calibration:
    source = WeightSource.open(model)
    tokenizer = Tokenizer.open(model)
    return calibration_from(str(text), tokenizer, kind=source.anatomy.kind, samples=8, length=32)  # type: ignore[arg-type]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path, Path], Losses]:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))

    def measure(model: Path, text: Path) -> Losses:
        source, cpu = WeightSource.open(model), torch.device("cpu")
        found = calibration(model, text)
        return measure_losses(source, "fingerprint", found, tmp_path / "work", cpu, Silent())

    return measure


@pytest.mark.chain
@pytest.mark.parametrize(
    "kind",
    [
        *("pico_bert", "untied", "pico_t5"),
        # Of a decoder whose head is its embedding all is read in the cases above.
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("pico_llama", "untied mt5")),
    ],
)
def test_losses_fall_with_the_bits_and_are_measured_once(
    kind: str,
    request: pytest.FixtureRequest,
    make_decoder: Callable[..., Path],
    make_encoder_decoder: Callable[..., Path],
    tmp_path: Path,
    pico_text: Path,
    measured: Callable[[Path, Path], Losses],
) -> None:
    if kind == "untied":
        model = make_decoder(tmp_path / "m", tie_word_embeddings=False)
    elif kind == "untied mt5":
        model = make_encoder_decoder(tmp_path / "m", "mt5", own_head=True)
    else:
        model = request.getfixturevalue(kind)
    losses, anatomy = measured(model, pico_text), WeightSource.open(model).anatomy
    head = [anatomy.head] if anatomy.head is not None and not anatomy.tied else []
    assert list(losses.tables) == [anatomy.embedding, *head]
    assert list(losses.linears) == [linear.name for linear in anatomy.linears()]
    assert all(("W8A8" in found) == (kind == "pico_bert") for found in losses.linears.values())
    # Of random tables in two bits the KL is no longer small.
    least = 2 if anatomy.kind == "encoder_decoder" else 4
    for found in (*losses.linears.values(), *losses.tables.values()):
        assert found["W2A16-g32"] > least * found["W4A16-g32"] > 4 * least * found["W8A16-g32"] >= 0
    assert known_losses(losses_file("fingerprint", anatomy, calibration(model, pico_text))) == losses
    assert known_losses(losses_file("another", anatomy, calibration(model, pico_text))) is None


@pytest.mark.chain
def test_tables_are_measured_on_other_text_than_they_are_rounded_by(
    pico_llama: Path,
    pico_text: Path,
    measured: Callable[[Path, Path], Losses],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hessians, states = tables_module.table_hessians, tables_module.last_states
    seen: dict[str, set[tuple[int, ...]]] = {"rounded by": set(), "measured on": set()}

    def rows(batches: Any) -> set[tuple[int, ...]]:
        return {tuple(row.ids) for batch in batches for row in rows_of(batch)}

    def rounded_by(stage: Any, who: str) -> Any:
        seen["rounded by"] |= rows(stage.calibration.batches)
        return hessians(stage, who)

    def measured_on(skeleton: Any, batches: Any, *rest: Any, **options: Any) -> Any:
        seen["measured on"] |= rows(batches)
        return states(skeleton, batches, *rest, **options)

    monkeypatch.setattr(tables_module, "table_hessians", rounded_by)
    monkeypatch.setattr(tables_module, "last_states", measured_on)
    measured(pico_llama, pico_text)
    assert {name: len(found) for name, found in seen.items()} == {"rounded by": 4, "measured on": 4}
    assert not seen["rounded by"] & seen["measured on"]


@pytest.mark.chain
def test_a_killed_measurement_goes_on_after_the_last_scheme(
    pico_llama: Path,
    pico_text: Path,
    measured: Callable[[Path, Path], Losses],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, calls = tables_module._loss, []

    def interrupted(*arguments: Any, **options: Any) -> float:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return found(*arguments, **options)

    monkeypatch.setattr(tables_module, "_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measured(pico_llama, pico_text)
    losses = measured(pico_llama, pico_text)
    (table,) = losses.tables.values()
    assert len(calls) == len(table) + 1  # the one that was stopped, again


@pytest.mark.chain
def test_a_table_in_two_parts_loses_what_both_parts_lose(
    pico_llama: Path,
    pico_text: Path,
    measured: Callable[[Path, Path], Losses],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beside the KL of the model whose table is rounded so, by itself."""
    monkeypatch.setattr(tables_module, "RARE_FROM", 48)
    source = WeightSource.open(pico_llama)
    (table,) = measured(pico_llama, pico_text).tables.values()
    parts = tables_in_parts(source)
    assert set(table) == {one.name for one in [*table_schemes(source), *parts]}
    assert {(one.rare_from, one.rare.bits <= one.frequent.bits) for one in parts} == {(48, True)}
    for one in parts:
        assert table[one.name] >= 0
        if one.rare.bits < one.frequent.bits:
            assert table[one.name] < table[one.rare.name]
    name = "W4A16-g32+W2A16-g64@48"
    monkeypatch.setattr(tables_module, "TABLE_SCHEMES", (table_scheme(name),))
    monkeypatch.setattr(tables_module, "tables_in_parts", lambda source: [])
    found = calibration(pico_llama, pico_text)
    cpu = torch.device("cpu")
    stage = Stage(source, source, tmp_path / "again", found, Masks(), cpu, Silent())
    (alone,) = tables_module.table_losses(stage, found).values()
    assert table[name] == pytest.approx(alone[name], rel=0.1)


def test_tables_in_two_parts_are_of_large_vocabularies_that_are_head_too(
    pico_llama: Path, make_decoder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untied = WeightSource.open(make_decoder(tmp_path / "m", tie_word_embeddings=False))
    assert tables_in_parts(WeightSource.open(pico_llama)) == []
    monkeypatch.setattr(tables_module, "RARE_FROM", 48)
    assert tables_in_parts(untied) == []
    source = WeightSource.open(pico_llama)
    assert tables_in_parts(source)
    (unit,) = (unit for unit in space_of(source, None).units if unit.is_table)
    anatomy = source.anatomy
    sizes = {option.name: option.size for option in unit.options}
    assert sum("+" in name for name in sizes) == len(tables_in_parts(source))
    for name in (name for name in sizes if "+" in name):
        scheme = table_scheme(name)
        assert isinstance(scheme, TableScheme)
        parts = ((48, scheme.frequent), (anatomy.vocab_size - 48, scheme.rare))
        bits = [rows * bits_in_bundle(one, anatomy.hidden_size) for rows, one in parts]
        assert sizes[name] == pytest.approx(anatomy.hidden_size * sum(bits) / 8)


@pytest.mark.parametrize("number", [0, 1, -1])
@pytest.mark.parametrize("kind", ["pico_llama", "pico_t5"])
def test_sizes_add_up_to_the_bundle(kind: str, request: pytest.FixtureRequest, number: int) -> None:
    source = WeightSource.open(request.getfixturevalue(kind))
    space = space_of(source, None)
    names = [name for unit in space.units for name in unit.modules]
    anatomy = source.anatomy
    assert names == [*(linear.name for linear in anatomy.linears()), anatomy.embedding]
    chosen = space.chosen([min(number, len(u.options) - 1) if number >= 0 else -1 for u in space.units])
    bits = {
        linear.name: bits_in_bundle(option.scheme, linear.in_features)
        for unit, option in chosen
        for linear in anatomy.linears()
        if linear.name in unit.modules
    }
    table = chosen[-1][1].scheme
    whole = bundle_bytes(source, anatomy, bits, (table, table), 0)
    assert space.shipped + sum(option.size for _, option in chosen) == pytest.approx(whole, abs=1)
    assert space.resident > space.shipped > 0


def test_a_process_holds_what_predict_counts_of_a_bundle(pico_llama: Path) -> None:
    """A prompt of 128 tokens, whose widest activation is gate and up of one block, and 256 in the cache."""
    source = WeightSource.open(pico_llama)
    space, anatomy = space_of(source, None), source.anatomy
    subject = Subject(
        name="pico",
        kind=anatomy.kind,
        does=lambda run: Operations(),
        weights=int(space.shipped),
        disk=0,
        tokenizer=(pico_llama / "tokenizer.json").stat().st_size,
        kv_bytes=8 * sum(one.kv_heads * one.head_dim for one in anatomy.attentions()),
        values=0,
        vocab=anatomy.vocab_size,
        widest=2 * 128,
        context=256,
    )
    assert space.resident == sizes(subject, PredictedWork(128, 128), 1, 0)[0].value


def test_an_option_that_another_beats_in_both_is_none(pico_llama: Path) -> None:
    source = WeightSource.open(pico_llama)
    anatomy = source.anatomy
    even = {"W2A16-g32": 4.0, "W3A16-g32": 9.0, "W4A16-g32": 1.0, "W8A16-g32": 0.1}
    losses = Losses(
        {linear.name: even for linear in anatomy.linears()},
        {anatomy.embedding: {f"W{b}A16-g{g}": 1.0 / b + g / 1e3 for b in BITS for g in (16, 32, 64)}},
    )
    wide = {
        name: dict.fromkeys((f"W{b}A16-g{g}" for b in BITS for g in (32, 64, 128)), 5.0) | row
        for name, row in losses.linears.items()
    }
    for unit in space_of(source, Losses(wide, losses.tables)).units:
        sizes, damages = ([getattr(one, key) for one in unit.options] for key in ("size", "damage"))
        assert sizes == sorted(sizes) and damages == sorted(damages, reverse=True)
        assert unit.options[-1].name == "float" and damages[-1] == 0.0
