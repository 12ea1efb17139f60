"""The look-up of a quantized embedding in operators of ONNX alone, on the same packed codes.

``GatherBlockQuantized`` is missing from the build of ONNX Runtime for browsers that has WebGPU, which is the
one that transformers.js brings, where it computes in WebAssembly. ``MatMulNBits`` and attention are in it.
"""

from __future__ import annotations

import onnx_ir as ir

from .standard import Rewriter

_LOOKUP = "GatherBlockQuantized"
_BYTE = 8


def to_plain_rows(model: ir.Model) -> None:
    """Change ``model`` in place. A table with zero points keeps the runtime's own operator."""
    for node in list(model.graph):
        if node.op_type == _LOOKUP and len(node.inputs) == 3:
            _look_up(Rewriter(model.graph, node))


def _look_up(change: Rewriter) -> None:
    codes, ids, scales = change.node.inputs
    bits, block = (change.node.attributes[key].as_int() for key in ("bits", "block_size"))
    rows = change.add("Gather", [codes, ids], axis=0)  # [batch, seq, blocks, bytes]
    if bits < _BYTE:
        rows = _unpacked(change, rows, bits, block)
    value = change.add("Cast", [rows], to=ir.DataType.FLOAT.value)
    value = change.add("Sub", [value, change.number(float(1 << (bits - 1)))])
    scale = change.add("Gather", [scales, ids], axis=0)
    change.finish(change.add("Mul", [value, scale]))


def _unpacked(change: Rewriter, rows: ir.Value, bits: int, block: int) -> ir.Value:
    """One code a byte, the first in the lowest bits."""
    mask, last, parts = change.byte((1 << bits) - 1), change.shape(-1), list[ir.Value | None]()
    for shift in range(0, _BYTE, bits):
        part = rows if not shift else change.add("BitShift", [rows, change.byte(shift)], direction="RIGHT")
        parts.append(change.add("Unsqueeze", [change.add("BitwiseAnd", [part, mask]), last]))
    together = change.add("Concat", parts, axis=-1)
    return change.add("Reshape", [together, change.shape(0, 0, 0, block)])
