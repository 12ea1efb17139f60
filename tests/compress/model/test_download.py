"""``--download``: the real client of the Hugging Face Hub, against a hub on the loopback."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .hub import Hub

pytestmark = pytest.mark.chain


@pytest.fixture
def hub(pico_llama: Path) -> Iterator[Hub]:
    """A hub that has the pico Llama."""
    with Hub(pico_llama).running() as running:
        yield running


def edgepress(hub: Hub, home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home / "hf"),
        "NO_PROXY": "127.0.0.1",
    }
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-m", "edgepress", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=home)


def test_a_model_is_fetched_once_and_opens_offline_after_it(pico_llama: Path, tmp_path: Path) -> None:
    """Its connection is cut once on the way, and taken up."""
    hub = Hub(pico_llama)
    hub.cut["model.safetensors"] = 1
    with hub.running():
        done = edgepress(hub, tmp_path, "compress", "org/tiny", "--download", "--scheme", "W8A8", "-o", "out")
        assert done.returncode == 0, done.stderr
        assert hub.served.count("model.safetensors") == 2 and "config.json" in hub.served
        hub.served.clear()
        again = edgepress(hub, tmp_path, "inspect", "org/tiny", "--download")
        assert again.returncode == 0, again.stderr
        assert hub.served == []
    offline = edgepress(hub, tmp_path, "inspect", "org/tiny")
    assert offline.returncode == 0, offline.stderr
    assert "org/tiny" in (tmp_path / "out/README.md").read_text(encoding="utf-8")


def test_what_the_hub_refuses_says_why_and_the_way_out(hub: Hub, tmp_path: Path) -> None:
    absent = edgepress(hub, tmp_path, "inspect", "org/absent", "--download")
    assert absent.returncode == 2
    assert "org/absent cannot be downloaded" in absent.stderr and "no such model" in absent.stderr
    gated = edgepress(hub, tmp_path, "inspect", "org/gated", "--download")
    assert gated.returncode == 2
    assert "terms" in gated.stderr and "hf auth login" in gated.stderr
    assert not hub.served


def test_a_download_that_broke_off_is_said_and_goes_on(hub: Hub, tmp_path: Path) -> None:
    hub.cut["model.safetensors"] = 99
    broken = edgepress(hub, tmp_path, "inspect", "org/tiny", "--download")
    assert broken.returncode == 2
    assert "org/tiny cannot be downloaded" in broken.stderr and "the same command goes on" in broken.stderr
    partly = edgepress(hub, tmp_path, "inspect", "org/tiny")
    assert partly.returncode == 2
    assert "only a part of org/tiny" in partly.stderr and "add --download" in partly.stderr
    hub.cut.clear()
    hub.served.clear()
    assert edgepress(hub, tmp_path, "inspect", "org/tiny", "--download").returncode == 0
    assert hub.served == ["model.safetensors"]  # the other files had come
