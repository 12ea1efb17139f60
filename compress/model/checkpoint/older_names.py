"""Names under which tensors were published before transformers renamed them, and does so on every load: the
reader knows them by the new ones alone.

Where transformers makes several matrices of one, each is so many of its rows, and so many of its bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ....errors import CheckpointError
from .shards import Location

_OF_ALL = {"LayerNorm.gamma": ("LayerNorm.weight",), "LayerNorm.beta": ("LayerNorm.bias",)}
# By model type: what a name has in it, and what the names of its parts have there.
_OF_FAMILIES: dict[str, dict[str, tuple[str, ...]]] = {
    "nomic_bert": {
        "encoder.layers.": ("layers.",),
        "emb_ln.": ("embeddings.LayerNorm.",),
        ".attn.Wqkv.": (".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj."),
        ".attn.out_proj.": (".self_attn.o_proj.",),
        ".fc11.": (".up_proj.",),
        ".fc12.": (".gate_proj.",),
        ".fc2.": (".down_proj.",),
        ".norm1.": (".post_attention_layernorm.",),
        ".norm2.": (".post_mlp_layernorm.",),
    },
    "gte": {
        "new.": ("",),
        "encoder.layer.": ("layers.",),
        ".attention.qkv_proj.": (".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj."),
        ".attention.o_proj.": (".self_attn.o_proj.",),
        ".mlp.up_gate_proj.": (".mlp.up_proj.", ".mlp.gate_proj."),
        ".attn_ln.": (".post_attention_layernorm.",),
        ".mlp_ln.": (".post_mlp_layernorm.",),
    },
    "vit": {
        "encoder.layer.": ("layers.",),
        ".attention.attention.query.": (".attention.q_proj.",),
        ".attention.attention.key.": (".attention.k_proj.",),
        ".attention.attention.value.": (".attention.v_proj.",),
        ".attention.output.dense.": (".attention.o_proj.",),
        ".intermediate.dense.": (".mlp.fc1.",),
        ".output.dense.": (".mlp.fc2.",),
    },
    "dinov2": {
        ".attention.attention.query.": (".attention.q_proj.",),
        ".attention.attention.key.": (".attention.k_proj.",),
        ".attention.attention.value.": (".attention.v_proj.",),
        ".attention.output.dense.": (".attention.o_proj.",),
        ".mlp.weights_in.": (".mlp.gate_proj.", ".mlp.up_proj."),
        ".mlp.weights_out.": (".mlp.down_proj.",),
    },
}


def modern_names(tensors: Mapping[str, Location], config: Mapping[str, Any]) -> dict[str, Location]:
    """``tensors`` of a model with this ``config`` by the names that transformers gives them."""
    known = _OF_ALL | _OF_FAMILIES.get(str(config.get("model_type")), {})
    found: dict[str, Location] = {}
    for name, location in tensors.items():
        for modern, part in _parts(name, location, known):
            if modern in found:
                raise CheckpointError(f"{location.path} holds {modern!r} under its old name and its new one")
            found[modern] = part
    return found


def _parts(
    name: str, location: Location, known: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[str, Location]]:
    names = [name]
    for old, new in known.items():
        names = [one.replace(old, each) for one in names for each in (new if old in one else (old,))]
    entry, count = location.entry, len(names)
    if count == 1:
        yield names[0], location
        return
    rows, size = entry.shape[0] // count if entry.shape else 0, (entry.end - entry.start) // count
    if rows == 0 or entry.shape[0] % count:
        raise CheckpointError(
            f"tensor {name!r} has shape {list(entry.shape)}, which {count} parts do not share evenly"
        )
    for index, one in enumerate(names):
        start = entry.start + index * size
        part = replace(entry, shape=(rows, *entry.shape[1:]), start=start, end=start + size)
        yield one, replace(location, entry=part)
