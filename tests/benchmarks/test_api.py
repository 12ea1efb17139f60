"""The public Python API in the README's order, on a pico model: strings where a user would write strings."""

from pathlib import Path

import edgepress
import pytest
from edgepress.benchmarks.quality import greedy_text
from edgepress.benchmarks.speed.protocol import Protocol

pytestmark = pytest.mark.chain

SHORT = Protocol(blocks=1, block_ms=1, warmup_seconds=0)


@pytest.mark.usefixtures("small_roofs")
def test_the_whole_chain(
    pico_llama: Path, pico_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(greedy_text, "NEW_TOKENS", 16)
    model, text = str(pico_llama), str(pico_text)
    edgepress.compress_model(
        model, scheme="W4A16", group_size=32, calibration=text, samples=8, length=32, output="out"
    )
    edgepress.export_bundle("out", output="bundle")
    quality = edgepress.validate_bundle(
        "bundle", model, text=text, windows=2, length=32, record="runs/pico.jsonl"
    )
    speed = edgepress.profile_bundle(
        "bundle", prompt_tokens=8, new_tokens=8, protocol=SHORT, record="runs/pico.jsonl"
    )
    assert edgepress.write_report(["runs/pico.jsonl"], "report.html").is_file()
    assert quality.subject.manifest_sha256 == speed.subject.manifest_sha256
    pieces = list(edgepress.open_bundle("bundle").stream("the river", max_new_tokens=8))
    assert all(isinstance(piece, str) for piece in pieces)
