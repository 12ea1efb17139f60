"""A kit for 64-bit Arm, run in qemu's user mode with Debian's Python: it works, and its times are invalid.

Debian's packages are unpacked into a scratch folder; nothing is installed. Skipped without qemu, apt or
network.
"""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from edgepress.benchmarks.speed.elsewhere import import_lines
from edgepress.devices.transports.sending import make_kit
from edgepress.errors import MissingDependency
from edgepress.export.api import export_bundle
from edgepress.terminal.progress import Silent

from .test_sending import PLAN

EMULATOR = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
PACKAGES = (
    *("python3.13-minimal", "libpython3.13-minimal", "libpython3.13-stdlib", "libc6", "libstdc++6"),
    *("libgcc-s1", "zlib1g", "libexpat1", "libssl3t64", "libffi8", "libbz2-1.0", "liblzma5", "libuuid1"),
)


def save_python(folder: Path) -> None:
    """``folder/bin/python3``: Debian's for Arm under the emulator, also where it starts itself again."""
    root, debs = folder / "root", folder / "debs"
    for one in (folder / "lists/partial", folder / "cache/archives/partial", debs, folder / "bin", root):
        one.mkdir(parents=True)
    (folder / "status").touch()
    settings = {
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "1",
    }
    apt = ["apt-get", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}")), "-qq"]
    for command in (["update"], ["download", *PACKAGES]):
        subprocess.run([*apt, *command], check=True, cwd=debs, capture_output=True)
    for deb in debs.glob("*.deb"):
        subprocess.run(["dpkg", "-x", deb, root], check=True)
    (root / "lib").symlink_to("usr/lib")
    words = [str(EMULATOR), "-cpu", "max", "-L", str(root), "-E", f"PYTHONHOME={root / 'usr'}"]
    real = shlex.quote(str(root / "usr/bin/python3.13"))
    script = folder / "bin/python3"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} -0 "$0" {real} "$@"\n', encoding="utf-8")
    script.chmod(0o755)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_kit_in_an_emulator(pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if EMULATOR is None or shutil.which("apt-get") is None:
        pytest.skip("no qemu-aarch64 or no apt-get here")
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    bundle = export_bundle(pico_llama, output=tmp_path / "pico", validate=False, operators="standard")
    try:
        save_python(tmp_path / "arm")
        make_kit(bundle, tmp_path / "kit", "linux-aarch64", {**PLAN, "kernels_s": 60.0}, Silent())
    except (subprocess.CalledProcessError, MissingDependency) as error:
        pytest.skip(f"what runs for Arm cannot be fetched: {error}")
    path = f"{tmp_path / 'arm/bin'}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([tmp_path / "kit/start.sh"], check=True, env={**os.environ, "PATH": path}, cwd="/")
    (line,), _ = import_lines(tmp_path / "kit/record.jsonl", tmp_path / "run.jsonl")
    assert line.device["cpu"]["machine"] == "aarch64" and line.device["emulated"]
    assert line.validity.status == "invalid"
    assert any("emulated" in reason for reason in line.validity.reasons)
    assert line.metrics["decode_tps"].n == 1
    assert not (tmp_path / "kit/kernels.json").exists(), "no prediction may rest on an emulator's times"
