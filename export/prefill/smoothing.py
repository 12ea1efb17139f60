"""How the channels of norms are smoothed for 8-bit integers: by the square root of their peaks on some text.

SmoothQuant (Xiao et al. 2022, arXiv 2211.10438) with a share of one half of what the activations say alone:
the weights of 4-bit blocks are of about one size in every channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...runtime.session.session import open_session
from ..proof.drive import GraphDriver

TOKENS = 256
_SHARE = 0.5
# A channel that is never heard of is not divided by next to nothing.
_SMALLEST = 1e-2


def smoothing_factors(
    model: Path, norms: Sequence[str], ids: NDArray[np.int64]
) -> dict[str, NDArray[np.float32]]:
    """Factors ``[hidden]`` with a geometric mean of one by norm, from a run of the graph ``model``."""
    found = {}
    for name, values in _outputs(model, norms, ids).items():
        peaks = np.abs(values).max(axis=tuple(range(values.ndim - 1)))
        peaks = np.maximum(peaks, _SMALLEST * peaks.max())
        logarithms = _SHARE * np.log(np.where(peaks > 0, peaks, 1))
        found[name] = np.exp(logarithms - logarithms.mean()).astype(np.float32)
    return found


def _outputs(model: Path, norms: Sequence[str], ids: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
    """What the ``norms`` put out for ``ids [1, seq]``."""
    graph, path = ir.load(model), model.with_name("peaks.onnx")
    wanted = {node.name: node.outputs[0] for node in graph.graph if node.name in set(norms)}
    for value in wanted.values():
        value.type = ir.TensorType(ir.DataType.FLOAT)
        graph.graph.outputs.append(value)
    try:
        ir.save(graph, path)
        session = open_session(path)
    finally:
        path.unlink(missing_ok=True)
    feeds = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        **GraphDriver(session).empty_cache(1, ids.shape[1]),
    }
    names = [str(value.name) for value in wanted.values()]
    return dict(zip([str(name) for name in wanted], session.run(names, feeds), strict=True))
