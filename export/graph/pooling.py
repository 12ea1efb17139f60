"""From token states to one vector a sentence, as the model's card says: mean or first token, unit length or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from ...errors import CheckpointError
from ...storage import contained, read_json
from .writer import GraphWriter

MODULES = "modules.json"
_SMALLEST_NORM = np.float32(1e-12)


@dataclass(frozen=True)
class Pooling:
    """``mode`` of making one vector from the tokens, and whether it is scaled to unit length."""

    mode: Literal["mean", "cls"]
    normalize: bool


def pooling_of(directory: Path) -> Pooling | None:
    """The pooling that ``modules.json`` (sentence-transformers) describes; None without one.

    Raises:
        CheckpointError: a pooling that is neither mean nor first token, or files that do not parse.
    """
    if not (directory / MODULES).is_file():
        return None
    modules = read_json(directory / MODULES)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise CheckpointError(f"{directory / MODULES} is not a list of modules")
    kinds = {
        str(module.get("type", "")).rpartition(".")[2]: str(module.get("path", "")) for module in modules
    }
    if "Pooling" not in kinds:
        return None
    return Pooling(_mode(contained(directory, f"{kinds['Pooling']}/config.json")), "Normalize" in kinds)


def _mode(config: Path) -> Literal["mean", "cls"]:
    settings: Any = read_json(config)
    if not isinstance(settings, dict):
        raise CheckpointError(f"{config} is not a JSON object")
    chosen = {
        key.removeprefix("pooling_mode_") for key, on in settings.items() if on is True and "_mode_" in key
    }
    chosen |= {str(settings["pooling_mode"])} if "pooling_mode" in settings else set()
    names: dict[str, Literal["mean", "cls"]] = {
        "mean_tokens": "mean",
        "mean": "mean",
        "cls_token": "cls",
        "cls": "cls",
    }
    if len(chosen) != 1 or not chosen <= set(names):
        raise CheckpointError(
            f"{config} pools by {', '.join(sorted(chosen)) or 'nothing'}",
            why="exports know the mean over tokens and the first token",
        )
    return names[chosen.pop()]


def sentence_embedding(graph: GraphWriter, hidden: ir.Value, mask: ir.Value, pooling: Pooling) -> ir.Value:
    """``[batch, hidden]`` from token states ``[batch, seq, hidden]`` and the mask of real tokens ``[batch, seq]``."""
    axis = graph.constant("pooling.axis", np.array([1], np.int64))
    if pooling.mode == "cls":
        first = graph.constant("pooling.first", np.array(0, np.int64))
        pooled = graph.node("Gather", "pooling.cls", [hidden, first], axis=1)
    else:
        weights = graph.node("Cast", "pooling.mask", [mask], to=ir.DataType.FLOAT)
        row = graph.node("Unsqueeze", "pooling.row", [weights, axis])
        total = graph.node(
            "Squeeze", "pooling.sum", [graph.node("MatMul", "pooling.total", [row, hidden]), axis]
        )
        count = graph.node("ReduceSum", "pooling.count", [weights, axis], keepdims=1)
        one = graph.constant("pooling.one", np.array(1, np.float32))  # a row without tokens is zero, not NaN
        pooled = graph.node("Div", "pooling.mean", [total, graph.node("Max", "pooling.tokens", [count, one])])
    if not pooling.normalize:
        return pooled
    length = graph.node("ReduceL2", "pooling.length", [pooled, axis], keepdims=1)
    floor = graph.constant("pooling.floor", np.array(_SMALLEST_NORM))
    return graph.node("Div", "pooling.unit", [pooled, graph.node("Max", "pooling.divisor", [length, floor])])
