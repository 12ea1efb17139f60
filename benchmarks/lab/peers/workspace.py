"""Where a comparison keeps what it makes: models in every engine's form, prompts, and environments of peers.

All of it is below one directory that the user names; nothing goes into the repository. An environment is a
virtual one with pinned packages. What became of it is written beside it, so that a peer that cannot be built
is listed with its error. The settings of pip apply: where torch should be the build for CPUs,
PIP_EXTRA_INDEX_URL names its index.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ....errors import MissingDependency
from ....files.storage import read_json, write_json
from ....plugins import load, names

# Each a folder of tools; a tool that is of two kinds has an environment for both.
KINDS = ("pruners", "trainers", "decoders", "quantizers", "encoders")


@dataclass(frozen=True)
class Workspace:
    """The directory of a comparison."""

    root: Path

    def environment(self, peer: str) -> Path:
        """The virtual environment of ``peer``."""
        return self.root / "environments" / peer.replace("_", "-")

    def python(self, peer: str, module: ModuleType) -> Path:
        """The interpreter of ``peer``: that of its environment, or this one for peers without packages."""
        if not module.PACKAGES:
            return Path(sys.executable)
        folder = "Scripts" if os.name == "nt" else "bin"
        return self.environment(peer) / folder / "python"

    def checkpoint(self, subject: str) -> Path:
        """The float32 checkpoint of ``subject``, for those that are made here."""
        return self.root / "models" / subject

    def artifact(self, subject: str, engine: str, variant: str) -> Path:
        """``subject`` as the engine's variant stores it."""
        return self.root / "artifacts" / subject / f"{engine.replace('_', '-')}-{variant}"

    def prompts(self, subject: str) -> Path:
        """The token ids that are prompts."""
        return self.root / "prompts" / f"{subject}.json"


def peers(kind: str) -> dict[str, ModuleType]:
    """The modules of a kind of peers by their name, in alphabetical order."""
    package = f"{__package__}.{kind}"
    return {name: load(package, name, kind.removesuffix("s")) for name in names(package)}


_SHOWN = 600


def setup(workspace: Workspace, peer: str, module: ModuleType) -> None:
    """Make the environment of ``peer``, or bring it up to date."""
    if not module.PACKAGES:
        return
    folder = workspace.environment(peer)
    folder.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    pip = [str(workspace.python(peer, module)), "-m", "pip"]
    steps = [
        [sys.executable, "-m", "venv", str(folder)],
        [*pip, "install", "--quiet", *module.PACKAGES],
    ]
    if unwanted := getattr(module, "WITHOUT", ()):
        steps.append([*pip, "uninstall", "--quiet", "--yes", *unwanted])
    variables = {**os.environ, **getattr(module, "BUILD", {})}
    for step in steps:
        done = subprocess.run(step, env=variables, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            silent = f"{' '.join(step[1:3])} ended with code {done.returncode} and said nothing"
            error = done.stderr.strip()[-_SHOWN:] or silent
            write_json(_record(workspace, peer), {"status": "failed", "error": error})
            raise MissingDependency(f"the environment of {peer} could not be made", why=error)
    seconds = round(time.monotonic() - began)
    write_json(
        _record(workspace, peer), {"status": "ok", "seconds": seconds, "packages": list(module.PACKAGES)}
    )


def trouble(workspace: Workspace, peer: str, module: ModuleType) -> str | None:
    """Why ``peer`` cannot run, as far as its environment says; None when there is nothing to say."""
    if not module.PACKAGES:
        return None
    if _record(workspace, peer).is_file():
        found: dict[str, Any] = read_json(_record(workspace, peer))
        if found["status"] != "ok":
            return str(found["error"])
    if not workspace.python(peer, module).exists():
        return f"no environment: make it with `setup {peer.replace('_', '-')}`"
    return None


def _record(workspace: Workspace, peer: str) -> Any:
    folder = workspace.environment(peer)
    return folder.with_name(f"{folder.name}.json")
