"""Int8 weights, one scale for each output, made of the 2-, 4- or 8-bit blocks of a bundle's graph.

The prefill graph of a bundle has products whose weights no file holds: the device makes them of those that
the model's own graph has. ``w = scale · code`` with ``scale = absmax / 127`` of each output; an error of half
a step is small beside that of the codes it starts from.

What a norm feeds may be smoothed (Xiao et al. 2022, "SmoothQuant", arXiv 2211.10438): the prefill graph has
the norm divided by a factor for each channel, so that no channel decides the rounding of all, and the columns
of the weights are multiplied by it. The factors are the ratio of the norm in the two graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleError, OutOfResource
from ..bundle.bundle import Bundle
from ..bundle.graph_file import GraphFile
from ..bundle.manifest import PrepackedLinear
from ..session.session import PREFILL, open_session, save_optimized
from ..session.threads import free_memory

# Initializers of the prefill graph: the product's name, and which of its two arrays.
INT8_CODES, INT8_SCALES = ".int8", ".int8_scales"
# What the name of a smoothed norm's initializer ends with in the prefill graph.
SMOOTHED = ".smoothed"
_LEVELS = np.float32(127)
# What opening the graph with weights from memory takes, by their bytes: they, a copy of the session's and the
# packed ones. Those alone stay.
_MEMORY = 2.6
_ROWS = 128  # at a time: what stays in a core's cache, for half the time of 1024


def make_int8_weights(
    prefill: Path, graph: Path, linears: Sequence[PrepackedLinear]
) -> dict[str, NDArray[Any]]:
    """Codes ``[in, out]`` int8 and scales ``[out]`` float32 of every linear, by the names that the graph in
    the file ``prefill`` has for them, out of the model's own in the file ``graph``.

    Raises:
        BundleError: a graph has no such product or norm, or not its weights.
    """
    file, filler, made = GraphFile.read(graph), GraphFile.read(prefill), {}
    factors = {
        norm: _factors(file, graph, filler, prefill, norm)
        for norm in {linear.norm for linear in linears} - {""}
    }
    for linear in linears:
        codes, scales = _int8(graph, file, linear, factors.get(linear.norm))
        made[linear.name + INT8_CODES], made[linear.name + INT8_SCALES] = codes, scales
    return made


def _factors(
    file: GraphFile, graph: Path, filler: GraphFile, prefill: Path, norm: str
) -> NDArray[np.float32]:
    """What the outputs of ``norm [in]`` are divided by in the prefill graph."""
    name = f"{norm}.weight"
    try:
        own = file.weights[name].read(graph, np.float32)
        smoothed = filler.weights[name + SMOOTHED].read(prefill, np.float32)
        # A channel that the norm drops has no factor.
        ones = np.ones(own.shape, np.float32)
        return np.asarray(np.divide(own, smoothed, out=ones, where=smoothed != 0))
    except (KeyError, ValueError) as error:
        raise BundleError(f"{prefill}: the norm {norm!r} cannot be read", why=str(error)) from None


def _int8(
    graph: Path, file: GraphFile, linear: PrepackedLinear, factors: NDArray[np.float32] | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    node = file.nodes.get(linear.of)
    if node is None or node.op != "MatMulNBits":
        raise BundleError(f"{graph} has no product {linear.of!r} with weights in blocks")
    try:
        bits, block = node.attributes["bits"], node.attributes["block_size"]
        packed = file.weights[node.inputs[1]].read(graph, np.uint8)
        scales = file.weights[node.inputs[2]].read(graph, np.float32)
        zeros = file.weights[node.inputs[3]].read(graph, np.uint8) if _has_zeros(node.inputs) else None
        last = linear.first + linear.out
        if last > node.attributes["N"] or linear.columns != node.attributes["K"] or bits not in (2, 4, 8):
            raise ValueError(f"{linear} is no part of {node}")
        codes = np.empty((linear.columns, linear.out), np.int8)
        steps = np.empty(linear.out, np.float32)
        for start in range(linear.first, last, _ROWS):
            rows = slice(start, min(start + _ROWS, last))
            part = (packed[rows], scales[rows], None if zeros is None else zeros[rows])
            into = slice(rows.start - linear.first, rows.stop - linear.first)
            weight = _dequantized(*part, bits, block)[:, : linear.columns]
            codes[:, into], steps[into] = _rounded(weight if factors is None else weight * factors)
    except (KeyError, IndexError, ValueError) as error:
        raise BundleError(f"{graph}: the weights of {linear.of!r} cannot be read", why=str(error)) from None
    return codes, steps


def _has_zeros(inputs: Sequence[str]) -> bool:
    return len(inputs) > 3 and bool(inputs[3])


def _dequantized(
    packed: NDArray[Any], scales: NDArray[Any], zeros: NDArray[Any] | None, bits: int, block: int
) -> NDArray[np.float32]:
    """Weights ``[rows, blocks · block]`` of codes ``[rows, blocks, bytes]``."""
    rows, blocks, _ = packed.shape
    values = unpacked(packed, bits).astype(np.float32)
    scales = scales.reshape(rows, blocks, 1)
    if zeros is None:
        values -= np.float32(1 << (bits - 1))
    else:
        values -= unpacked(zeros.reshape(rows, -1), bits)[:, :blocks, None].astype(np.float32)
    values *= scales
    return values.reshape(rows, blocks * block)


def _rounded(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes ``[in, rows]`` and scales of ``weight [rows, in]``."""
    absmax = np.abs(weight).max(axis=1)
    step = (np.where(absmax > 0, absmax, _LEVELS) / _LEVELS).astype(np.float32)
    weight /= step[:, None]
    return np.rint(weight, out=weight).astype(np.int8).T, step


def unpacked(packed: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """One code a byte of codes that share bytes along the last axis, the first in the lowest bits."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return np.asarray(codes.reshape(*packed.shape[:-1], -1))


def int8_weights_of(bundle: Bundle) -> dict[str, NDArray[Any]]:
    """Those of the prefill graph of ``bundle``, made in memory; its own weights are hashed before, if nobody
    has yet.

    Raises:
        BundleError: they cannot be made, or the bundle's differ from the manifest.
        OutOfResource: they do not fit in memory.
    """
    assert bundle.prefill is not None
    bundle.check_weights()
    needed, free = int(_MEMORY * bundle.prefill_bytes), free_memory()
    try:
        if needed > free:
            raise MemoryError(f"{needed / 1e6:.0f} MB are needed, and {free / 1e6:.0f} MB are free")
        return make_int8_weights(bundle.path / bundle.prefill.file, bundle.graph, bundle.prefill.linears)
    except MemoryError as error:
        raise OutOfResource(
            f"no memory for the int8 weights of the prefill graph of {bundle.path}",
            why=str(error),
            fix="free some memory; or keep them on disk with: edgepress cache make BUNDLE; or do without, "
            "with other answers: edgepress export CHECKPOINT --prefill none",
        ) from None


def save_prefill(bundle: Bundle, target: Path) -> None:
    """Write the prefill graph of ``bundle`` with its weights to ``target`` and beside it.

    Raises:
        BundleError, OutOfResource: the graph does not load, or the weights cannot be made.
    """
    assert bundle.prefill is not None
    weights = int8_weights_of(bundle)
    save_optimized(bundle.path / bundle.prefill.file, target, packed=False, weights=weights)


def opened_in_memory(
    graph: Path, model: Path, linears: Sequence[PrepackedLinear], *, threads: int | None = None
) -> Any:
    """A session over the prefill graph in the file ``graph``, whose weights are made of the graph ``model``:
    what a proof runs.
    """
    return open_session(
        graph, threads=threads, config=PREFILL, weights=make_int8_weights(graph, model, linears)
    )
