"""Nothing is sent anywhere: ONNX Runtime, which would by itself, leaves no device id and no events."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.chain


RUN = """
import sys
from edgepress.runtime.api import open_bundle
open_bundle(sys.argv[1]).encode(["river"])
"""
# Where one of these is set, ONNX Runtime keeps quiet anyway.
QUIET = ("ORT_DISABLE_TELEMETRY", "CI", "GITHUB_ACTIONS", "TF_BUILD")


def test_the_runtime_writes_down_nothing_about_this_machine(encoder_bundle: Path, tmp_path: Path) -> None:
    places = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"), str(tmp_path))
    environment = {name: value for name, value in os.environ.items() if name not in QUIET} | places
    command = [sys.executable, "-c", RUN, str(encoder_bundle)]
    subprocess.run(command, env=environment, check=True, timeout=120)
    found = {path.name for path in tmp_path.rglob("*")}
    assert not {"Microsoft", "deviceid", "onnxruntime.db"} & found
