"""The heads by which transformers times words: pairs of a decoder's layer and a head of its attention to the
sound, in ``generation_config.json``. They follow the layers that stay; whose heads change has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ....files.storage import read_json
from ..anatomy import Anatomy
from ..meta_model import GENERATION

_KEY = "alignment_heads"


def renumbered(checkpoint: Path, before: Anatomy, kept: Sequence[int]) -> dict[str, Any]:
    """What becomes of the file when of the blocks of ``before``, which it belongs to, those in ``kept`` stay:
    its content by its name, or nothing where it says no heads.
    """
    settings = _settings(checkpoint)
    if settings is None:
        return {}
    first = before.layers()[0]
    layers = [index - first for index in kept if index >= first]
    heads = [
        [layers.index(pair[0]), pair[1]] for pair in settings[_KEY] if _is_pair(pair) and pair[0] in layers
    ]
    return {GENERATION: {**settings, _KEY: heads}} if heads else without_heads(checkpoint)


def without_heads(checkpoint: Path) -> dict[str, Any]:
    """The same where none of them is what it was."""
    settings = _settings(checkpoint)
    if settings is None:
        return {}
    return {GENERATION: {name: value for name, value in settings.items() if name != _KEY}}


def _settings(checkpoint: Path) -> dict[str, Any] | None:
    path = checkpoint / GENERATION
    settings = read_json(path) if path.is_file() else None
    return settings if isinstance(settings, dict) and isinstance(settings.get(_KEY), list) else None


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(one) is int for one in value)
