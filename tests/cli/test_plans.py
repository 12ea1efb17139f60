"""``--dry-run`` of export, validate and profile: what they need, and what does not fit is refused."""

import json
import re
from pathlib import Path

import pytest
from edgepress.cli.entry import run
from edgepress.compress.model.weights import WeightSource
from edgepress.export.api import export_bundle

Capture = pytest.CaptureFixture[str]


def verbs(model: Path, bundle: Path, text: Path) -> dict[str, list[str]]:
    return {
        "export": ["export", str(model), "-o", "out"],
        "validate": ["validate", str(bundle), "--against", str(model), "--text", str(text), "--length", "16"],
        "profile": ["profile", str(bundle), "--quick", "--prompt-tokens", "8", "--max-new-tokens", "8"],
    }


@pytest.fixture(scope="module")
def bundle(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(pico_llama, output=tmp_path_factory.mktemp("plans") / "bundle", validate=False)


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weight of a checkpoint is read, and no bundle runs."""

    def read(*_: object, **__: object) -> None:
        pytest.fail("something was loaded")

    monkeypatch.setattr(WeightSource, "stored", read)
    monkeypatch.setattr("edgepress.benchmarks.speed.profile.measure_arms", read)


@pytest.mark.chain
@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("verb", ["export", "validate", "profile"])
def test_the_plan_is_said_and_nothing_else_happens(
    verb: str,
    pico_llama: Path,
    bundle: Path,
    pico_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [*verbs(pico_llama, bundle, pico_text)[verb], "--dry-run"]
    assert run(command) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"Plan of {verb}" and shown[-1].startswith("  time") and " to " in shown[-1]
    assert run([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["what"] == verb and 1 << 26 < found["peak_memory"] <= found["available"]
    assert all(size > 1000 for size in found["reads"].values()) and found["seconds"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.chain
@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("dry", [["--dry-run"], []])
@pytest.mark.parametrize("verb", ["export", "validate", "profile"])
def test_what_does_not_fit_is_refused_with_both_numbers_before_anything_is_loaded(
    verb: str,
    dry: list[str],
    pico_llama: Path,
    bundle: Path,
    pico_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [*verbs(pico_llama, bundle, pico_text)[verb], "--max-memory", "0.05", *dry]
    assert run([*command, "--json"]) == 6
    error = json.loads(capsys.readouterr().out)["error"]
    assert re.fullmatch(rf"{verb} needs \d\.\d\d GB of memory, 0\.05 GB are there", error["what"])
    assert error["fix"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.chain
def test_the_plan_of_a_compression_has_a_line_for_each_thing_that_it_needs(
    pico_llama: Path, capsys: Capture
) -> None:
    assert run(["compress", str(pico_llama), "--scheme", "W4A16", "--dry-run"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("Plan for ") and max(map(len, shown)) <= 80
    found = dict(line.strip().split(None, 1) for line in shown if line.startswith("  ") and line[2] != " ")
    assert {"checkpoint", "bundle", "memory", "disk", "time"} <= set(found) and "text" not in found
    assert re.match(r"0\.\d+ MB → 0\.\d+ MB", found["checkpoint"]) and " to " in found["time"]


@pytest.mark.chain
def test_a_full_disk_is_refused(
    pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("edgepress.files.disk.free_disk", lambda path: 1000)
    for command in (["export", str(pico_llama)], ["compress", str(pico_llama), "--scheme", "W4A16"]):
        assert run([*command, "-o", str(tmp_path / "out"), "--dry-run"]) == 6
        assert "of disk, 1 kB are free" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        (
            "[{pass: rtn, scheme: W4A16-g32, targets: [q, nothing]}]",
            "nothing in its targets matches no layer",
        ),
        ("[{pass: rtn, scheme: W4A16-g32, ignore: [q, nothing]}]", "nothing in its ignore matches no layer"),
        ("[{pass: rtn, scheme: W4A16-g32, targets: [embedding]}]", "own keys embedding and head"),
        ("[{pass: rtn, scheme: W4A16-g48}]", "group"),
    ],
)
def test_a_dry_run_refuses_what_the_run_does(
    steps: str, text: str, pico_llama: Path, tmp_path: Path, capsys: Capture
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"passes: {steps}")
    said = []
    for more in (["--dry-run"], ["-o", str(tmp_path / "o")]):
        assert run(["compress", str(pico_llama), "-r", str(recipe), *more]) == 2
        said.append(capsys.readouterr().err)
    assert text in said[0] and said[0] == said[1]
