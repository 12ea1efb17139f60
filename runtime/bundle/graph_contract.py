"""Whether a decoder graph is the one that its manifest describes: names, types and fixed sizes.

Buffers are made from the manifest's numbers and written by the graph, so the two must agree before the
first run.

What a decoder graph calls its caches: keys and values of blocks that attend, and states of fixed size of
those that do not. Each goes in as ``past…`` and comes out, extended, as ``present…``.

The names are those of onnxruntime-genai and transformers.js: ``past_key_values.3.key``, ``past_conv.4``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import BundleError
from .graph_sections import DecoderSection

TYPES = {
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
    "int8": "tensor(int8)",
    "uint8": "tensor(uint8)",
}
_NUMPY: dict[str, type[np.floating]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
KEYS_AND_VALUES = "past_key_values."
_PAST, _PRESENT = "past_", "present"


def logits_dtype(session: Any, section: DecoderSection) -> type[np.floating]:
    """Compare a loaded decoder graph with the manifest's ``section``; returns the dtype of its logits."""
    inputs = {node.name: node for node in (*session.get_inputs(), *session.get_overridable_initializers())}
    outputs = {node.name: node for node in session.get_outputs()}
    wanted = {
        "input_ids": "tensor(int64)",
        "attention_mask": "tensor(int64)",
        "logits_to_keep": "tensor(int64)",
    }
    shapes: dict[str, tuple[int, int]] = {}
    for index, layer in section.numbered():
        for part in ("key", "value"):
            wanted[f"past_key_values.{index}.{part}"] = TYPES[section.kv_dtype]
            shapes[f"past_key_values.{index}.{part}"] = (layer.kv_heads, layer.width(section.kv_dtype))
    wanted |= {f"past_{state.name}": TYPES["float32"] for state in section.states}
    problems = [
        f"it has no input {name!r} of {kind}" for name, kind in wanted.items() if _type(inputs, name) != kind
    ]
    problems += [f"it has an input {name!r}" for name in inputs if name not in wanted]
    for name, shape in shapes.items():
        dims = inputs[name].shape if name in inputs else []
        if len(dims) == 4 and not _agree(dims[1::2], shape):
            problems.append(f"{name} is {dims}, the manifest says {shape[0]} heads × {shape[1]}")
    for state in section.states:
        dims = inputs[f"past_{state.name}"].shape if f"past_{state.name}" in inputs else state.shape
        if list(dims)[-len(state.shape) :] != state.shape:
            problems.append(f"past_{state.name} is {dims}, the manifest says {state.shape}")
    presents = {present_of(name) for name in wanted if is_past(name)}
    problems += [f"it has no output {name!r}" for name in sorted(presents - set(outputs))]
    logits = outputs.get("logits")
    if logits is None or logits.type not in _NUMPY or not _agree(logits.shape[-1:], (section.vocab_size,)):
        problems.append(f"it has no floating output 'logits' over {section.vocab_size} tokens")
    if problems or logits is None:
        raise BundleError("the graph is not the one that the manifest describes", why="; ".join(problems[:6]))
    return _NUMPY[logits.type]


def _type(nodes: dict[str, Any], name: str) -> str:
    return nodes[name].type if name in nodes else ""


def _agree(dims: Sequence[object], sizes: Sequence[int]) -> bool:
    """Whether fixed dimensions equal ``sizes``; symbolic ones (strings or None) agree with anything."""
    return all(dim == size for dim, size in zip(dims, sizes, strict=False) if isinstance(dim, int))


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
