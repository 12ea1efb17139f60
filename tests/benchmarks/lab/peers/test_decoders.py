"""The comparison of decoders: raw lines, bars and tables from them, and environments."""

import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from edgepress.benchmarks.lab.peers import bars, lines, tables
from edgepress.benchmarks.lab.peers.__main__ import main
from edgepress.benchmarks.lab.peers.decoder_models import prompts, subject
from edgepress.benchmarks.lab.peers.measure import DecoderPlan, EngineRow, turned
from edgepress.benchmarks.lab.peers.workspace import Workspace, peers, setup, trouble
from edgepress.errors import InputError, MissingDependency
from edgepress.files.storage import write_json

RUN = {
    "kind": "run",
    "schema": lines.SCHEMA,
    "subject": "pico",
    "title": "a pico model",
    "command": "measure pico",
    "date": "2026-01-01",
    "machine": {"line": "two cores"},
    "settings": {"rounds": 2, "passes": 1, "new_tokens": 11},
}
ROUND = {"kind": "round", "round": 0, "bandwidth": {"1": 2e9}, "disturbance": {}, "reasons": []}


def result(
    engine: str, bits: tuple[int, int], decode_tps: float, number: int = 0, **more: Any
) -> dict[str, Any]:
    """A line of an engine that reads 100 tokens in a second and then writes 10 more at ``decode_tps``."""
    passes = {"prefill_s": [1.0], "decode_s": [10 / decode_tps], "tokens": [], "rss_bytes": 1}
    return {
        "kind": "result",
        "engine": engine,
        "variant": f"w{bits[0]}-head{bits[1]}",
        "label": f"{engine} {bits[0]}",
        "bits": bits[0],
        "head_bits": bits[1],
        "threads": 1,
        "round": number,
        "load_s": 0.5,
        "first_token_s": 1.0,
        "peak_rss_bytes": 300_000_000,
        "artifact_bytes": 90_000_000,
        "prompts": [{"prompt_tokens": 100, "new_tokens": 11, **passes}],
        **more,
    }


def comparison(tmp_path: Path, *found: dict[str, Any]) -> lines.DecoderComparison:
    raw = tmp_path / "raw.jsonl"
    raw.write_text("".join(json.dumps(line) + "\n" for line in (RUN, ROUND, *found)), encoding="utf-8")
    return lines.read(raw)


def bar(found: lines.DecoderComparison, beginning: str) -> bars.PeerBar:
    return next(one for one in bars.bars(found) if one.name.startswith(beginning))


def test_rates_are_medians_over_rounds(tmp_path: Path) -> None:
    rates = [result("llama_cpp", (4, 8), rate, number) for number, rate in enumerate((50, 10, 20))]
    found = comparison(tmp_path, *rates)
    assert found.rate("decode", ("llama_cpp", "w4-head8"), 1, 100) == pytest.approx(20)
    assert found.rate("prefill", ("llama_cpp", "w4-head8"), 1, 100) == pytest.approx(100)
    assert found.rate("decode", ("llama_cpp", "w4-head8"), 2, 100) is None


def test_a_wide_interval_is_said(tmp_path: Path) -> None:
    steady = [result("x", (4, 8), rate, number) for number, rate in enumerate((100, 101, 99))]
    unsteady = [result("y", (4, 8), rate, number) for number, rate in enumerate((100, 130, 90))]
    found = comparison(tmp_path, *steady, *unsteady, result("once", (4, 8), 10))
    assert found.wide() == ["y 4 decode 100, 1 t"]
    assert "wider than 5 % to either side after 1 rounds: y 4 decode 100, 1 t." in tables.section(
        found, "Pico"
    )
    assert comparison(tmp_path, *steady).wide() == []


def test_equal_bits_meet_equal_bits(tmp_path: Path) -> None:
    found = comparison(
        tmp_path,
        result(bars.OURS, (4, 8), 124),
        result(bars.OURS, (4, 4), 150),
        result("llama_cpp", (4, 8), 100),
        result("openvino_genai", (4, 8), 60),
        result("onnxruntime_genai", (4, 4), 110),
        result("fast_at_16", (16, 16), 1000),
    )
    eight = bar(found, "1. decode at equal bits: 4, embedding and head 8")
    four = bar(found, "1. decode at equal bits: 4, embedding and head 4")
    assert eight.ratio == pytest.approx(1.24)
    assert (eight.verdict, eight.peer) == ("missed", "llama_cpp 4: 100")
    assert four.ratio == pytest.approx(150 / 110)
    assert four.verdict == "met"


def test_less_is_better_for_time_and_memory(tmp_path: Path) -> None:
    found = comparison(
        tmp_path,
        result(bars.OURS, (4, 8), 100, first_token_s=0.5, peak_rss_bytes=300_000_000),
        result("llama_cpp", (4, 8), 100, first_token_s=1.0, peak_rss_bytes=200_000_000),
    )
    assert bar(found, "4. process start").ratio == pytest.approx(2.0)
    assert bar(found, "4. peak RSS").verdict == "missed"


def test_fewer_bits_against_our_own_four_with_the_same_head(tmp_path: Path) -> None:
    found = comparison(
        tmp_path,
        result(bars.OURS, (4, 8), 100),
        result(bars.OURS, (4, 4), 10),
        result(bars.OURS, (3, 8), 130),
        result(bars.OURS, (2, 8), 150),
        result(bars.OURS, (2, 4), 17),
        result(bars.OURS, (3, 3), 1000),
    )
    two, three = bar(found, "2. decode of 2 bits"), bar(found, "2. decode of 3 bits")
    assert (two.ratio, two.verdict) == (pytest.approx(1.5), "missed")
    assert (three.ratio, three.verdict) == (pytest.approx(1.3), "met")
    assert bar(found, "2. decode of 2 bits against our 4, head 4").ratio == pytest.approx(1.7)
    assert not [one for one in bars.bars(found) if one.name.endswith("head 3")]


def test_the_default_row_is_compared_and_not_the_best_of_ours(tmp_path: Path) -> None:
    found = comparison(
        tmp_path,
        result(bars.OURS, (4, 8), 100),
        result(bars.OURS, (4, 8), 500, variant="w4-head8-kv8"),
        result("llama_cpp", (4, 8), 50),
    )
    assert bar(found, "1. decode at equal bits: 4, embedding and head 8").ratio == pytest.approx(2.0)


def test_bandwidth_is_what_the_weights_moved(tmp_path: Path) -> None:
    found = comparison(tmp_path, result(bars.OURS, (4, 8), 10, bytes_per_token=160_000_000))
    one = bar(found, "2. decode over bandwidth")
    assert one.ratio == pytest.approx(0.8)
    assert one.verdict == "met"


def test_bandwidth_is_that_of_the_same_round(tmp_path: Path) -> None:
    raw = tmp_path / "raw.jsonl"
    rounds = [
        {**ROUND, "round": number, "bandwidth": {"1": rate}} for number, rate in enumerate((2e9, 4e9, 8e9))
    ]
    each = [
        result(bars.OURS, (4, 8), rate, number, bytes_per_token=160_000_000)
        for number, rate in enumerate((10, 15, 30))
    ]
    raw.write_text("".join(json.dumps(line) + "\n" for line in (RUN, *each, *rounds)), encoding="utf-8")
    one = bar(lines.read(raw), "2. decode over bandwidth")
    assert (one.ours, one.peer) == ("edgepress_onnx 4: 2.4 GB/s", "memory: 4.0 GB/s")
    assert one.ratio == pytest.approx(0.6)


def test_a_peer_that_failed_is_listed_and_never_wins(tmp_path: Path) -> None:
    failed = result("openvino_genai", (4, 8), 1000, error="exit code 1: no | way\nout")
    found = comparison(tmp_path, failed, result(bars.OURS, (4, 8), 10))
    assert bar(found, "1. decode at equal bits: 4, embedding and head 8").verdict == "not measured"
    page = tables.section(found, "Pico")
    assert "| openvino_genai 4 | exit code 1: no \\| way out |" in page
    assert "| edgepress_onnx 4 | 4 | 8 | 10 |" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows if "openvino" in line} == {3}


def test_tokens_are_counted_until_the_first_other_one(tmp_path: Path) -> None:
    def said(engine: str, bits: tuple[int, int], tokens: list[int], **more: Any) -> dict[str, Any]:
        line = result(engine, bits, 10, **more)
        return {**line, "prompts": [{**line["prompts"][0], "tokens": tokens}]}

    reference = said("torch_eager", (32, 32), [7, 8, 9], variant="float32")
    found = comparison(tmp_path, reference, said("llama_cpp", (4, 8), [7, 8, 1]))
    rows = [
        line for line in tables.section(found, "Pico").splitlines() if line.startswith("| llama_cpp 4 | 90 |")
    ]
    assert [row.split("|")[-2].strip() for row in rows] == ["2"]


def test_each_comparison_has_its_section_on_one_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison(tmp_path, result("llama_cpp", (4, 8), 90))
    page, raw = tmp_path / "page.md", str(tmp_path / "raw.jsonl")
    for more in (["--section", "Pico"], [], ["--section", "Pico"]):
        monkeypatch.setattr("sys.argv", ["peers", "table", raw, "--page", str(page), *more])
        main()
    headings = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("## ")]
    assert headings == ["## Pico", "## a pico model on two cores"]


def test_a_disturbed_run_gives_a_table_only_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = {**ROUND, "reasons": ["other processes took 31 % of the processors"]}
    comparison(tmp_path, noisy, result("llama_cpp", (4, 8), 90))
    page, raw = tmp_path / "page.md", str(tmp_path / "raw.jsonl")
    monkeypatch.setattr("sys.argv", ["peers", "table", raw, "--page", str(page)])
    with pytest.raises(InputError, match="disturbed") as refused:
        main()
    assert "31 %" in refused.value.why and not page.exists()
    monkeypatch.setattr("sys.argv", ["peers", "table", raw, "--page", str(page), "--disturbed"])
    main()
    assert "Disturbances: other processes took 31 %" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        json.dumps({"kind": "other"}),
        json.dumps({**ROUND, "more": 1}),
        json.dumps(result("x", (4, 8), 10, prompts=[{"prompt_tokens": 0}])),
    ],
)
def test_a_line_that_is_none_of_ours_is_named(tmp_path: Path, line: str) -> None:
    raw = tmp_path / "raw.jsonl"
    raw.write_text(f"{json.dumps(RUN)}\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"raw\.jsonl:2"):
        lines.read(raw)


def test_a_file_without_its_first_line_is_refused(tmp_path: Path) -> None:
    raw = tmp_path / "raw.jsonl"
    raw.write_text(json.dumps(ROUND), encoding="utf-8")
    with pytest.raises(InputError, match="does not begin"):
        lines.read(raw)
    with pytest.raises(InputError, match="cannot read"):
        lines.read(tmp_path / "nothing.jsonl")


@pytest.mark.parametrize(
    "wrong",
    [{"rounds": 0}, {"passes": 0}, {"threads": (0,)}, {"prompt_lengths": (9999,)}, {"new_tokens": 1}],
)
def test_a_plan_that_cannot_be_run_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        DecoderPlan(**wrong)


def test_every_round_has_all_rows_in_another_order(tmp_path: Path) -> None:
    rows = [EngineRow("x", ModuleType("x"), str(index), tmp_path, 0, "") for index in range(4)]
    orders = [tuple(row.variant for row in turned(rows, number)) for number in range(4)]
    assert len(set(orders)) == 4
    assert all(sorted(order) == ["0", "1", "2", "3"] for order in orders)


@pytest.mark.parametrize("name", sorted(peers("decoders")))
def test_engines_say_what_the_comparison_asks(name: str) -> None:
    module = peers("decoders")[name]
    assert module.TITLE
    assert module.VARIANTS
    assert all(variant.bits >= 2 and variant.head_bits >= 2 for variant in module.VARIANTS.values())
    assert callable(module.convert)
    assert callable(module.load)


def test_no_prompt_is_the_beginning_of_another(tmp_path: Path) -> None:
    workspace, chosen = Workspace(tmp_path), subject("smollm2")
    workspace.prompts(chosen.name).parent.mkdir(parents=True)
    workspace.prompts(chosen.name).write_text(json.dumps(list(range(100))), encoding="utf-8")
    assert prompts(workspace, chosen, (3, 5)) == [[0, 1, 2], [3, 4, 5, 6, 7]]


def test_an_environment_that_is_missing_or_failed_is_trouble(tmp_path: Path) -> None:
    workspace, module = Workspace(tmp_path), peers("decoders")["llama_cpp"]
    assert "setup llama-cpp" in str(trouble(workspace, "llama_cpp", module))
    assert trouble(workspace, "edgepress_onnx", peers("decoders")["edgepress_onnx"]) is None
    workspace.environment("llama_cpp").parent.mkdir()
    write_json(
        workspace.root / "environments" / "llama-cpp.json", {"status": "failed", "error": "no compiler"}
    )
    assert trouble(workspace, "llama_cpp", module) == "no compiler"


@pytest.mark.chain
def test_an_environment_that_cannot_be_made_keeps_its_error(tmp_path: Path) -> None:
    module = ModuleType("nothing")
    module.PACKAGES = ("--no-index", "--find-links=.", "edgepress-no-such-package==0")  # type: ignore[attr-defined]
    module.BUILD = {}  # type: ignore[attr-defined]
    workspace = Workspace(tmp_path)
    with pytest.raises(MissingDependency, match="nothing"):
        setup(workspace, "nothing", module)
    assert "edgepress-no-such-package" in str(trouble(workspace, "nothing", module))


def test_an_environment_whose_installer_was_stopped_is_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, module = Workspace(tmp_path), peers("decoders")["llama_cpp"]
    stopped = subprocess.CompletedProcess([], -9, stderr="")  # it had no time for a last word
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: stopped)
    with pytest.raises(MissingDependency):
        setup(workspace, "llama_cpp", module)
    assert trouble(workspace, "llama_cpp", module) == "-m venv ended with code -9 and said nothing"


@pytest.mark.chain
def test_what_a_peer_is_better_off_without_is_taken_away_again(tmp_path: Path) -> None:
    module = ModuleType("bare")
    module.PACKAGES, module.WITHOUT = ("--no-index", "pip"), ("pip",)  # type: ignore[attr-defined]
    workspace = Workspace(tmp_path)
    setup(workspace, "bare", module)
    assert trouble(workspace, "bare", module) is None
    assert not list(workspace.environment("bare").glob("lib/python*/site-packages/pip"))
