"""Writing a graph: weights stream into one file beside it, which also lifts protobuf's 2 GB limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir

from ...storage import disk_full_is_typed
from ...terminal import Task

# Below this much, one file is simpler to carry than two.
EXTERNAL_FROM = 1 << 20
_SMALLEST_EXTERNAL = 1 << 10


def save(model: ir.Model, path: Path, nbytes: int, task: Task) -> None:
    """Write ``model`` to ``path``; weights of ``nbytes`` in all go to ``path`` + ``.data`` when they are
    large.

    One initializer at a time is in memory. ``task`` advances by the bytes written.

    Raises:
        OutOfResource: the disk is full.
    """

    def wrote(tensor: Any, _: Any) -> None:
        task.advance(tensor.nbytes)

    with disk_full_is_typed(path):
        if nbytes < EXTERNAL_FROM:
            ir.save(model, path)
            task.advance(nbytes)
        else:
            ir.save(
                model,
                path,
                external_data=f"{path.name}.data",
                size_threshold_bytes=_SMALLEST_EXTERNAL,
                callback=wrote,
            )
