"""The cache of prepacked weights: whole or not there, whoever starts, dies, damages it or changes the CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from edgepress.cli.entry import run
from edgepress.compress.api import compress_model
from edgepress.errors import InputError, OutOfResource
from edgepress.export.api import export_bundle
from edgepress.runtime.api import TextModel
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.prepack import prepack, prepacked
from edgepress.runtime.session.cpu_features import cpu_identity
from edgepress.storage import read_json, write_json


@pytest.fixture(scope="module")
def folder(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of 4-bit weights; read only."""
    root = tmp_path_factory.mktemp("prepacked")
    compress_model(str(pico_llama), scheme="W4A16", group_size=32, output=root / "checkpoint")
    return export_bundle(root / "checkpoint", output=root / "bundle", validate=False)


@pytest.fixture
def bundle(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """The bundle, and a cache of the test's own in which no model is too small."""
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prepacked, "SMALLEST", 0)
    return Bundle.open(folder, weights_later=True)


really_later = prepack.prepack_later


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Bundle]:
    """The bundles for which an entry was wanted after an answer; none is made unless the test does."""
    wanted: list[Bundle] = []
    monkeypatch.setattr(prepack, "prepack_later", wanted.append)
    return wanted


def tokens(bundle: Bundle, *, cache: bool = True) -> tuple[int, ...]:
    model = TextModel(bundle, threads=1, cache=cache)
    return model.generate("the river ran", max_new_tokens=12, chat=False).token_ids


def left() -> list[str]:
    """Everything in the folder of the cache."""
    return sorted(path.name for path in prepacked.folder().iterdir()) if prepacked.folder().exists() else []


def made(bundle: Bundle) -> prepacked.PrepackedEntry:
    entry = prepack.prepack(bundle)
    assert entry is not None and entry.whole
    return entry


@pytest.mark.chain
def test_an_entry_holds_repacked_weights_and_changes_no_token(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tokens(bundle)
    entry = made(bundle)
    assert entry.bytes > 1.5 * bundle.weight_bytes
    assert b"prepacked" in entry.graph.read_bytes()
    opened: list[Path] = []
    monkeypatch.setattr("edgepress.runtime.engine.load.open_session", _noting(opened))
    assert tokens(bundle) == tokens(bundle, cache=False) == plain
    assert opened == [entry.graph, bundle.graph]


def _noting(opened: list[Path]) -> Callable[..., object]:
    from edgepress.runtime.session.session import open_session

    def note(graph: Path, **options: object) -> object:
        opened.append(graph)
        return open_session(graph, **options)  # type: ignore[arg-type]

    return note


@pytest.mark.chain
def test_a_process_of_its_own_makes_it(bundle: Bundle) -> None:
    assert really_later(bundle)
    until = time.monotonic() + 120
    while prepacked.find(bundle) is None:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert prepack.prepack_apart(bundle)


def test_the_first_answer_asks_once(bundle: Bundle, asked: list[Bundle]) -> None:
    model = TextModel(bundle, threads=1)
    stream = model.stream("the river", max_new_tokens=2, chat=False)
    assert next(stream, None) is not None and asked == []  # not before the answer has ended
    assert stream.result.token_ids and asked == [bundle]
    model.generate("the river", max_new_tokens=2, chat=False)
    assert asked == [bundle]
    made(bundle)
    tokens(bundle)
    assert asked == [bundle]


def test_small_models_are_left_alone(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepacked, "SMALLEST", bundle.weight_bytes + 1)
    assert not prepacked.worth(bundle)
    assert not really_later(bundle)
    assert left() == []


@pytest.mark.chain
def test_many_starters_make_one_entry(bundle: Bundle, tmp_path: Path) -> None:
    maker = [sys.executable, "-m", "edgepress.runtime.prepack.prepack", str(bundle.path)]
    options = ["--prompt", "the river ran", "--max-new-tokens", "12", "--no-chat", "--threads", "1", "--json"]
    user = [sys.executable, "-m", "edgepress", "generate", str(bundle.path), *options]
    commands = [maker, user, maker, maker, user, maker]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    answers = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0] * len(started)
    said = {tuple(json.loads(answer)["token_ids"]) for answer in answers if answer}
    assert said == {tokens(bundle)}
    assert left() == [prepacked.entry_path(bundle).name]
    assert prepacked.find(bundle) is not None


KILLED = """
import os, signal, sys
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.prepack import prepack
def half(graph, target):
    target.write_bytes(b"half a graph")
    os.kill(os.getpid(), signal.SIGKILL)
prepack.save_optimized = half
prepack.prepack(Bundle.open(sys.argv[1]))
"""


@pytest.mark.chain
def test_a_killed_first_run_leaves_nothing_that_is_used(bundle: Bundle) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(bundle.path)], check=False)
    assert done.returncode == -signal.SIGKILL
    name = prepacked.entry_path(bundle).name
    assert f".{name}.partial" in left()
    assert prepacked.find(bundle) is None and prepacked.entries() == []
    plain = tokens(bundle, cache=False)
    made(bundle)
    assert left() == [name]
    assert tokens(bundle) == plain


def test_what_another_key_left_is_swept_too(bundle: Bundle) -> None:
    prepacked.folder().mkdir(parents=True)
    for name in (".0123.partial", ".4567.99.dropped"):
        (prepacked.folder() / name).mkdir()
    made(bundle)
    assert left() == [prepacked.entry_path(bundle).name]


def _truncated(path: Path) -> None:
    data = path / "model.onnx.data"
    os.truncate(data, data.stat().st_size // 2)


def _longer(path: Path) -> None:
    with (path / "model.onnx.data").open("ab") as stream:
        stream.write(b"more")


def _another_file(path: Path) -> None:
    (path / "other.onnx.data").write_bytes(b"other weights")


def _flipped(path: Path) -> None:
    graph = path / "model.onnx"
    status, raw = graph.stat(), bytearray(graph.read_bytes())
    raw[len(raw) // 2] ^= 1
    graph.write_bytes(raw)
    os.utime(graph, ns=(status.st_atime_ns, status.st_mtime_ns))


def _no_data(path: Path) -> None:
    (path / "model.onnx.data").unlink()


def _no_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def _garbage(path: Path) -> None:
    (path / "manifest.json").write_bytes(b'{"schema": [')


def _other_shape(path: Path) -> None:
    write_json(path / "manifest.json", {"schema": prepacked.SCHEMA, "name": "x", "files": [1, 2]})


def _lies(path: Path) -> None:
    """A manifest that is true to a graph which is none."""
    (path / "model.onnx").write_bytes(b"no graph")
    manifest = read_json(path / "manifest.json")
    (path / "manifest.json").unlink()
    write_json(path / "manifest.json", {**manifest, "files": prepacked.describe(path)})


@pytest.mark.chain
@pytest.mark.parametrize(
    "damage",
    [_truncated, _longer, _flipped, _no_data, _another_file, _no_manifest, _garbage, _other_shape, _lies],
)
def test_a_damaged_entry_is_dropped_and_made_again(
    bundle: Bundle, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, entry = tokens(bundle, cache=False), made(bundle)
    damage(entry.path)
    opened: list[Path] = []
    with monkeypatch.context() as noted, pytest.warns(prepacked.DamagedCopy, match=entry.path.name):
        noted.setattr("edgepress.runtime.engine.load.open_session", _noting(opened))
        assert tokens(bundle) == plain
    assert opened == [*([entry.graph] if damage is _lies else []), bundle.graph]  # parsed only if it is whole
    assert left() == []
    made(bundle)
    assert tokens(bundle) == plain
    assert left() == [entry.path.name]


def test_what_others_could_have_written_is_not_used(bundle: Bundle) -> None:
    entry = made(bundle)
    entry.path.chmod(0o777)
    assert prepacked.find(bundle) is None
    entry.path.chmod(0o700)
    assert prepacked.find(bundle) is not None


def test_another_cpu_runtime_configuration_or_model_is_another_entry(
    bundle: Bundle, decoder_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(bundle)
    places = {prepacked.entry_path(bundle), prepacked.entry_path(Bundle.open(decoder_bundle))}
    for target, value in (
        ("edgepress.runtime.prepack.prepacked.cpu_identity", lambda: "another"),
        ("onnxruntime.__version__", "1.99.0"),
        ("edgepress.runtime.prepack.prepacked.graph_form", lambda: {"session.x": "1"}),
    ):
        with monkeypatch.context() as changed:
            changed.setattr(target, value)
            places.add(prepacked.entry_path(bundle))
            assert prepacked.find(bundle) is None
    assert len(places) == 5
    assert prepacked.find(bundle) is not None


@pytest.mark.chain
def test_cpu_identity_sees_the_cpu_and_nothing_that_passes(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    text = "processor : 0\nmodel name : Fast 1\ncpu MHz : 2100.5\nflags : avx2 fma\n"
    seen = []
    for change in (("", ""), ("2100.5", "3999.9"), ("Fast 1", "Fast 2"), ("fma", "fma avx512_vnni")):
        cpuinfo.write_text(text.replace(*change) if change[0] else text)
        seen.append(cpu_identity(cpuinfo))
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3
    assert cpu_identity(tmp_path / "none") == cpu_identity(tmp_path / "neither")


def test_the_least_recently_used_goes_first(bundle: Bundle, decoder_bundle: Path) -> None:
    first, second = made(bundle), made(Bundle.open(decoder_bundle))
    for entry, used in ((first, 2000), (second, 1000)):
        os.utime(entry.path / "manifest.json", (used, used))
    assert [entry.path for entry in prepacked.entries()] == [second.path, first.path]
    assert [entry.path for entry in prepack.make_room(first.bytes)] == [second.path]
    os.utime(first.path / "manifest.json", (1, 1))
    used = prepacked.find(bundle)
    assert used is not None and prepacked.entries()[0].last_used > 1
    assert [entry.path for entry in prepack.make_room(0)] == [first.path]
    assert left() == []


def test_the_size_has_a_limit(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE_GB", "0.000001")
    with pytest.raises(InputError, match="EDGEPRESS_CACHE_GB"):
        prepack.prepack(bundle)
    assert not really_later(bundle)
    for wrong in ("much", "-1", "inf", "nan"):
        monkeypatch.setenv("EDGEPRESS_CACHE_GB", wrong)
        with pytest.raises(InputError, match="must be a number"):
            prepack.limit_bytes()


def test_no_room_on_the_disk_or_in_memory(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
        with pytest.raises(OutOfResource, match="disk"):
            prepack.prepack(bundle)
        assert not really_later(bundle)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=bundle.weight_bytes))
    assert not really_later(bundle)


def test_a_failure_is_noted_and_not_tried_again(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    prepacked.folder().mkdir(parents=True)
    prepacked.entry_path(bundle).with_suffix(".failed").write_text("pico: no kernel\n", encoding="utf-8")
    assert not really_later(bundle)
    assert prepack.failures() == ["pico: no kernel"]
    assert run(["doctor", "--json"]) in (0, 4)
    findings = {found["check"]: found for found in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["prepacked"]["status"] == "warn" and "no kernel" in findings["prepacked"]["detail"]
    assert prepack.clear() == [] and prepack.failures() == []


def test_the_verb(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*arguments: str) -> dict[str, object]:
        assert run(["cache", *arguments, "--json"]) == 0
        found: dict[str, object] = json.loads(capsys.readouterr().out)
        return found

    assert told("list")["entries"] == []
    entry = told("make", str(bundle.path))
    assert told("list", "--check")["bytes"] == entry["bytes"]
    assert run(["cache", "list"]) == 0
    out = capsys.readouterr().out
    assert "llama" in out and bundle.scheme in out
    data = Path(str(entry["path"])) / "model.onnx.data"
    status, raw = data.stat(), bytearray(data.read_bytes())
    raw[-1] ^= 1
    data.write_bytes(raw)
    os.utime(data, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run(["cache", "list", "--check"]) == 1
    assert "does not match its SHA-256" in capsys.readouterr().err
    assert told("clear") == {"entries": 1, "bytes": entry["bytes"]}
    assert left() == []


@pytest.mark.chain
def test_no_cache_neither_uses_nor_makes_one(
    bundle: Bundle, asked: list[Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    monkeypatch.setattr("edgepress.runtime.engine.load.open_session", _noting(opened))
    arguments = ["generate", str(bundle.path), "-p", "the river", "--max-new-tokens", "2", "-q"]
    assert run([*arguments, "--no-cache"]) == 0
    assert (opened, asked) == ([bundle.graph], [])
    made(bundle)
    assert run([*arguments, "--no-cache"]) == run(arguments) == 0
    assert opened[1:] == [bundle.graph, prepacked.entry_path(bundle) / "model.onnx"]
