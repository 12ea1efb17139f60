"""Workers over their pipe: real work, typed errors that cross it, and every way to die."""

import json
import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from edgepress.benchmarks.speed.protocol import Arm, typed_error
from edgepress.benchmarks.speed.work.timed_work import Embedding, TimedGeneration, from_json, to_json
from edgepress.benchmarks.speed.worker import drop_from_cache, peak_rss
from edgepress.compress.api import compress_model
from edgepress.errors import (
    BundleError,
    EdgepressError,
    InputError,
    OutOfResource,
    RefusedByPolicy,
    UnknownName,
)
from edgepress.export.api import export_bundle
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine.decoder import PREFILL_CHUNK
from edgepress.runtime.kernels.library import library

pytestmark = pytest.mark.chain


WORK = TimedGeneration(prompt_tokens=9, new_tokens=5)


@pytest.fixture(scope="module")
def bundle(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(pico_llama, output=tmp_path_factory.mktemp("worker") / "bundle", validate=False)


@pytest.fixture
def arm(bundle: Path) -> Arm:
    return Arm(bundle, WORK, threads=1, provider="cpu")


def test_a_whole_conversation(arm: Arm) -> None:
    with arm as worker:
        loaded = worker.load(cold=True)
        assert loaded["seconds"] > 0
        assert loaded["providers"][0] == "CPUExecutionProvider"
        warmed = worker.ask("warm_up", iterations=4, seconds=0)
        assert warmed["iterations"] == 4
        block = worker.ask("block", min_ms=0)
        assert not block["suspended"]
        [run] = block["runs"]
        assert {name: len(values) for name, values in run.items()} == {"prefill": 1, "first": 1, "tokens": 4}
        assert 0 < run["prefill"][0] <= run["first"][0]
        memory = worker.ask("memory")
        assert memory["rss_peak_bytes"] > 10 << 20


def test_a_block_repeats_its_work_until_it_is_long_enough(arm: Arm) -> None:
    with arm as worker:
        worker.load(cold=False)
        assert len(worker.ask("block", min_ms=0)["runs"]) == 1
        assert len(worker.ask("block", min_ms=500)["runs"]) > 1


def test_operators_of_a_real_trace(arm: Arm) -> None:
    with arm as worker:
        found = worker.operators()
    names = {row["op"] for row in found["time_by_op"]}
    attention = "GroupQueryAttention" if library() is None else "CachedAttention"
    assert attention in names
    assert sum(row["share"] for row in found["time_by_op"]) == pytest.approx(1)
    assert [place["provider"] for place in found["placement"]] == ["CPUExecutionProvider"]
    # Three layers, one attention node each, whatever the number of runs.
    assert next(row["nodes"] for row in found["time_by_op"] if row["op"] == attention) == 3


def test_work_before_a_load(arm: Arm) -> None:
    with arm as worker, pytest.raises(InputError, match="load one first"):
        worker.ask("block", min_ms=1)


def test_an_unknown_request(arm: Arm) -> None:
    with arm as worker, pytest.raises(InputError, match="'dance'"):
        worker.ask("dance")


def test_a_broken_bundle_keeps_its_error(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with Arm(tmp_path / "bundle", WORK, threads=1, provider="cpu") as worker, pytest.raises(BundleError):
        worker.load(cold=False)


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (signal.SIGKILL, OutOfResource, "memory runs out"),
        (signal.SIGSEGV, BundleError, "SIGSEGV"),
        (signal.SIGABRT, BundleError, "SIGABRT"),
    ],
)
def test_a_killed_worker(arm: Arm, number: signal.Signals, kind: type[EdgepressError], words: str) -> None:
    with arm as worker:
        worker.load(cold=False)
        os.kill(worker.pid, number)
        with pytest.raises(kind) as caught:
            worker.ask("block", min_ms=1)
    assert words in caught.value.why
    assert "block" in caught.value.what


def test_a_worker_that_raises_shows_its_last_words(arm: Arm) -> None:
    with arm as worker, pytest.raises(EdgepressError, match="died during 'warm_up'") as caught:
        worker.load(cold=False)
        worker.ask("warm_up", iterations="three", seconds=0)
    assert "TypeError" in caught.value.why


def test_leaving_by_an_exception_ends_the_worker(arm: Arm) -> None:
    with pytest.raises(KeyboardInterrupt), arm as worker:
        pid = worker.pid
        raise KeyboardInterrupt
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_arm_must_be_entered(arm: Arm) -> None:
    with pytest.raises(EdgepressError, match="not been started"):
        arm.ask("memory")


def test_prints_do_not_reach_the_protocol() -> None:
    code = (
        "import os; from edgepress.benchmarks.speed.worker import private_stdout;"
        "channel = private_stdout();"
        "print('from python', flush=True); os.system('echo from a child'); os.write(1, b'from C');"
        "print('answer', file=channel, flush=True)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout == "answer\n"
    assert all(word in child.stderr for word in ("from python", "from a child", "from C"))


@pytest.mark.parametrize(
    "error",
    [
        InputError("a", why="b", fix="c"),
        RefusedByPolicy("a"),
        UnknownName("target", "x", ["y"]),
        EdgepressError("internal"),
    ],
)
def test_errors_cross_the_pipe(error: EdgepressError) -> None:
    there = typed_error(json.loads(json.dumps(error.as_dict())))
    assert there.exit_code == error.exit_code
    assert str(there) == str(error)
    assert isinstance(error, type(there))


@pytest.mark.parametrize("workload", [WORK, Embedding(length=7, batch=3, singles=2, seed=5)])
def test_workloads_cross_the_pipe(workload: TimedGeneration | Embedding) -> None:
    assert from_json(json.loads(json.dumps(to_json(workload)))) == workload


def test_peak_counts_what_was_freed() -> None:
    code = (
        "from edgepress.benchmarks.speed.worker import peak_rss; before = peak_rss()[0];"
        "block = bytearray(96 << 20); del block; print(peak_rss()[0] - before)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(child.stdout) > 90 << 20


def test_peak_does_not_inherit_the_parents() -> None:
    block = b"x" * (256 << 20)
    code = "from edgepress.benchmarks.speed.worker import peak_rss; print(peak_rss()[0])"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(child.stdout) < len(block)


def test_peak_from_a_status_file(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/status").write_text("Name:\tx\nVmPeak:\t  999 kB\nVmHWM:\t  123 kB\n")
    assert peak_rss(tmp_path) == (123 << 10, "VmHWM")


def test_pages_in_use_are_not_called_cold(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(1 << 20))
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as view:
        assert sum(view[::4096]) > 0
        assert drop_from_cache([path]) is False


def test_a_system_without_the_calls_claims_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"x")
    monkeypatch.delattr(os, "posix_fadvise")
    assert drop_from_cache([path]) is False


@pytest.mark.parametrize("operators", ["edgepress", "standard"])
def test_a_prompt_in_chunks_is_accounted_for(operators: str, pico_llama: Path, tmp_path: Path) -> None:
    if operators == "edgepress" and library() is None:
        pytest.skip("the library of operators was not built here")
    compress_model(str(pico_llama), scheme="W4A16", group_size=32, output=tmp_path / "w4")
    bundle = export_bundle(tmp_path / "w4", output=tmp_path / "b", operators=operators, validate=False)
    opened = Bundle.open(bundle)
    prompt = PREFILL_CHUNK + 13
    work = TimedGeneration(prompt_tokens=prompt, new_tokens=3)
    with Arm(opened.path, work, threads=1, provider="cpu") as worker:
        found = worker.operators(per_op=True)
    prefill, decode = found["accounts"]["prefill"], found["accounts"]["decode"]
    ops = {row["op"] for row in prefill["by_op"]}
    own = {"QuantizedProduct", "QuantizedRows", "CachedAttention"}
    assert (own if operators == "edgepress" else {"MatMulNBits", "GroupQueryAttention"}) <= ops
    product = "QuantizedProduct" if operators == "edgepress" else "MatMulNBits"
    read = [next(row for row in part["by_op"] if row["op"] == product) for part in (prefill, decode)]
    assert read[0]["weight_bytes"] == 2 * read[1]["weight_bytes"] > 0  # two chunks
    # What each chunk reads, and what it appends.
    position = opened.decoder.kv_bytes_per_token
    assert prefill["kv_bytes"] == position * (PREFILL_CHUNK + prompt + prompt)
    assert decode["kv_bytes"] == position * (2 * prompt + 5) // 2
    assert {row["op"] for row in found["time_by_op"]} >= ops
