"""What leaves the process: one document under ``--json`` whatever happens, no secret of the environment."""

import json
from pathlib import Path

import pytest
from edgepress.cli.entry import run

pytestmark = pytest.mark.chain

Capture = pytest.CaptureFixture[str]
CANARY = "hf_canary0123456789canary"
SECRETS = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "GITHUB_TOKEN",
    "EDGEPRESS_KEY_PASSWORD",
)


def test_every_run_with_json_is_one_document(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["recipe", "list", "--json"]) == 0
    recipes = json.loads(capsys.readouterr().out)
    assert run(["devices", "list", "--json"]) == 0
    targets = [target["name"] for target in json.loads(capsys.readouterr().out)["targets"]]
    for subject, names in (("recipe", list(recipes)), ("devices", targets)):
        for name in names:
            for asked, right in ((name, True), (f"{name}\x1b[2J\n", False), (f"[red]{name}", False)):
                code = run([subject, "show", asked, "--json"])
                shown = capsys.readouterr()
                document = json.loads(shown.out)
                assert (code == 0) is right is ("error" not in document), asked
                assert shown.out.isascii() and "\x1b" not in shown.out + shown.err


def test_no_secret_of_the_environment_is_written(
    pico_llama: Path,
    pico_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, CANARY)
    out, bundle, record = tmp_path / "out", tmp_path / "bundle", tmp_path / "run.jsonl"
    measured = ["--text", str(pico_text), "--windows", "1", "--length", "16", "--record", str(record)]
    runs = [
        (["compress", str(pico_llama), "--scheme", "W8A8", "-o", str(out)], 0),
        (["export", str(out), "-o", str(bundle)], 0),
        (["validate", str(bundle), "--against", str(pico_llama), *measured], 0),
        (["report", str(record), "-o", str(tmp_path / "report.html")], 0),
        (["inspect", str(bundle), "--json"], 0),
        (["generate", str(bundle), "-p", "the river", "--max-new-tokens", "2"], 0),
        (["export", str(tmp_path / "missing"), "-o", str(tmp_path / "x")], 2),
    ]
    for arguments, code in runs:
        assert run(arguments) == code, arguments
    run(["doctor"])
    shown = capfd.readouterr()
    assert CANARY not in shown.out + shown.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"manifest.json", "README.md", "run.jsonl", "report.html"} <= {path.name for path in files}
    assert not [path for path in files if CANARY.encode() in path.read_bytes()]
