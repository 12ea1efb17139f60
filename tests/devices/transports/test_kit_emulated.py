"""A kit for 64-bit Arm, run in qemu's user mode with Debian's Python: it works, and its times are invalid.

Debian's packages are unpacked into a scratch folder; nothing is installed. Skipped without qemu, apt or
network.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from edgepress.benchmarks.speed.elsewhere import import_lines
from edgepress.devices.transports.sending import make_kit
from edgepress.errors import MissingDependency
from edgepress.export.api import export_bundle
from edgepress.terminal.progress import Silent

from ...processors.emulated_python import EMULATOR, save_python
from .test_sending import PLAN


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
