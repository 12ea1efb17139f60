"""Which wheels a platform takes, where they come from, and edgepress packed as it runs here."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from edgepress.devices.transports import wheels
from edgepress.devices.transports.fitness import NAMED, Platform
from edgepress.devices.transports.wheels import Wheel, environment, key, own_wheel, pins
from edgepress.errors import InputError, MissingDependency, UnknownName
from edgepress.files.storage import sha256_file
from edgepress.runtime.kernels.library import library

PI = Platform("Linux", "aarch64", (3, 13), (2, 36))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    "name",
    [
        "numpy-2.4.6-cp313-cp313-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl",
        "tokenizers-0.23.3-cp310-abi3-manylinux_2_17_aarch64.manylinux2014_aarch64.whl",
        "pydantic-2.14.4-py3-none-any.whl",
        "six-1.17.0-py2.py3-none-any.whl",
        "edgepress-0.1.0-py3-none-manylinux_2_17_aarch64.whl",
    ],
)
def test_what_a_pi_takes(name: str) -> None:
    assert PI.takes(name)


@pytest.mark.parametrize(
    "name",
    [
        "numpy-2.4.6-cp313-cp313-manylinux_2_28_x86_64.whl",
        "numpy-2.4.6-cp314-cp314-manylinux_2_28_aarch64.whl",
        "numpy-2.4.6-cp313-cp313t-manylinux_2_28_aarch64.whl",
        "numpy-2.4.6-cp313-cp313-manylinux_2_39_aarch64.whl",
        "tokenizers-0.23.3-cp314-abi3-manylinux_2_17_aarch64.whl",
        "numpy-2.4.6-cp313-cp313-musllinux_1_2_aarch64.whl",
    ],
)
def test_what_a_pi_does_not_take(name: str) -> None:
    assert not PI.takes(name)


def test_named_platforms_have_tags() -> None:
    first = {name: Platform.named(name, (3, 13)).tags[0] for name in NAMED}
    assert first == {
        "linux-x86_64": "manylinux_2_28_x86_64",
        "linux-aarch64": "manylinux_2_28_aarch64",
        "macos-arm64": "macosx_14_0_arm64",
        "windows-amd64": "win_amd64",
    }
    with pytest.raises(UnknownName, match="linux-x86_64"):
        Platform.named("linux-x86", (3, 13))


def test_a_folder_of_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    monkeypatch.setenv("EDGEPRESS_WHEELS", str(folder))
    asked: list[dict[str, str]] = []
    monkeypatch.setattr(wheels, "_report", lambda platform, wanted: asked.append(wanted) or [])
    environment(PI)
    assert asked == [pins()], "what the folder lacks is asked of the index"
    for name, version in pins().items():
        (folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl").write_bytes(name.encode())
    found = environment(PI)
    assert [wheel.name.split("-")[0] for wheel in found][-1] == "edgepress"
    assert len(asked) == 1 and len(found) == len(wheels.NEEDED) + 1 and key(found) == key(found[::-1])
    monkeypatch.setenv("EDGEPRESS_WHEELS", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="no folder"):
        environment(PI)


def test_another_provider_is_sent_its_build_of_the_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = pins("tensorrt")
    assert wanted == pins("cuda") and "onnxruntime" not in wanted
    others = {name: version for name, version in pins().items() if name != "onnxruntime"}
    assert wanted == {**others, "onnxruntime-gpu": wanted["onnxruntime-gpu"]}
    folder = tmp_path / "given"
    folder.mkdir()
    monkeypatch.setenv("EDGEPRESS_WHEELS", str(folder))
    for name, version in wanted.items():
        (folder / f"{name.replace('-', '_')}-{version or '1.31.1'}-py3-none-any.whl").write_bytes(b"one")
    names = {wheel.name.split("-")[0] for wheel in environment(PI, "cuda")}
    assert "onnxruntime_gpu" in names and "onnxruntime" not in names


@pytest.mark.chain
def test_pip_that_finds_nothing_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEPRESS_WHEELS", raising=False)
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MissingDependency, match="no wheels for Linux aarch64") as caught:
        environment(PI)
    assert "EDGEPRESS_WHEELS" in caught.value.fix


def test_what_pip_finds_is_kept_and_fetched_by_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Platform] = []
    served = tmp_path / "numpy-1-py3-none-any.whl"
    served.write_bytes(b"bytes")
    listed = [{"name": served.name, "url": served.as_uri(), "sha256": wheels.sha256_file(served)}]
    monkeypatch.setattr(wheels, "_report", lambda platform, wanted: calls.append(platform) or listed)
    first, again = environment(PI), environment(PI)
    assert first == again and calls == [PI]
    assert first[0].file().read_bytes() == b"bytes"
    with pytest.raises(MissingDependency, match="other bytes"):
        Wheel(served.name, "0" * 64, served.as_uri()).file()
    with pytest.raises(MissingDependency, match="cannot fetch"):
        Wheel(served.name, "0" * 64, (tmp_path / "gone").as_uri()).file()


def test_an_index_that_says_no_hash_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"install": [{"download_info": {"url": "https://h/six-1-py3-none-any.whl", "archive_info": {}}}]}

    def pip(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, 0, json.dumps(said), "")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(MissingDependency, match="does not say the SHA-256 of six-1"):
        wheels.packages(PI)


def test_of_a_wheel_so_much_is_read_and_no_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "large.whl").write_bytes(b"x" * 100)
    wheel = Wheel("large.whl", sha256_file(tmp_path / "large.whl"), (tmp_path / "large.whl").as_uri())
    assert wheel.file().read_bytes() == b"x" * 100
    wheel.file().unlink()
    monkeypatch.setattr(wheels, "_MOST_BYTES", 99)
    with pytest.raises(MissingDependency, match="other bytes"):
        wheel.file()


def test_edgepress_is_packed_as_it_runs_here() -> None:
    wheel = own_wheel(PI)
    assert wheel == own_wheel(PI), "the same files have the same hash"
    with zipfile.ZipFile(wheel.file()) as archive:
        names = set(archive.namelist())
    assert {"edgepress/__init__.py", "edgepress/benchmarks/speed/far_end.py"} <= names
    assert "edgepress/devices/targets/h100-sxm.yaml" in names
    assert not any("lab/" in name or "tests/" in name or "_kernels" in name for name in names)


def test_the_library_of_operators_goes_where_it_runs(tmp_path: Path) -> None:
    built = library()
    if built is not None and sys.platform == "linux":
        same = Platform("Linux", os.uname().machine, (3, 13), (2, 99))
        assert (
            dict(wheels._library(same, None))["edgepress/runtime/kernels/_kernels.so"] == built.read_bytes()
        )
        assert not list(wheels._library(Platform("Linux", same.machine, (3, 13), (2, 2)), None))
    other = tmp_path / "edgepress-0.1.0-py3-none-manylinux_2_17_aarch64.whl"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("edgepress/runtime/kernels/_kernels.so", b"for Arm")
    assert list(wheels._library(PI, tmp_path)) == [("edgepress/runtime/kernels/_kernels.so", b"for Arm")]
    assert not list(wheels._library(Platform("Darwin", "arm64", (3, 13)), tmp_path))
