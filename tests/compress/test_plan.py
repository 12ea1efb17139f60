"""What a plan says of a bundle's size, and of a machine that is busy."""

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress import export_bundle
from edgepress.compress import plan, rates
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.bundle_size import bits_in_bundle
from edgepress.compress.costs import probe_work
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.passes.distill import Distill
from edgepress.compress.passes.tune import Tune
from edgepress.compress.pipeline.advance import Work
from edgepress.compress.pipeline.model_pass import Workload
from edgepress.compress.rates import Rates, measured_rates
from edgepress.compress.recipe import parse
from edgepress.compress.text.micro_batches import held_out_tokens
from edgepress.errors import EdgepressError, ShapeError, UnknownName

from ..conftest import save_decoder


@pytest.mark.chain
@pytest.mark.parametrize("scheme", ["W4A16", "W8A8"])
def test_the_bundle_is_about_as_large_as_planned(scheme: str, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6}
    model = save_decoder(tmp_path / "model", **sizes)
    planned = plan_model(str(model), scheme=scheme)
    out = compress_model(str(model), scheme=scheme, output=tmp_path / "out")
    bundle = export_bundle(out, output=tmp_path / "bundle", validate=False)
    found = sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file())
    assert planned.bundle_bytes == pytest.approx(found, rel=0.1)
    assert planned.bundle_bytes < planned.checkpoint_bytes / 2


@pytest.mark.chain
@pytest.mark.parametrize(
    ("family", "changes"), [("t5", {}), ("mt5", {"own_head": True}), ("marian", {}), ("whisper", {})]
)
def test_a_bundle_of_two_graphs_is_about_as_large_as_planned(
    family: str, changes: dict[str, Any], make_encoder_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_encoder_decoder(tmp_path / "m", family, vocab_size=6000, **changes)
    planned = plan_model(str(model), scheme="W4A16-g32").bundle_bytes
    made = compress_model(str(model), scheme="W4A16-g32", output=tmp_path / "o")
    bundle = export_bundle(made, output=tmp_path / "b", validate=False)
    found = sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file())
    assert planned == pytest.approx(found, rel=0.1)


def test_no_time_is_planned_for_a_kl_that_is_not_measured(tmp_path: Path) -> None:
    model = save_decoder(tmp_path / "model")
    source = WeightSource.open(model)
    cut, rounded = {"pass": "vocabulary", "size": 50}, {"pass": "rtn", "scheme": "W4A16-g32"}

    def work(*passes: dict[str, Any]) -> float:
        return probe_work(source, parse({"passes": list(passes)}, "recipe")).multiplications

    assert work(cut) == 0
    assert 0 < work(rounded) == work(rounded, cut)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"head_dim": 20}, ShapeError),
        ({"hidden_act": "relu6"}, UnknownName),
        ({"model_type": "phi", "head_dim": 16, "partial_rotary_factor": 0.5}, ShapeError),
    ],
)
def test_what_export_would_refuse_is_refused_before_compression(
    changes: dict[str, Any], error: type[Exception], tmp_path: Path
) -> None:
    model = save_decoder(tmp_path / "model", **changes)
    with pytest.raises(error):
        plan_model(str(model), scheme="W4A16")
    with pytest.raises(error):
        export_bundle(model, output=tmp_path / "bundle")


def test_bits_of_a_bundle_count_scales_and_zero_points() -> None:
    bits = {
        name: bits_in_bundle(Scheme.parse(name), 1024) for name in ("W4A16-g64", "W4A16_ASYM-g64", "W8A8")
    }
    assert bits == {"W4A16-g64": 4.25, "W4A16_ASYM-g64": 4.375, "W8A8": 8 + 16 / 1024}
    assert bits_in_bundle(None, 1024) == 32
    # Scales of 16 rows end with a line of 64 bytes: nine of a row take the place of ten.
    assert bits_in_bundle(Scheme.parse("W4A16-g64"), 576) == 4 + 160 / 576


def test_what_is_cut_away_is_in_no_bundle(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("passes: [{pass: layers, keep: 0.34}]")
    whole = plan_model(str(pico_llama), scheme="W8A16").bundle_bytes
    cut = plan_model(str(pico_llama), recipe=str(recipe), calibration=str(pico_text), samples=16, length=32)
    assert whole < plan_model(str(pico_llama), scheme="W8A16-g16").bundle_bytes
    assert cut.bundle_bytes < cut.checkpoint_bytes + 400_000 + 60_000


RATES = Rates(2e10, 1.5e10, 2e4, 1e8, 2e9, 1e9, 4.0)


def test_a_busy_machine_is_said_and_changes_no_figure(
    pico_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for share in (1.0, 0.4):
        monkeypatch.setattr(plan, "measured_rates", lambda share=share: replace(RATES, share=share))
        found[share] = plan_model(str(pico_llama), scheme="W4A16-g32")
    assert found[1.0].seconds == found[0.4].seconds and found[1.0].notes == ()
    assert found[0.4].notes[0].startswith("this machine is busy: other work takes 60 %")


def test_rates_are_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path))
    first = measured_rates()
    monkeypatch.setattr(rates, "measure", lambda: RATES)
    assert replace(measured_rates(), share=1.0) == replace(first, share=1.0)
    (kept,) = tmp_path.rglob("*.json")
    whole = kept.read_text()
    for damaged in ("{}", "[1]", "", "[" * 100_000, re.sub(r'"products": [^,]+', '"products": 0.0', whole)):
        kept.write_text(damaged)
        assert measured_rates() == RATES


def test_the_fastest_of_many_runs_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([*(0.0, 0.1), *(0.1, 0.11), *(0.11, 0.15)])

    class Time:
        perf_counter = staticmethod(iter([0.0, 0.3]).__next__)
        process_time = staticmethod(lambda: next(clock))

    monkeypatch.setattr(rates, "time", Time)
    assert rates._fastest(lambda: None) == pytest.approx(0.01)


def test_rates_are_of_one_thread_and_more_of_them_add(monkeypatch: pytest.MonkeyPatch) -> None:
    used, before = [], torch.get_num_threads()

    def measured() -> rates.Rates:
        used.append(torch.get_num_threads())
        return RATES

    monkeypatch.setattr(rates, "_of_one_thread", measured)
    torch.set_num_threads(3)
    try:
        found = inspect.unwrap(rates.measure)()  # other tests keep what it gave
        assert used == [1] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert found.products == pytest.approx(2.6 * RATES.products)
    assert (found.columns, found.stored, found.start) == (RATES.columns, RATES.stored, RATES.start)


def test_each_kind_of_work_has_its_rate() -> None:
    assert RATES.seconds(Work(products=2e10, roundings=4e9, stored=1e9)) == pytest.approx(1 + 2 + 1)
    whole = RATES.seconds(Work(1e9, 1e9, 100, 1e6, 1e9))
    assert whole == pytest.approx(
        sum(RATES.seconds(Work(*one)) for one in [(1e9, 1e9), (0, 0, 100, 1e6, 1e9)])
    )


def test_a_plan_begins_with_the_start(pico_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for start in (4.0, 9.0):
        monkeypatch.setattr(plan, "measured_rates", lambda start=start: replace(RATES, start=start))
        found[start] = plan_model(str(pico_llama), scheme="W4A16-g32").seconds
    assert found[4.0] > 4 and found[9.0] - found[4.0] == pytest.approx(5)


def test_learning_is_planned_with_logits_the_way_back_and_what_a_killed_run_needs(pico_llama: Path) -> None:
    anatomy = WeightSource.open(pico_llama).anatomy
    load = Workload(anatomy, tokens=64, scales=10, blocks=6, logits=9)

    def work(**training: Any) -> Work:
        return Distill(training={"tokens": 100, "measurements": 1, **training}).work(load)  # type: ignore[arg-type]

    plain, held_out = work(), held_out_tokens(64)
    assert plain.products == (64 + 2 * held_out) * (6 + 9) + 100 * (3 * 6 + 2 * 9)
    assert work(checkpointing=True).products - plain.products == 100 * 6
    assert work(measurements=3).stored == 2 * plain.stored > 0


def test_tuning_is_planned_with_matrices_made_of_codes_for_each_micro_batch(pico_llama: Path) -> None:
    anatomy = WeightSource.open(pico_llama).anatomy
    load, matrices = Workload(anatomy, tokens=64, scales=0, blocks=6, logits=9), 2 * 2
    matrices *= sum(linear.out_features * linear.in_features for linear in anatomy.linears())
    for micro_batch, times in ((64, 10), (32, 20)):
        tune = Tune(training={"tokens": 640, "micro_batch_tokens": micro_batch})  # type: ignore[arg-type]
        assert tune.work(load).stored == times * matrices


def test_answers_of_a_teacher_count_as_disk(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    found = {}
    for cache in ("true", "false"):
        recipe = tmp_path / f"{cache}.yaml"
        recipe.write_text(f"passes: [{{pass: distill, cache: {cache}, top_k: 50}}]")
        chosen = {"recipe": str(recipe), "calibration": str(pico_text), "samples": 64, "length": 32}
        found[cache] = plan_model(str(pico_llama), **chosen).disk  # type: ignore[arg-type]
    assert found["true"] - found["false"] == 64 * 32 * 50 * 8


def test_the_checkpoint_between_two_stages_counts_as_disk(
    pico_llama: Path, pico_text: Path, tmp_path: Path, recipe: Callable[..., str]
) -> None:
    rounding = {"pass": "rtn", "scheme": "W4A16-g32"}
    one = plan_model(str(pico_llama), recipe=recipe(tmp_path, rounding))
    text: dict[str, Any] = {"calibration": str(pico_text), "samples": 4, "length": 32}
    two = plan_model(str(pico_llama), recipe=recipe(tmp_path, rounding, {"pass": "tune"}), **text)
    assert two.disk >= one.disk + one.result_bytes


def test_a_pass_on_embedding_and_head_is_planned_with_their_weights(
    pico_llama: Path, pico_text: Path, tmp_path: Path, recipe: Callable[..., str]
) -> None:
    text: dict[str, Any] = {"calibration": str(pico_text), "samples": 4, "length": 32}
    whole = plan_model(str(pico_llama), recipe=recipe(tmp_path, {"pass": "vocabulary"}), **text)
    cut = plan_model(str(pico_llama), recipe=recipe(tmp_path, {"pass": "vocabulary", "size": 100}), **text)
    (step,), (smaller,) = whole.steps, cut.steps
    config = json.loads((pico_llama / "config.json").read_text())
    rows, tables = config["vocab_size"], 1 if config["tie_word_embeddings"] else 2
    assert (step.layers, step.weights) == (0, tables * rows * config["hidden_size"])
    assert step.bytes_after == step.bytes_before
    assert smaller.bytes_after == smaller.bytes_before * 100 // rows
    assert whole.result_bytes - cut.result_bytes == step.bytes_after - smaller.bytes_after


@pytest.mark.chain
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "step",
    [
        {"pass": "rtn", "scheme": "W4A16-g32"},
        {"pass": "rotate"},
        {"pass": "width", "keep": 0.5, "multiple": 32},
        {"pass": "narrow", "keep": 0.7},
        {"pass": "layers", "keep": 0.5},
        {"pass": "vocabulary", "size": 300},
    ],
    ids=lambda step: step["pass"],
)
def test_the_planned_size_is_that_of_the_result(
    make_decoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    recipe: Callable[..., str],
    step: dict[str, Any],
    tied: bool,
) -> None:
    """Within 2 %, in bfloat16 too: what a pass adds is stored as the model is."""
    model = make_decoder(tmp_path / "m", tie_word_embeddings=tied, num_hidden_layers=4, dtype="bfloat16")
    chosen = {"recipe": recipe(tmp_path, step), "calibration": str(pico_text), "samples": 4, "length": 32}
    planned = plan_model(str(model), **chosen).result_bytes  # type: ignore[arg-type]
    out = compress_model(str(model), output=tmp_path / "o", **chosen)  # type: ignore[arg-type]
    reader = WeightSource.open(out).reader
    assert "BF16" in reader.dtypes.values()
    assert sum(map(reader.nbytes, reader.shapes)) == pytest.approx(planned, rel=0.02)


def test_a_dry_run_refuses_what_the_run_would(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    """A field or a chat template that nothing reads, a field that no row has, and too little text."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"body": "the river ran under old stone bridges " * 200}) + "\n")
    asked: dict[str, Any] = {"scheme": "W4A16", "samples": 2, "length": 16}
    for options, said in (
        ({"field": "body"}, "reads no text"),
        ({"chat": "always"}, "reads no text"),
        ({"calibration": str(pico_text), "field": "body"}, "it is plain text"),
        ({"calibration": "wikipedia", "field": "body"}, "it is plain text"),
        ({"calibration": str(rows)}, "has no field 'text'"),
        ({"calibration": str(rows), "field": "body", "samples": 5000}, "would fit"),
    ):
        with pytest.raises(EdgepressError) as caught:
            plan_model(str(pico_llama), **(asked | options))
        assert said in f"{caught.value.what} {caught.value.fix}", options
    assert plan_model(str(pico_llama), **asked, calibration=str(rows), field="body").calibration_tokens == 32
