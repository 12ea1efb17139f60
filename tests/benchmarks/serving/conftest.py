"""The fake server as the program that an environment variable names."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def fake_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Installs it in a mode; the file that it writes the numbers of its processes to."""
    program, pids = tmp_path / "vllm", tmp_path / "pids"
    source = Path(__file__).with_name("fake_vllm.py").read_text(encoding="utf-8")
    program.write_text(f"#!{sys.executable}\n{source}", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("EDGEPRESS_VLLM", str(program))

    def install(mode: str = "") -> Path:
        monkeypatch.setenv("FAKE_MODE", mode)
        monkeypatch.setenv("FAKE_PIDS", str(pids))
        return pids

    return install
