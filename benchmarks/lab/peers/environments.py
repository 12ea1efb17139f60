"""The environment of a peer: a virtual environment with pinned packages, made by one command.

What became of it is written beside it, so that a peer that cannot be built is listed with its error. The
settings of pip apply: where torch should be the build for CPUs, PIP_EXTRA_INDEX_URL names its index.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from types import ModuleType
from typing import Any

from ....errors import MissingDependency
from ....storage import read_json, write_json
from .workspace import Place

_SHOWN = 600


def setup(place: Place, peer: str, module: ModuleType) -> None:
    """Make the environment of ``peer``, or bring it up to date.

    Raises:
        MissingDependency: it could not be made; says what pip printed last.
    """
    if not module.PACKAGES:
        return
    folder = place.environment(peer)
    folder.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    steps = [
        [sys.executable, "-m", "venv", str(folder)],
        [str(place.python(peer, module)), "-m", "pip", "install", "--quiet", *module.PACKAGES],
    ]
    variables = {**os.environ, **getattr(module, "BUILD", {})}
    for step in steps:
        done = subprocess.run(step, env=variables, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            error = done.stderr.strip()[-_SHOWN:]
            write_json(_record(place, peer), {"status": "failed", "error": error})
            raise MissingDependency(f"the environment of {peer} could not be made", why=error)
    seconds = round(time.monotonic() - began)
    write_json(_record(place, peer), {"status": "ok", "seconds": seconds, "packages": list(module.PACKAGES)})


def trouble(place: Place, peer: str, module: ModuleType) -> str | None:
    """Why ``peer`` cannot run, as far as its environment says; None when there is nothing to say."""
    if not module.PACKAGES:
        return None
    if _record(place, peer).is_file():
        found: dict[str, Any] = read_json(_record(place, peer))
        if found["status"] != "ok":
            return str(found["error"])
    if not place.python(peer, module).exists():
        return f"no environment: make it with `setup {peer.replace('_', '-')}`"
    return None


def _record(place: Place, peer: str) -> Any:
    folder = place.environment(peer)
    return folder.with_name(f"{folder.name}.json")
