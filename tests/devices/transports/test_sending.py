"""A kit: made, carried, run without a network, and its record imported; damage and strangers are refused."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.records import record
from edgepress.benchmarks.speed.elsewhere import import_lines
from edgepress.benchmarks.speed.protocol import Protocol
from edgepress.cli.entry import run
from edgepress.devices.transports import sending as kit_module
from edgepress.devices.transports.fitness import NAMED
from edgepress.devices.transports.sending import make_kit
from edgepress.errors import InputError, MissingDependency, OutputExists, RefusedByPolicy
from edgepress.export.api import export_bundle
from edgepress.terminal.progress import Silent

from ...loopback import bare_python, installed_wheels, stubs

pytestmark = pytest.mark.chain
HERE = {place: name for name, place in NAMED.items()}.get((platform.system(), platform.machine()), "")
PLAN: dict[str, Any] = {
    "protocol": asdict(Protocol(blocks=1, block_ms=1, warmup_seconds=0)),
    "options": {"prompt_tokens": 12, "new_tokens": 4, "threads": 1, "energy": False},
    "settle_s": 0.0,
    "command": "edgepress devices kit",
}


@pytest.fixture(scope="module")
def bundle(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("kit") / "pico"
    return export_bundle(pico_llama, output=output, validate=False, operators="standard")


@pytest.fixture(scope="module")
def kit(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One that was run here, as on a machine without a network and without packages."""
    if not HERE:
        pytest.skip("there is no kit for this platform")
    folder = tmp_path_factory.mktemp("carried")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPRESS_CACHE", str(folder / "cache"))
        patch.setenv("EDGEPRESS_WHEELS", str(installed_wheels(folder / "wheels")))
        made = folder / "kit"
        assert make_kit(bundle, made, HERE, PLAN, Silent()) == ["3.11", "3.12", "3.13", "3.14"]
        done = start(made, folder)
        assert done.returncode == 0, done.stderr
        assert "edgepress devices import record.jsonl" in done.stdout
        yield made


def start(kit: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "python").mkdir(exist_ok=True)
    python = folder / "python/python3"
    python.unlink(missing_ok=True)
    python.symlink_to(bare_python())
    environment = {"PATH": f"{folder / 'python'}:/usr/bin:/bin", "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    command = [str(kit / "start.sh")]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", check=False)


def test_it_writes_one_record_that_is_imported_once(
    kit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for expected in (1, 0):
        assert run(["devices", "import", str(kit / "record.jsonl"), "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert len(document["added"]) == expected
    (line,) = record.read([Path(document["record"])])
    assert line.metrics["decode_tps"].n == 1 and "settled" in line.state
    assert line.subject.manifest_sha256 == json.loads((kit / "kit.json").read_text())["manifest_sha256"]


def test_a_damaged_kit_measures_nothing(kit: Path, tmp_path: Path) -> None:
    copy, packages = tmp_path / "kit", next(kit.glob("packages-*")).name
    ignored = shutil.ignore_patterns("bundle", "packages-*", "record.jsonl", "cache")
    shutil.copytree(kit, copy, copy_function=os.link, ignore=ignored)
    wheel = next((copy / "wheels").glob("annotated*"))
    wheel.unlink()  # the kit has a link to it
    wheel.write_bytes(b"other")
    done = start(copy, tmp_path)
    assert done.returncode == 4 and "annotated" in done.stderr and "is damaged" in done.stderr
    (copy / packages).symlink_to(kit / packages)
    shutil.copytree(kit / "bundle", copy / "bundle")
    (copy / "bundle/model.onnx").write_bytes(b"other")
    done = start(copy, tmp_path)
    assert done.returncode == 2 and "E-BUNDLE" in done.stderr and not (copy / "record.jsonl").exists()


def test_a_kit_for_another_machine_says_so(kit: Path, tmp_path: Path) -> None:
    copy = tmp_path / "kit"
    copy.mkdir()
    for name in ("start.sh", "kit.py"):
        shutil.copy(kit / name, copy)
    plan = json.loads((kit / "kit.json").read_text())
    (copy / "kit.json").write_text(
        json.dumps({**plan, "place": ["Darwin", "arm64"], "platform": "macos-arm64"})
    )
    done = start(copy, tmp_path)
    assert done.returncode == 4 and "this kit is for macos-arm64" in done.stderr
    (copy / "kit.json").write_text(json.dumps({**plan, "wheels": {"3.10": []}}))
    done = start(copy, tmp_path)
    assert done.returncode == 4 and "for Python 3.10" in done.stderr


def test_every_platform_has_a_start_file(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGEPRESS_WHEELS", str(stubs(tmp_path / "wheels")))
    started = {}
    for name in NAMED:
        make_kit(bundle, tmp_path / name, name, PLAN, Silent())
        (started[name],) = (path.name for path in (tmp_path / name).glob("start.*"))
    assert started == {**dict.fromkeys(NAMED, "start.sh"), "windows-amd64": "start.cmd"}
    assert (tmp_path / "windows-amd64/start.cmd").read_bytes().count(b"\r\n") == 5
    with pytest.raises(OutputExists, match="already there"):
        make_kit(bundle, tmp_path / "macos-arm64", "macos-arm64", PLAN, Silent())


def test_without_wheels_there_is_no_kit(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EDGEPRESS_WHEELS", raising=False)
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(kit_module, "VERSIONS", ((3, 13),))
    with pytest.raises(MissingDependency, match="no wheels"):
        make_kit(bundle, tmp_path / "kit", "linux-aarch64", PLAN, Silent())
    assert not (tmp_path / "kit").exists()
    assert run(["devices", "kit", str(bundle), "-o", str(tmp_path / "kit"), "--platform", "pi"]) == 2
    assert "unknown platform 'pi'" in capsys.readouterr().err


def test_a_strangers_record_is_refused_whole(kit: Path, tmp_path: Path) -> None:
    good = (kit / "record.jsonl").read_text()
    line = json.loads(good)
    run_file = tmp_path / "run.jsonl"
    for text in (
        good + "{}\n",
        good + json.dumps({**line, "device": {"cpu": "<script>"}}) + "\n",
        good + json.dumps({**line, "more": 1}) + "\n",
        good + '{"a": ' * 50_000,
    ):
        (tmp_path / "record.jsonl").write_text(text)
        with pytest.raises(RefusedByPolicy, match=r"record\.jsonl, line 2, is no measurement") as refused:
            import_lines(tmp_path / "record.jsonl", run_file)
        assert "nothing was added" in refused.value.fix
        assert not run_file.exists()
    (tmp_path / "record.jsonl").write_text("\n")
    with pytest.raises(InputError, match="no measurements"):
        import_lines(tmp_path / "record.jsonl", run_file)


def test_the_default_run_file_is_named_after_what_was_measured_and_nowhere_else(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = json.loads((kit / "record.jsonl").read_text())
    line["subject"]["name"] = "../../.ssh/x"
    (tmp_path / "record.jsonl").write_text(json.dumps(line))
    _, file = import_lines(tmp_path / "record.jsonl", None)
    assert file == Path("runs/-..-.ssh-x.jsonl")
