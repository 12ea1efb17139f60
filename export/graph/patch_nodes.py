"""From the pixels of an image to what the first block reads."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch

from ...compress.model.outer_anatomy import Patches
from .build import Build
from .graph_writer import Array
from .norm import normalize


def patch_embeddings(build: Build, patches: Patches) -> ir.Value:
    """``[batch, tokens, hidden]`` of the graph's input ``pixel_values [batch, 3, height, width]``."""
    graph, hidden = build.graph, build.anatomy.hidden_size
    pixels = graph.input("pixel_values", ir.DataType.FLOAT, ["batch_size", 3, *patches.image])
    module, sides = patches.projection, [patches.side, patches.side]
    names = [f"{module}.{part}" for part in ("weight", "bias")]
    weights = [build.vector(name) for name in names if build.weights.has(name)]
    maps = graph.node("Conv", module, [pixels, *weights], kernel_shape=sides, strides=sides)
    rows = graph.constant("patches.rows", np.array([0, hidden, -1], np.int64))
    flat = graph.node("Reshape", "patches.flat", [maps, rows])
    value = graph.node("Transpose", "patches", [flat], perm=[0, 2, 1])
    if patches.class_token is not None:
        value = graph.node(
            "Concat", "patches.with_class", [_class_tokens(build, patches, pixels), value], axis=1
        )
    value = graph.node("Add", "patches.placed", [value, _positions(build, patches)])
    norm = build.anatomy.embedding_norm
    return value if norm is None else normalize(build, value, norm)


def _class_tokens(build: Build, patches: Patches, pixels: ir.Value) -> ir.Value:
    """The class token once for each image: ``[batch, 1, hidden]``."""
    graph, name, hidden = build.graph, str(patches.class_token), build.anatomy.hidden_size

    def row() -> Array:
        return build.weights.tensor(name).numpy().astype(np.float32).reshape(1, 1, hidden)

    token = graph.weight(name, ir.DataType.FLOAT, (1, 1, hidden), row)
    count = graph.node("Shape", "patches.batch", [pixels], start=0, end=1)
    one = graph.constant("patches.one", np.array([1, hidden], np.int64))
    return graph.node("Expand", name, [token, graph.node("Concat", f"{name}.shape", [count, one], axis=0)])


def _positions(build: Build, patches: Patches) -> ir.Value:
    """``[1, tokens, hidden]``, for images of another size than the model's own interpolated now."""
    hidden, name = build.anatomy.hidden_size, patches.positions

    def rows() -> Array:
        return at_grid(build.weights.tensor(name).float().reshape(-1, hidden), patches)[None].numpy()

    return build.graph.weight(name, ir.DataType.FLOAT, (1, patches.tokens, hidden), rows)


def at_grid(positions: torch.Tensor, patches: Patches) -> torch.Tensor:
    """``positions [tokens of the model's own grid, hidden]`` for the grid of the images that are read."""
    grid = tuple(size // patches.side for size in patches.image)
    if grid == patches.grid:
        return positions
    first = int(patches.class_token is not None)
    map_ = positions[first:].T.reshape(1, -1, *patches.grid)
    between = torch.nn.functional.interpolate(map_, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([positions[:first], between[0].flatten(1).T])
