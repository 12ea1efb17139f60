"""The key/value cache of an exported decoder: the type it is stored in, the graph's inputs and outputs that
hold it, and what attention needs to read its codes.

``GroupQueryAttention`` rounds what it appends and reads the whole cache back, new tokens included, so that
prefill, chunks and steps see the same keys and values. int4 is two codes a byte along the channels, the even
one in the low half, each stored as code + 8. In CPU sessions a float16 cache needs float16 queries: they are
cast on the way in and out.

The caches of an encoder–decoder in codes or in half precision: what is stored of keys and values, and what
``Attention``, which takes floats, is given of them.

Scales stay out of the cache: the queries are multiplied by those of the keys and the result by those of the
values, so that what is stored becomes numbers by a cast. A cast of every token's keys and values costs time
in each step; what it saves is memory. int4 is two codes a
byte along the channels, the even one in the low half, each stored as code + 8, as in decoders.
"""

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
CacheKind = Literal["key", "value"]
KINDS: tuple[CacheKind, CacheKind] = ("key", "value")
_LEAST, _OFFSET, _CODES = -8, 8, 16  # of int4
# Every second number of the last axis.
_SLICE = {"axis": -1, "step": 2, "end": np.iinfo(np.int64).max}


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


def cache_dtype(build: Build) -> ir.DataType:
    """The type of both caches."""
    return DTYPES[build.weights.kv_dtype]


def is_compact(build: Build) -> bool:
    """Whether the caches are no floats that ``Attention`` reads by itself."""
    return build.weights.kv_dtype != FLOAT


def stored_width(build: Build, numbers: int) -> int:
    """How many items of the cache hold so many ``numbers``."""
    return numbers // 2 if build.weights.kv_dtype == PACKED else numbers


def stored(build: Build, part: Attention, kind: CacheKind, value: ir.Value) -> ir.Value:
    """What the cache keeps of ``value [batch, tokens, kv_heads · head_dim]``; the last axis is half as wide
    where two codes share a byte.
    """
    graph, name = build.graph, f"{part.module}.{kind}"
    if not is_compact(build):
        return value
    scale = _scales(build, part, kind, part.kv_heads)
    if scale is None:
        return graph.node("Cast", f"{name}.half", [value], to=cache_dtype(build))
    packed = build.weights.kv_dtype == PACKED
    least, largest = (_LEAST, -1 - _LEAST) if packed else (-128, 127)
    codes = graph.node("Round", f"{name}.rounded", [graph.node("Div", f"{name}.scaled", [value, scale])])
    bounds = [graph.constant(f"cache.{bound}", np.array(bound, np.float32)) for bound in (least, largest)]
    codes = graph.node("Clip", f"{name}.clipped", [codes, *bounds])
    if packed:
        codes = _pairs(build, name, codes)
    return graph.node("Cast", f"{name}.codes", [codes], to=cache_dtype(build))


def _pairs(build: Build, name: str, codes: ir.Value) -> ir.Value:
    """Two codes as one number below 256."""
    graph = build.graph
    axis, step, end = (
        graph.constant(f"pair.{word}", np.array([number], np.int64)) for word, number in _SLICE.items()
    )
    low, high = (
        graph.node("Slice", f"{name}.{half}", [codes, graph.constant(f"pair.{half}", start), end, axis, step])
        for half, start in (("low", np.array([0], np.int64)), ("high", np.array([1], np.int64)))
    )
    codes_of_one = graph.constant("pair.codes", np.array(_CODES, np.float32))
    offset = graph.constant("pair.offset", np.array(_OFFSET * (1 + _CODES), np.float32))
    high = graph.node("Mul", f"{name}.shifted", [high, codes_of_one])
    return graph.node("Sum", f"{name}.pairs", [low, high, offset])


def read(build: Build, name: str, cache: ir.Value, shape: list[int]) -> ir.Value:
    """The numbers of ``cache`` in float32, without its scales; ``shape`` is theirs, 0 for axes that stay as
    they are.
    """
    if not is_compact(build):
        return cache
    graph = build.graph
    if build.weights.kv_dtype != PACKED:
        return graph.node("Cast", f"{name}.read", [cache], to=ir.DataType.FLOAT)
    places = graph.node("Cast", f"{name}.places", [cache], to=ir.DataType.INT32)
    both = np.arange(_CODES * _CODES)
    table = np.stack([both % _CODES, both // _CODES], axis=1).astype(np.float32) - _OFFSET
    pairs = graph.node("Gather", f"{name}.pairs_read", [graph.constant("pair.table", table), places], axis=0)
    whole = graph.constant(f"pair.shape.{'.'.join(map(str, shape))}", np.array(shape, np.int64))
    return graph.node("Reshape", f"{name}.read", [pairs, whole])


def weighted(build: Build, part: Attention, kind: CacheKind, value: ir.Value) -> ir.Value:
    """``value [batch, tokens, heads · head_dim]``, queries or what attention gives, times the scales of the
    keys or of the values.
    """
    scale = _scales(build, part, kind, part.heads)
    return value if scale is None else build.graph.node("Mul", f"{part.module}.{kind}_scaled", [value, scale])


def _scales(build: Build, part: Attention, kind: CacheKind, heads: int) -> ir.Value | None:
    """The scales as a vector over so many ``heads``, or as one number; None where nothing is in codes."""
    found = build.weights.kv_scales(part)
    if found is None:
        return None
    scale = (found.key if kind == "key" else found.value).numpy().astype(np.float32)
    if scale.size > 1:
        by_head = scale.reshape(part.kv_heads, part.head_dim)
        scale = np.repeat(by_head, heads // part.kv_heads, axis=0).reshape(-1)
    suffix = "" if heads == part.kv_heads else ".repeated"
    name = f"{part.module}.{kind[0]}_scale{suffix}"
    return build.graph.weight(name, ir.DataType.FLOAT, list(scale.shape), lambda: scale)
