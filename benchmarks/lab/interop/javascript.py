"""Clients in JavaScript: npm lays their packages beside the environment, and node runs a script of
``scripts/`` there.

Standard library only, as everything that runs in the environment of a client.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).with_name("scripts")


def npm_folder(packages: Sequence[str]) -> Path:
    """Where ``packages`` lie, with the scripts; they are installed there once."""
    folder, npm = Path(sys.prefix) / "node", shutil.which("npm")
    if npm is None:
        raise RuntimeError("npm is not installed")
    if not (folder / "node_modules").is_dir():
        folder.mkdir(exist_ok=True)
        install = [npm, "install", "--silent", "--ignore-scripts", *packages]  # they fetch what GPUs need
        if subprocess.run(install, cwd=folder, check=False, stdout=sys.stderr).returncode:
            raise RuntimeError(f"npm does not install {', '.join(packages)}")
    for script in SCRIPTS.glob("*.mjs"):
        shutil.copyfile(script, folder / script.name)
    return folder


def run_node(script: str, artifact: Path, task: dict[str, Any], packages: Sequence[str]) -> dict[str, Any]:
    """What ``script`` answers to ``task``, of ``artifact``."""
    node = shutil.which("node")
    if node is None:
        raise RuntimeError("node is not installed")
    done = subprocess.run(
        [node, script, str(artifact)],
        cwd=npm_folder(packages),
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = re.findall(r"^\w*Error.*", done.stderr, flags=re.M)
        raise RuntimeError((said or ["node failed"])[0])
    found: dict[str, Any] = json.loads(done.stdout)
    return found
