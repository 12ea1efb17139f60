"""The key/value cache of an exported decoder: the type it is stored in, the graph's inputs and outputs that
hold it, and what attention needs to read its codes.

``GroupQueryAttention`` rounds what it appends and reads the whole cache back, new tokens included, so that
prefill, chunks and steps see the same keys and values. int4 is two codes a byte along the channels, the even
one in the low half, each stored as code + 8. In CPU sessions a float16 cache needs float16 queries: they are
cast on the way in and out.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from ....compress.model.block_anatomy import Attention, BlockAnatomy
from ....compress.model.weights import WeightSource
from ....errors import InputError
from ..build import Build
from ..graph_writer import Array

FLOAT: Literal["float32"] = "float32"
# ``--kv``: the cache's type in graphs and buffers. int4 packs two codes a byte.
TYPES: dict[str, str] = {"fp32": FLOAT, "fp16": "float16", "int8": "int8", "int4": "uint8"}
_BITS = {"int8": 8, "int4": 4}
CODES = frozenset(TYPES[name] for name in _BITS)
PACKED = TYPES["int4"]
DTYPES = {
    "float32": ir.DataType.FLOAT,
    "float16": ir.DataType.FLOAT16,
    "int8": ir.DataType.INT8,
    "uint8": ir.DataType.UINT8,
}
_CODE_BITS = {"int8": 8, "uint8": 4}
# Where the scales stand among the inputs of GroupQueryAttention.
SCALES_AT = 12
CODE_ATTRIBUTES = ("kv_cache_bit_width", "k_quant_type", "v_quant_type")


def cache_type(source: WeightSource, name: str, requested: str | None) -> str:
    """The type of the cache: ``requested``, a key of :data:`TYPES`, or when None that of the checkpoint."""
    if requested is not None and source.anatomy.kind == "encoder":
        raise InputError(f"{name} is an encoder: it has no key/value cache", fix="leave --kv out")
    found = source.kv_scheme
    if requested is None:
        return FLOAT if found is None else TYPES[f"int{found.bits}"]
    bits = _BITS.get(requested)
    if bits is not None and (found is None or found.bits != bits):
        has = "a cache in float" if found is None else f"the scales of {found.name}"
        raise InputError(
            f"{name} cannot be exported with an {requested} cache",
            why=f"its scales come from calibration text, and the checkpoint has {has}",
            fix=f"compress the model with the pass {{pass: kv_cache, bits: {bits}}} at the end of the recipe "
            "(w4a16-gptq-kv8 has it), or take --kv fp32 or fp16",
        )
    return TYPES[requested]


def cache_label(source: WeightSource, dtype: str) -> str:
    """What tables append to the weights' scheme for the cache; nothing for float32."""
    if dtype == FLOAT or (source.kv_scheme is None and dtype != TYPES["fp16"]):
        return ""
    return " + KV16" if dtype == TYPES["fp16"] or source.kv_scheme is None else f" + {source.kv_scheme.name}"


def past(build: Build, block: BlockAnatomy) -> tuple[ir.Value, ir.Value]:
    """The graph inputs that hold the block's keys and values."""
    shape, dtype = _shape(build, block, "past_capacity"), DTYPES[build.weights.kv_dtype]
    key = build.graph.input(f"past_key_values.{block.index}.key", dtype, shape)
    return key, build.graph.input(f"past_key_values.{block.index}.value", dtype, shape)


def present(build: Build, block: BlockAnatomy, values: tuple[ir.Value, ir.Value]) -> None:
    """Make ``values``, the extended keys and values of the block, outputs of the graph."""
    shape, dtype = _shape(build, block, "present_capacity"), DTYPES[build.weights.kv_dtype]
    for part, value in zip(("key", "value"), values, strict=True):
        build.graph.output(value, f"present.{block.index}.{part}", dtype, shape)


def codes(build: Build, part: Attention) -> tuple[list[ir.Value | None], dict[str, Any]]:
    """What attention needs beside its usual inputs to work on codes: further inputs, and attributes."""
    scales = build.weights.kv_scales(part)
    if scales is None:
        return [], {}
    mode = "PER_CHANNEL" if scales.scheme.granularity == "per-channel" else "PER_TENSOR"
    bits = _CODE_BITS[build.weights.kv_dtype]
    shape = [1, *scales.key.shape] if scales.scheme.granularity == "per-channel" else [1]

    def initializer(name: str, value: Array) -> ir.Value:
        return build.graph.weight(
            f"{part.module}.{name}", ir.DataType.FLOAT, shape, lambda: value.astype(np.float32).reshape(shape)
        )

    found = [initializer("k_scale", scales.key.numpy()), initializer("v_scale", scales.value.numpy())]
    return [*found], dict(zip(CODE_ATTRIBUTES, (bits, mode, mode), strict=True))


def cast(build: Build, value: ir.Value, to: ir.DataType) -> ir.Value:
    """``value`` as ``to`` where the cache is float16, else as it is."""
    if build.weights.kv_dtype != "float16":
        return value
    return build.graph.node("Cast", f"{value.name}.{to.name.lower()}", [value], to=to)


def _shape(build: Build, block: BlockAnatomy, capacity: str) -> list[int | str]:
    attention = block.attention
    width = attention.head_dim // (2 if build.weights.kv_dtype == "uint8" else 1)
    return ["batch_size", attention.kv_heads, capacity, width]
