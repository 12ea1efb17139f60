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
    """Write ``model`` to ``path``; if its weights (``nbytes`` in all) are large they go to ``path`` +
    ``.data``.

    One initializer at a time is in memory. ``task`` advances by the bytes written.

    Raises:
        OutOfResource: the disk is full.
        EdgepressError: whatever reading a weight raises.
    """
    external = nbytes >= EXTERNAL_FROM
    # What stays inside the graph is made now: the serializer would bury an error in one of its own.
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.LazyTensor) and (not external or tensor.nbytes < _SMALLEST_EXTERNAL):
            value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
            task.advance(tensor.nbytes)

    def wrote(tensor: Any, _: Any) -> None:
        task.advance(tensor.nbytes)

    with disk_full_is_typed(path):
        if external:
            ir.save(
                model,
                path,
                external_data=f"{path.name}.data",
                size_threshold_bytes=_SMALLEST_EXTERNAL,
                callback=wrote,
            )
        else:
            ir.save(model, path)
