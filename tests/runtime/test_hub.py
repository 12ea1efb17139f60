"""Bundles by the id of a hub: pushed with the real client to one on the loopback, and opened from there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from edgepress.errors import InputError
from edgepress.runtime.hub import Model, push

from ..compress.model.hub import Hub

OPEN = """
import sys, edgepress
model = edgepress.Model.from_pretrained("org/tiny", download=sys.argv[1] == "fetched")
print(model("hello world", max_new_tokens=4)[0]["generated_text"].encode())
print("torch" in sys.modules)
"""


def told(hub: Hub, home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home / "hf"),
        "EDGEPRESS_CACHE": str(home / "cache"),
        "HF_TOKEN": "hf_of_a_test",
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
    }
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment
    )


@pytest.mark.chain
def test_a_bundle_is_pushed_and_opens_from_there(decoder_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    with Hub(tmp_path / "served").running() as hub:
        done = told(hub, tmp_path, "-m", "edgepress", "push", decoder_bundle, "org/tiny")
        assert done.returncode == 0, done.stderr
        sent = {path.name: path.read_bytes() for path in hub.folder.iterdir()}
        assert sent == {path.name: path.read_bytes() for path in decoder_bundle.iterdir()}
        (hub.folder / ".gitattributes").write_text("*.data filter=lfs\n")  # the hub adds one
        fetched = told(hub, tmp_path, "-c", OPEN, "fetched")
        assert fetched.returncode == 0, fetched.stderr
        refused = told(hub, tmp_path, "-m", "edgepress", "push", decoder_bundle, "org/other")
        assert refused.returncode == 2 and "E-INPUT" in refused.stderr
    kept = told(hub, tmp_path, "-c", OPEN, "kept")  # the hub is gone
    assert kept.stdout == fetched.stdout and kept.stdout.endswith("False\n")


def test_what_is_no_id_is_refused(decoder_bundle: Path) -> None:
    with pytest.raises(InputError):
        push(decoder_bundle, "no-owner")


def test_what_the_cache_lacks_is_not_fetched_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path))
    with pytest.raises(InputError) as caught:
        Model.from_pretrained("nobody/nothing-at-all")
    assert "download=True" in caught.value.fix
