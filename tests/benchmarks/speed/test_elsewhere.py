"""``profile --on`` over a real sshd on the loopback: the line, faults at every stage, hostile far ends."""

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from edgepress.benchmarks.records import record
from edgepress.benchmarks.records.record import Measurement
from edgepress.benchmarks.speed import elsewhere
from edgepress.benchmarks.speed.elsewhere import Request, measure_kernels_on, profile_on
from edgepress.benchmarks.speed.protocol import Protocol
from edgepress.cli.entry import run
from edgepress.devices.kernel_table.table import newest_table
from edgepress.devices.own_devices import OwnDevice, keep
from edgepress.devices.transports.answers import DeviceError, Facts
from edgepress.errors import EdgepressError, OutOfResource, OutputBusy, RefusedByPolicy
from edgepress.export.api import export_bundle
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.terminal.progress import Silent

from ...devices.transports.test_answers import FACTS
from ...loopback import Loopback, client, installed_wheels, require_sshd

pytestmark = pytest.mark.chain
OPTIONS: dict[str, Any] = {
    "prompt_tokens": 12,
    "new_tokens": 4,
    "batch": 1,
    "threads": 1,
    "provider": "cpu",
    "per_op": False,
    "energy": False,
}
SHORT = Protocol(blocks=3, block_ms=1, warmup_seconds=0)


@pytest.fixture(scope="module")
def bundle(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(pico_llama, output=tmp_path_factory.mktemp("elsewhere") / "pico", validate=False)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    """One device for all tests of the file, so that the packages are sent once."""
    require_sshd()
    folder = tmp_path_factory.mktemp("machine")
    (folder / "device").mkdir()
    device = Loopback(folder / "device")
    device.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{client(folder / 'bin', [device])}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        patch.setenv("EDGEPRESS_CACHE", str(folder / "cache"))
        patch.setenv("EDGEPRESS_WHEELS", str(installed_wheels(folder / "wheels")))
        yield device
    device.stop()


PI = OwnDevice(name="pi", ssh="loopback", facts=Facts.model_validate(FACTS))


def asked(bundle: Path, **changes: Any) -> Request:
    fields: dict[str, Any] = {"protocol": SHORT, "options": OPTIONS, "command": "edgepress", "settle_s": 0.0}
    return Request((bundle,), **{**fields, **changes})


class Seen(Silent):
    """Progress that remembers its tasks, and calls ``then`` at the n-th advance of the one that begins so."""

    def __init__(self, label: str = "", count: int = 1, then: Callable[[], None] = lambda: None) -> None:
        self.tasks: list[str] = []
        self._label, self._left, self._then = label, count, then

    @contextmanager
    def task(self, label: str, total: float) -> Iterator[Any]:
        self.tasks.append(label)
        yield self

    def advance(self, amount: float = 1, detail: str = "") -> None:
        if self._label and amount and self._label in self.tasks[-1]:
            self._left -= 1
            if self._left == 0:
                self._then()


def left_running(device: Loopback) -> list[psutil.Process]:
    """Processes of this device's environment, whoever their parent is now."""
    found = []
    for process in psutil.process_iter(["environ"]):
        if str(device.home) in ((process.info["environ"] or {}).get("PYTHONPATH") or ""):
            found.append(process)
    return [*found, *device.sessions()]


def command_of(process: psutil.Process) -> list[str]:
    """Empty where it has ended meanwhile."""
    with suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []


def eventually(true: Callable[[], bool]) -> bool:
    pause = threading.Event()
    return any(true() or pause.wait(0.1) for _ in range(300))


@pytest.mark.slow
def test_cut_at_every_stage_the_same_call_goes_on(machine: Loopback, bundle: Path) -> None:
    stages = [("packages", 2), ("sending", 3), ("waiting", 1), ("measuring", 2)]
    for label, count in stages:
        seen = Seen(label, count, machine.cut)
        with pytest.raises(DeviceError, match="was lost"):
            profile_on(PI, asked(bundle), seen)
        assert label in seen.tasks[-1]
        assert eventually(lambda: not left_running(machine)), label
    seen = Seen()
    (line,) = profile_on(PI, asked(bundle), seen)
    assert not any("packages" in task for task in seen.tasks), "what is there is not sent"
    assert line.state["earlier_rounds"] >= 1
    assert any("cut short" in reason for reason in line.validity.reasons)
    assert line.metrics["decode_tps"].n == 3
    (again,) = profile_on(PI, asked(bundle), Seen())
    assert "earlier_rounds" not in again.state, "a whole run begins anew"
    assert eventually(lambda: not left_running(machine))
    assert list((machine.home / "cache/device/work").iterdir()) == []
    assert list((machine.home / "tmp").glob("edgepress-trace*")) == []


@pytest.mark.usefixtures("one_short_block")
def test_the_verb_records_a_line_with_the_device(
    machine: Loopback,
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["devices", "add", "pi", "--ssh", "loopback", "--no-measure", "--json"]) == 0
    allowed = os.sched_getaffinity(0)
    keep(PI.model_copy(update={"name": "gone", "ssh": "127.0.0.1:nowhere"}))
    capsys.readouterr()
    words = "--quick --blocks 1 --prompt-tokens 12 --max-new-tokens 4 --threads 1 --no-energy --json"
    command = ["profile", str(bundle), "--on", "here,pi,gone", "--record", str(tmp_path / "run.jsonl")]
    assert run([*command, *words.split()]) == 4
    document = json.loads(capsys.readouterr().out)
    assert set(document["lines"]) == {"here", "pi"} and set(document["errors"]) == {"gone"}
    lines = {line.device.get("name", "here"): line for line in record.read([tmp_path / "run.jsonl"])}
    assert set(lines) == {"here", "pi"}
    assert lines["pi"].subject == lines["here"].subject
    assert lines["pi"].workload == lines["here"].workload
    assert lines["pi"].protocol.keys() == lines["here"].protocol.keys()
    assert lines["pi"].command == shlex.join(["edgepress", *command, *words.split()])
    for line in lines.values():
        assert {"settled", "trace", "pinned_cpus"} <= line.state.keys()
        assert line.validity.status == "suspect"
    assert os.sched_getaffinity(0) == allowed, "the pinning here is undone"


def test_a_device_that_is_added_has_its_kernels_measured(
    machine: Loopback, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(elsewhere, "measure_kernels_on", partial(measure_kernels_on, limit_s=8))
    assert run(["devices", "add", "pi", "--ssh", "loopback"]) == 0
    shown, table = capsys.readouterr().out, newest_table("pi")
    assert table is not None and table.bandwidth and not table.complete
    assert shown.startswith(f"pi: {table.key.processor}, ") and table.key.runtime
    assert "go on with it: edgepress devices measure pi" in shown
    assert eventually(lambda: not left_running(machine))


def test_a_target_is_refused_and_an_unknown_name_told(
    machine: Loopback, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["profile", str(bundle), "--on", "raspberry-pi-5"]) == 2
    assert "devices add" in capsys.readouterr().err
    assert run(["profile", str(bundle), "--on", "here,nobody"]) == 2
    assert "unknown device 'nobody'" in capsys.readouterr().err


def test_a_kill_there_is_typed_and_leaves_nothing(machine: Loopback, bundle: Path) -> None:
    def kill() -> None:
        for process in machine.sessions():
            if "edgepress.benchmarks.speed.far_end" in command_of(process):
                process.kill()

    with pytest.raises(DeviceError, match="was lost"):
        profile_on(PI, asked(bundle), Seen("measuring", 1, kill))
    assert eventually(lambda: not left_running(machine))


def test_a_kill_here_leaves_nothing_there(machine: Loopback, bundle: Path) -> None:
    keep(PI)
    command = ["profile", str(bundle), "--on", "pi", "--blocks", "500", "--no-energy", "--threads", "1"]
    near = subprocess.Popen(
        [sys.executable, "-m", "edgepress", *command, "--quick", "--record", os.devnull],
        stderr=subprocess.DEVNULL,
    )
    working = ("edgepress.benchmarks.speed.worker", "edgepress.devices.bandwidth")
    assert eventually(
        lambda: any(name in " ".join(command_of(one)) for one in left_running(machine) for name in working)
    )
    near.send_signal(signal.SIGKILL)
    near.wait()
    assert eventually(lambda: not left_running(machine))


def test_a_second_user_is_told_to_wait(machine: Loopback, bundle: Path) -> None:
    with (machine.home / "tmp/edgepress-measuring").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OutputBusy, match="pi: another measurement is running there"):
            profile_on(PI, asked(bundle), Seen())


def test_errors_there_are_typed(machine: Loopback, bundle: Path) -> None:
    with pytest.raises(EdgepressError, match=r"pi has no GPU .*\n.*nothing was sent"):
        profile_on(PI, asked(bundle, options={**OPTIONS, "provider": "cuda"}), Seen())


@pytest.fixture
def good(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A line as a device sends it."""
    from edgepress.benchmarks.speed.profile import profile_bundle

    line = profile_bundle(bundle, protocol=Protocol(blocks=1, block_ms=1, warmup_seconds=0), **OPTIONS)
    return json.loads(json.dumps(line.model_dump(mode="json", by_alias=True)))


def checked(line: dict[str, Any], bundle: Path) -> Measurement:
    return elsewhere._checked(line, [Bundle.open(bundle)], PI, asked(bundle))


def test_what_a_device_says_counts_only_where_it_is_what_was_asked_for(
    good: dict[str, Any], bundle: Path
) -> None:
    line = checked({**good, "command": "rm", "created_utc": "1970", "tool": {"name": "x"}}, bundle)
    assert (line.command, line.device["name"], line.tool["name"]) == ("edgepress", "pi", "edgepress")
    assert line.id != good["id"] and line.created_utc.startswith("2")
    metric = good["metrics"]["decode_tps"]
    for name, wrong in {
        "another subject": {**good, "subject": {**good["subject"], "manifest_sha256": "0" * 64}},
        "a better name": {**good, "subject": {**good["subject"], "scheme": "W1"}},
        "another workload": {**good, "workload": {**good["workload"], "prompt_tokens": 1}},
        "an infinite number": {**good, "metrics": {"decode_tps": {**metric, "value": float("inf")}}},
        "no machine": {**good, "device": {"cpu": "<script>"}},
        "no state": {**good, "state": {}},
        "another field": {**good, "run": "me"},
        "no metrics": {key: value for key, value in good.items() if key != "metrics"},
        "another baseline": {**good, "baseline": {**good["subject"], "name": "x"}},
    }.items():
        with pytest.raises(RefusedByPolicy, match="no answer of edgepress"):
            checked(wrong, bundle)
            pytest.fail(name)


def test_a_flood_of_rounds_is_stopped(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgepress.devices.transports.sending import Prepared

    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path))
    kept = elsewhere.Kept(PI, Prepared(PI.facts, "e", ("b",)), [Bundle.open(bundle)], asked(bundle))
    kept._most = 2
    kept.add([{"blocks": []}])
    kept.add([{"blocks": []}])
    with pytest.raises(EdgepressError, match="more rounds"):
        kept.add([{"blocks": []}])
    assert kept.rounds() == [[{"blocks": []}]] * 2


def test_a_round_that_a_kill_tore_is_measured_again(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgepress.devices.transports.sending import Prepared

    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path))
    kept = elsewhere.Kept(PI, Prepared(PI.facts, "e", ("b",)), [Bundle.open(bundle)], asked(bundle))
    for number in range(3):
        kept.add([{"blocks": [number]}])
        if number == 1:
            kept._path.write_bytes(kept._path.read_bytes()[:-4])
    assert kept.rounds() == [[{"blocks": [number]}] for number in (0, 2)]


def test_a_full_disk_there(loopback: Loopback, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    loopback.stop()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limit[1]))  # what sshd's sessions inherit
    try:
        loopback.start()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    monkeypatch.setattr(elsewhere, "prepare", _only_the_bundle)
    with pytest.raises(OutOfResource, match="pi could not do") as caught:
        profile_on(PI, asked(bundle), Seen())
    assert "free some memory or disk on pi" in caught.value.fix
    assert eventually(lambda: not loopback.sessions())


def _only_the_bundle(link: Any, bundles: list[Bundle], progress: Any, provider: str) -> Any:
    from edgepress.devices.transports.sending import send_bundle

    return send_bundle(link, bundles[0], progress)


SLOW = """
import socket, sys, threading, time
far = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def down():
    while data := far.recv(65536):
        sys.stdout.buffer.write(data); sys.stdout.buffer.flush()
threading.Thread(target=down, daemon=True).start()
while data := sys.stdin.buffer.read1(8192):
    far.sendall(data); time.sleep(0.02)
"""


def test_a_slow_link_that_breaks_is_gone_on_with_where_it_broke(
    loopback: Loopback, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """400 kB a second, through a jump host of the user's configuration."""
    script, config = tmp_path / "slow.py", tmp_path / "bin/config"
    script.write_text(SLOW)
    config.write_text(f"{config.read_text()}  ProxyCommand {sys.executable} {script} {loopback.port}\n")
    monkeypatch.setattr(elsewhere, "prepare", _only_the_bundle)
    model = (bundle / "model.onnx").stat().st_size

    def held() -> int:
        return sum(part.stat().st_size for part in (loopback.home / "cache/device/objects").glob("*.part"))

    def cut() -> None:
        assert eventually(lambda: held() > 100_000)
        loopback.cut()

    with pytest.raises(DeviceError, match="was lost"):
        profile_on(PI, asked(bundle), Seen("sending", 1, threading.Thread(target=cut).start))
    assert eventually(lambda: not loopback.sessions())
    assert 100_000 < held() < model
    there = held()
    sent: list[float] = []

    class Counted(Seen):
        def advance(self, amount: float = 1, detail: str = "") -> None:
            sent.append(amount)

    with pytest.raises(AttributeError):  # there is no environment to measure with
        profile_on(PI, asked(bundle), Counted())
    total = sum(path.stat().st_size for path in bundle.iterdir())
    assert sum(sent) <= total - there
    assert (next((loopback.home / "cache/device/bundles").glob("*/model.onnx"))).read_bytes() == (
        bundle / "model.onnx"
    ).read_bytes()


def test_a_wrong_architecture_is_sent_nothing(loopback: Loopback, bundle: Path) -> None:
    python = loopback.folder / "python/python3"
    real = python.resolve()
    python.unlink()
    python.write_text(f'#!/bin/sh\nexec setarch i686 {real} "$@"\n')
    python.chmod(0o755)
    with pytest.raises(DeviceError, match="cannot run on pi") as caught:
        profile_on(PI, asked(bundle), Seen())
    assert "i686" in caught.value.why
    assert not (loopback.home / "cache/device").exists()


def test_a_gpu_there_is_asked_for_with_its_own_runtime(
    machine: Loopback, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(PI)
    given = Path(os.environ["EDGEPRESS_WHEELS"])
    (runtime,) = given.glob("onnxruntime-*.whl")
    for_gpus = given / runtime.name.replace("onnxruntime-", "onnxruntime_gpu-", 1)
    for_gpus.unlink(missing_ok=True)
    for_gpus.hardlink_to(runtime)  # of the processor alone: the device says that it lacks the provider
    assert run(["profile", str(bundle), "--on", "pi", "--provider", "tensorrt"]) == 4
    assert "pi has no GPU of NVIDIA's" in capsys.readouterr().err
    driver = machine.folder / "python" / "nvidia-smi"
    driver.write_text("#!/bin/sh\nexit 9\n", encoding="ascii")
    driver.chmod(0o755)
    for words in (["devices", "measure", "pi"], ["profile", str(bundle), "--on", "pi"]):
        assert run([*words, "--provider", "cuda", "--json"]) == 4
        error = json.loads(capsys.readouterr().out)["error"]
        assert "'cuda' is not available" in error["what"] and "leave --provider out" in error["fix"]
    assert run(["devices", "measure", "pi", "--provider", "tensorrt"]) == 2
    assert "no kernel table of tensorrt" in capsys.readouterr().err


def test_a_table_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, machine: Loopback) -> None:
    monkeypatch.setattr(elsewhere, "_listen", lambda link, kept, progress: [{"schema": "x", "run": "rm"}])
    with pytest.raises(RefusedByPolicy, match="no answer of edgepress"):
        measure_kernels_on(PI, Seen(), limit_s=1)
