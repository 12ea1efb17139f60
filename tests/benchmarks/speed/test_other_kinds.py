"""``profile`` of encoders of images and of encoder–decoders, which read texts or sounds."""

from collections.abc import Callable
from pathlib import Path

import pytest
from edgepress.benchmarks.page.compare import compare_runs
from edgepress.benchmarks.page.report import render_report
from edgepress.benchmarks.records.record import read
from edgepress.benchmarks.speed.profile import plan_profile, profile_bundle
from edgepress.benchmarks.speed.profile_task import workload_of
from edgepress.benchmarks.speed.protocol import Protocol
from edgepress.benchmarks.speed.work.timed_answer import TimedAnswer
from edgepress.benchmarks.speed.work.timed_work import TimedImages, from_json, quantities, to_json
from edgepress.cli.measurement_table import measurement_table
from edgepress.errors import InputError
from edgepress.export.api import export_bundle
from edgepress.runtime.bundle.bundle import Bundle
from rich.console import Console

pytestmark = pytest.mark.chain
BRIEF = Protocol(blocks=1, block_ms=1, warmup_seconds=0)


@pytest.fixture(scope="module")
def images(make_vision: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    model = make_vision(root / "model", "vit", labels=["cat", "dog"])
    return export_bundle(model, output=root / "bundle", validate=False)


@pytest.fixture(scope="module")
def answers(pico_t5: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(pico_t5, output=tmp_path_factory.mktemp("answers") / "bundle", validate=False)


@pytest.fixture(scope="module")
def hears(pico_whisper: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(pico_whisper, output=tmp_path_factory.mktemp("hears") / "bundle", validate=False)


def shown(line: object) -> str:
    console = Console(width=80)
    with console.capture() as found:
        console.print(measurement_table(line))  # type: ignore[arg-type]
    return found.get()


def test_images_a_second(images: Path, tmp_path: Path) -> None:
    record = tmp_path / "run.jsonl"
    line = profile_bundle(images, batch=3, threads=1, per_op=True, protocol=BRIEF, record=record)
    assert {"images_per_second", "latency_ms", "load_ms", "rss_peak_bytes"} <= set(line.metrics)
    assert line.workload["kind"] == "see" and line.workload["size"] == [32, 32]
    assert line.per_op is not None and set(line.per_op["phases"]) == {"batch", "single"}
    text = shown(line)
    assert "images of 32 × 32, batch 3, 1 thread" in text and "only 1 block:" in text
    backwards = line.model_copy(update={"metrics": dict(reversed(line.metrics.items()))})
    assert shown(backwards) == text
    (group,) = compare_runs([record], sort="speed")
    assert group.shown == "classifier of images"
    page = render_report(read([record]))
    assert "Labels of images" in page and "img/s" in page and "sent/s" not in page


def test_an_encoder_decoder_reads_and_writes(answers: Path) -> None:
    line = profile_bundle(answers, prompt_tokens=12, new_tokens=5, threads=1, protocol=BRIEF)
    assert {"decode_tps", "prefill_tps", "ttft_ms", "tpot_ms", "e2e_ms"} <= set(line.metrics)
    assert line.workload["kind"] == "answer" and line.workload["prompt_tokens"] == 12
    assert "12 + 5 tokens" in shown(line)
    assert {row["op"] for row in line.time_by_op} >= {"Attention", "RootMeanSquareNorm"}


def test_a_sound_is_heard(hears: Path) -> None:
    line = profile_bundle(hears, new_tokens=5, threads=1, protocol=BRIEF)
    assert "prefill_tps" not in line.metrics
    assert line.metrics["e2e_ms"].value and line.metrics["rtfx"].value
    assert "2 s of sound + 5 tokens" in shown(line)
    assert any(row["op"] == "Conv" for row in line.time_by_op), "the encoder's graph is in the account"


def test_rtfx_is_sound_by_the_whole_answer() -> None:
    run = {"prefill": [10], "first": [500_000_000], "tokens": [200_000_000, 300_000_000]}
    found = {one.name: one.value(run) for one in quantities(TimedAnswer(new_tokens=3, seconds=30.0))}
    assert found["rtfx"] == pytest.approx(30) and found["ttft_ms"] == 500
    assert found["decode_tps"] == pytest.approx(4)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_phase_is_repeated_alone(answers: Path, hears: Path, phase: str) -> None:
    for path, seconds in ((answers, 0.0), (hears, 2.0)):
        bundle = Bundle.open(path)
        work = TimedAnswer(8, 6, seconds).open(bundle, threads=1, provider="cpu")
        first = work.repeat(phase)
        assert first == work.repeat(phase) == (1 if phase == "prefill" else 5)


def test_images_are_repeated(images: Path) -> None:
    work = TimedImages(3, 2).open(Bundle.open(images), threads=1, provider="cpu")
    assert work.repeat("batch") == 3 and work.graph_runs == (1, 3)
    assert {name: len(times) for name, times in work().items()} == {"batch": 1, "single": 2}


def test_workloads_go_to_workers_and_come_back(images: Path, answers: Path, hears: Path) -> None:
    for path in (images, answers, hears):
        work = workload_of([Bundle.open(path)], 8, 4, 2, 3)
        assert from_json(to_json(work)) == work


def test_what_does_not_fit_is_refused(images: Path, answers: Path, hears: Path) -> None:
    with pytest.raises(InputError, match="cannot be compared"):
        profile_bundle(images, baseline=answers)
    with pytest.raises(InputError, match="an answer of 90 tokens cannot be timed"):
        profile_bundle(hears, new_tokens=90)
    with pytest.raises(InputError, match="two graphs"):
        profile_bundle(answers, per_op=True)
    with pytest.raises(InputError, match="do not do the same work"):
        profile_bundle(answers, baseline=hears, new_tokens=5)


def test_the_plan_says_what_they_need(images: Path, answers: Path, hears: Path) -> None:
    for path in (images, answers, hears):
        assert plan_profile(path, prompt_tokens=12, new_tokens=5, protocol=BRIEF).memory > 0
