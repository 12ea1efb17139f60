"""The whole of ``fit`` on a pico model: what is delivered holds as measured and is repeated by its recipe;
what nothing keeps is answered; kills and interrupts lose nothing.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.quality.slices.people import choices
from edgepress.benchmarks.records import record as records
from edgepress.cli.entry import run
from edgepress.compress.api import compress_model
from edgepress.errors import OutOfResource, SigTerm
from edgepress.export.api import export_bundle
from edgepress.files.hashed_tree import check_tree, hash_tree
from edgepress.files.storage import read_json
from edgepress.fit import search as search_module
from edgepress.fit import trials as trials_module
from edgepress.fit.methods import Method
from edgepress.runtime.bundle.bundle import Bundle

from ..conftest import Powercap

pytestmark = pytest.mark.chain

Capture = pytest.CaptureFixture[str]
Fit = Callable[..., int]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where losses are kept: measured once for all tests here."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def fit(
    pico_llama: Path, pico_text: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Fit:
    """``edgepress fit`` with budgets, rounded alone, into ``tmp_path / "o"``."""
    monkeypatch.setenv("EDGEPRESS_CACHE", str(cache))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))  # without a kernel table
    monkeypatch.setattr(search_module, "METHODS", search_module.METHODS[:1])

    def call(*arguments: str) -> int:
        text = ["--text", str(pico_text), "--samples", "16", "--length", "32"]
        return run(["fit", str(pico_llama), *text, "-o", str(tmp_path / "o"), *arguments])

    return call


def smallest(fit: Fit, capsys: Capture) -> float:
    """Bytes of the smallest bundle that there could be."""
    assert fit("--max-disk", "1GB", "--dry-run", "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["units"] == 13 and found["smallest"] < found["largest"]
    assert all(seconds > 0 for seconds in found["compress_seconds"].values())
    return float(found["smallest"])


def test_what_is_delivered_holds_as_measured_and_is_repeated_by_its_recipe(
    fit: Fit, table: None, powercap: Powercap, tmp_path: Path, pico_llama: Path, capsys: Capture
) -> None:
    powercap.zone("intel-rapl:0", "package-0")
    powercap.step = 1_000_000
    bound = round(1.1 * smallest(fit, capsys))
    budgets = ["--max-disk", f"{bound}B", "--max-memory", "here=2GB", "--min-decode", "1"]
    budgets += ["--max-energy", "1e6J"]
    assert fit(*budgets, "--threads", "1", "--json") == 0
    found, out = json.loads(capsys.readouterr().out), tmp_path / "o"
    bundle = Bundle.open(out / "bundle")
    assert bundle.disk_bytes == found["measured"]["disk"] <= bound
    assert 5e7 < found["measured"]["memory on here"] <= 2e9 and found["measured"]["decode on here"] > 1
    assert found["measured"]["energy on here"] > 0
    assert found["held_out"]["KL"] > 0 and 0 <= found["gap"] < 0.01
    assert (found["held_out_status"], found["held_out_trials"]) == ("apart", [found["chosen"]])
    assert found["documents"]["held-out"] > 0 and found["documents"]["repeated"] == 0
    report = read_json(out / "fit.json")
    assert not check_tree(out, report["files"], skip=frozenset({"fit.json"}))
    assert report["trials"][report["chosen"] - 1]["measured"] == found["measured"]
    assert sum(one["share_of_damage"] for one in found["units"]) == pytest.approx(1)
    assert len(found["prices"]) == 8 and "would take KL from" in found["prices"][0]
    texts = [line.workload.get("text") for line in records.read([out / "runs.jsonl"])]
    assert texts == ["development.jsonl", None, "held-out.jsonl"]
    again = compress_model(
        str(pico_llama),
        recipe=str(out / "recipe.yaml"),
        calibration=str(out / "calibration.jsonl"),
        output=tmp_path / "again",
    )
    made = Bundle.open(export_bundle(again, output=tmp_path / "b"))
    differ = frozenset({"manifest.json", "README.md", "bom.cdx.json"})  # they name the run
    assert hash_tree(bundle.path, skip=differ) == hash_tree(made.path, skip=differ)
    assert not list(tmp_path.glob(".o.partial"))
    page = (out / "front.html").read_text()
    assert "trial 1: awq, gptq" in page and f"★ trial {report['chosen']}: " in page
    assert f"delivered: the best of those that keep {', '.join(report['budgets'])}, as measured; KL " in page
    assert fit("--max-disk", f"{bound}B") == 2  # it exists
    capsys.readouterr()
    assert fit(*budgets, "--threads", "1", "--dry-run", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert [one["disk"] for one in planned["front"]] == sorted(one["disk"] for one in planned["front"])
    assert (
        planned["front"][-1]["KL"] == planned["predicted"]["KL"]
        and planned["compress_seconds"]["awq, gptq"] > 0
    )


def test_energy_that_nothing_counts(fit: Fit, table: None, powercap: Powercap, capsys: Capture) -> None:
    assert fit("--max-energy", "0.2J") == 4
    assert "--max-energy 0.2J@raspberry-pi-5" in capsys.readouterr().err


def test_the_smallest_that_keeps_a_kl(fit: Fit, tmp_path: Path, capsys: Capture) -> None:
    assert fit("--max-kl", "0.01", "--json") == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert "; at most 14 trials left, " in printed.err
    assert found["objective"] == "disk" and found["measured"]["KL"] <= 0.01 >= found["held_out"]["KL"]
    holding = [one for one in found["trials"] if one["excess"] == 0]
    assert all((not one["misses"]) == (one["excess"] == 0) for one in found["trials"])
    assert found["measured"]["disk"] == min(one["measured"]["disk"] for one in holding)


def test_the_worst_group_of_a_slice_is_bounded_like_all_else(
    fit: Fit, tmp_path: Path, capsys: Capture
) -> None:
    assert fit("--max-slice-kl", "people=0.01", "--json") == 0
    found, key = json.loads(capsys.readouterr().out), "worst KL of people"
    assert found["objective"] == "disk" and found["budgets"] == [f"{key} ≤ 0.01"]
    assert found["measured"]["KL"] < found["measured"][key] <= 0.01 >= found["held_out"][key]
    lines = records.read([tmp_path / "o" / "runs.jsonl"])
    groups = [line.compare["slices"]["slices"][0]["groups"] for line in lines if line.compare]
    assert [max(one["kl_per_token"] for one in each) for each in groups] == [
        found["measured"][key],
        found["held_out"][key],
    ]
    card = (tmp_path / "o" / "README.md").read_text(encoding="utf-8")
    assert "## Who loses more" in card and f"{max(one['harm'] for one in groups[1]):.1%}" in card
    # Halves share no choice between two sentences.
    assert sum(sum(one["items"] for one in each) for each in groups) == len(choices(0))


def test_a_choice_by_the_held_out_text_is_said_to_be_one(
    fit: Fit, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, judged = search_module.qualities, 0

    def missed_once(*arguments: Any) -> dict[str, float]:
        nonlocal judged
        judged += 1
        return {"KL": 9.0} if judged == 1 else found(*arguments)

    monkeypatch.setattr(search_module, "qualities", missed_once)
    monkeypatch.setattr(search_module, "METHODS", (Method(), Method("corrected")))
    monkeypatch.setattr(search_module, "ROUNDS", 1)
    monkeypatch.setattr(search_module.Search, "_promises", lambda *_: True)
    assert fit("--max-kl", "3", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["held_out_status"], report["held_out_trials"]) == ("chosen-by", [1, 2])
    assert any("misses KL ≤ 3 on held-out data" in one for one in report["why_no_more"])


def test_what_held_out_data_refuse_is_searched_again_with_a_margin(
    fit: Fit, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first trial is given a loss of 9 on held-out data; the second is judged by its own figure."""
    found, judged = search_module.qualities, 0

    def missed_once(*arguments: Any) -> dict[str, float]:
        nonlocal judged
        judged += 1
        return {"KL": 9.0} if judged == 1 else found(*arguments)

    monkeypatch.setattr(search_module, "qualities", missed_once)
    monkeypatch.setattr(search_module, "METHODS", (Method(),))
    monkeypatch.setattr(search_module, "ROUNDS", 1)
    assert fit("--max-kl", "3", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    first, second = (one["measured"]["KL"] for one in report["trials"])
    assert (report["chosen"], report["budgets"]) == (2, ["KL ≤ 3"]) and second < first


def test_both_figures_are_said_where_held_out_data_refuse_every_trial(
    fit: Fit, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "qualities", lambda *_: {"KL": 9.0})
    monkeypatch.setattr(search_module, "METHODS", (Method(),))
    monkeypatch.setattr(search_module, "ROUNDS", 1)
    assert fit("--max-kl", "3", "--json") == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert "held-out" in error["what"] and "(9; the search measured " in error["why"]


def test_budgets_that_nothing_keeps(fit: Fit, tmp_path: Path, capsys: Capture) -> None:
    bound = round(1.15 * smallest(fit, capsys))
    assert fit("--max-disk", "20kB", "--json") == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert "no choice keeps disk ≤ 20.0 kB" in error["what"] and "at its smallest" in error["why"]
    assert fit("--max-disk", f"{bound}B", "--max-kl", "1e-5", "--json") == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "E-GATE" and "nearest: disk" in error["why"]
    assert "KL ≤ 1e-05 would have to be" in error["why"] and "disk ≤" in error["why"]
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no budget"),
        (["--max-disk", "60"], "no unit"),
        (["--min-decode", "100"], "this machine has no kernel table yet"),
        (["--max-memory", "pi=3GB"], "unknown device 'pi'"),
        (["--max-disk", "1GB", "--samples", "5000"], "would fit"),
        (["--max-slice-kl", "peoples=0.1"], "unknown slice"),
        (["--max-slice-kl", "associations=0.1"], "no KL"),
        (["--max-slice-kl", "tasks=0.1"], "no row of the text has a group"),
    ],
)
def test_what_is_refused(fit: Fit, tmp_path: Path, capsys: Capture, arguments: list[str], said: str) -> None:
    assert fit(*arguments) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


STEPS = ("compress_model", "export_bundle", "validate_bundle")


def test_a_killed_run_goes_on_and_runs_nothing_twice(
    fit: Fit, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = dict.fromkeys(STEPS, 0)
    stop: list[str] = []

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if name in stop:
                raise KeyboardInterrupt
            calls[name] += 1
            return function(*arguments, **options)

        return call

    for name in STEPS:
        monkeypatch.setattr(trials_module, name, counted(name, getattr(trials_module, name)))
    monkeypatch.setattr(search_module, "ROUNDS", 1)
    budget = ("--max-kl", "0.5")
    for name in STEPS:
        stop[:] = [name]
        assert fit(*budget) == 130
        assert "continue with: edgepress fit" in capsys.readouterr().err and not (tmp_path / "o").exists()
    stop.clear()
    assert fit(*budget) == 0
    assert calls == {"compress_model": 1, "export_bundle": 1, "validate_bundle": 2}


def test_an_interrupt_leaves_the_best_so_far(
    fit: Fit, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = search_module.run_trial
    done: list[object] = []

    def interrupted(*arguments: Any) -> Any:
        if done:
            raise KeyboardInterrupt
        done.append(trial := found(*arguments))
        return trial

    monkeypatch.setattr(search_module, "run_trial", interrupted)
    monkeypatch.setattr(search_module, "METHODS", (Method(), Method("rtn")))  # so that a second trial begins
    assert fit("--max-kl", "0.5") == 130
    assert "holds the best so far" in capsys.readouterr().err
    assert Bundle.open(tmp_path / "o" / "bundle").kind == "decoder"
    report = read_json(tmp_path / "o" / "fit.json")
    assert len(report["trials"]) == 1 and report["held_out_status"] == "not-read"


def test_what_is_made_is_listed_and_delivered_whatever_time_is_left(
    fit: Fit, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, measured = tmp_path / "o", search_module.quality_of

    def stopped(error: BaseException) -> Callable[..., Any]:
        """Nothing is judged on the held-out text."""

        def call(*arguments: Any) -> Any:
            if arguments[2].stem == "held-out":
                raise error
            return measured(*arguments)

        return call

    monkeypatch.setattr(search_module, "METHODS", (Method(), Method("rtn"), Method("corrected")))
    monkeypatch.setattr(search_module, "ROUNDS", 1)
    monkeypatch.setattr(search_module, "quality_of", stopped(OutOfResource("the disk is full")))
    assert fit("--max-kl", "0.5") == 6
    shutil.copytree(tmp_path / ".o.partial", tmp_path / ".p.partial")
    monkeypatch.setattr(trials_module, "compress_model", lambda *_, **__: pytest.fail("it is there"))
    monkeypatch.setattr(search_module, "quality_of", stopped(SigTerm()))
    assert fit("--max-kl", "0.5", "--hours", "1e-6") == 143
    assert "holds the best so far" in capsys.readouterr().err
    report = read_json(out / "fit.json")
    assert [one["method"] for one in report["trials"]] == ["gptq", "rtn", "corrected"]
    assert not report["held_out"] and not report["why_no_more"]
    assert all(one["predicted"]["disk"] > 0 < one["seconds"] for one in report["trials"])

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(search_module.Search, "run", interrupted)
    assert fit("--max-kl", "0.5", "-o", str(tmp_path / "p")) == 130
    again = read_json(tmp_path / "p" / "fit.json")
    assert sorted(one["key"] for one in again["trials"]) == sorted(one["key"] for one in report["trials"])
    assert again["trials"][again["chosen"] - 1]["key"] == report["trials"][report["chosen"] - 1]["key"]
