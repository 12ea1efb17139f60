"""What a decoder graph calls its caches: keys and values of blocks that attend, and states of fixed size of
those that do not. Each goes in as ``past…`` and comes out, extended, as ``present…``.

The names are those of onnxruntime-genai and transformers.js: ``past_key_values.3.key``, ``past_conv.4``.
"""

from __future__ import annotations

KEYS_AND_VALUES = "past_key_values."
_PAST, _PRESENT = "past_", "present"


def is_past(name: str) -> bool:
    """Whether the graph input ``name`` is a cache."""
    return name.startswith(_PAST)


def is_present(name: str) -> bool:
    """Whether the graph output ``name`` is a cache."""
    return name.startswith((f"{_PRESENT}.", f"{_PRESENT}_"))


def grows(name: str) -> bool:
    """Whether the cache ``name`` that goes in has room for each token: its third axis."""
    return name.startswith(KEYS_AND_VALUES)


def present_of(name: str) -> str:
    """The output that extends the input ``name``."""
    if grows(name):
        return f"{_PRESENT}.{name.removeprefix(KEYS_AND_VALUES)}"
    return f"{_PRESENT}_{name.removeprefix(_PAST)}"
