"""The word lists and sentences of the slices about people."""

from importlib.resources import files
from typing import Any

from ....files.yaml_safe import load_yaml


def lists() -> dict[str, Any]:
    """What ``people.yaml`` holds."""
    found: dict[str, Any] = load_yaml(
        (files(__package__) / "people.yaml").read_text(encoding="utf-8"), source="people.yaml"
    )
    return found
