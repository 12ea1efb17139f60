"""How an exported decoder caches keys and values: as its checkpoint has scales for, or as was asked."""

from __future__ import annotations

from typing import Literal

from ....compress.model.weights import WeightSource
from ....errors import InputError

FLOAT: Literal["float32"] = "float32"
# ``--kv``: the cache's type in graphs and buffers. int4 packs two codes a byte.
TYPES: dict[str, str] = {"fp32": FLOAT, "fp16": "float16", "int8": "int8", "int4": "uint8"}
_BITS = {"int8": 8, "int4": 4}
CODES = frozenset(TYPES[name] for name in _BITS)


def cache_type(source: WeightSource, name: str, asked: str | None) -> str:
    """The type of the cache: ``asked``, a key of :data:`TYPES`, or as the checkpoint ``name`` says when None.

    Raises:
        InputError: an encoder, or codes that the checkpoint has no scales for.
    """
    if asked is not None and source.anatomy.kind != "decoder":
        raise InputError(f"{name} is an encoder: it has no key/value cache", fix="leave --kv out")
    found = source.kv_scheme
    if asked is None:
        return FLOAT if found is None else TYPES[f"int{found.bits}"]
    bits = _BITS.get(asked)
    if bits is not None and (found is None or found.bits != bits):
        has = "a cache in float" if found is None else f"the scales of {found.name}"
        raise InputError(
            f"{name} cannot be exported with an {asked} cache",
            why=f"its scales come from calibration text, and the checkpoint has {has}",
            fix=f"compress the model with the pass {{pass: kv_cache, bits: {bits}}} at the end of the recipe "
            "(w4a16-gptq-kv8 has it), or take --kv fp32 or fp16",
        )
    return TYPES[asked]


def cache_label(source: WeightSource, dtype: str) -> str:
    """What tables append to the weights' scheme for the cache; nothing for float32."""
    if dtype == FLOAT or (source.kv_scheme is None and dtype != TYPES["fp16"]):
        return ""
    return " + KV16" if dtype == TYPES["fp16"] or source.kv_scheme is None else f" + {source.kv_scheme.name}"
