"""Where a comparison keeps what it makes: environments, models in every engine's form, and prompts.

All of it is below one directory that the user names; nothing goes into the repository.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ....plugins import load, names

DECODERS = f"{__package__}.decoders"
QUANTIZERS = f"{__package__}.quantizers"
PRUNERS = f"{__package__}.pruners"
TRAINERS = f"{__package__}.trainers"
ENCODERS = f"{__package__}.encoders"


@dataclass(frozen=True)
class Place:
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


def engines() -> dict[str, ModuleType]:
    """The modules of all engines by their name, in alphabetical order."""
    return {name: load(DECODERS, name, "engine") for name in names(DECODERS)}


def quantizers() -> dict[str, ModuleType]:
    """The modules of all quantizers by their name, in alphabetical order."""
    return {name: load(QUANTIZERS, name, "quantizer") for name in names(QUANTIZERS)}


def pruners() -> dict[str, ModuleType]:
    """The modules of all pruners by their name, in alphabetical order."""
    return {name: load(PRUNERS, name, "pruner") for name in names(PRUNERS)}


def trainers() -> dict[str, ModuleType]:
    """The modules of all trainers by their name, in alphabetical order."""
    return {name: load(TRAINERS, name, "trainer") for name in names(TRAINERS)}


def encoders() -> dict[str, ModuleType]:
    """The modules of all tools that embed sentences by their name, in alphabetical order."""
    return {name: load(ENCODERS, name, "encoder") for name in names(ENCODERS)}
