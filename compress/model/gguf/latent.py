"""Latent attention whose keys and values come from two tensors a block, as llama.cpp's converter writes them
since April 2025, in the terms of files that have one: each head's keys are turned there, since queries go
through them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ..anatomy import Anatomy
from ..block_anatomy import Attention
from .entry import Entry, Part

IN_TWO = "blk.0.attn_k_b.weight"
_OF_HEADS = {
    "attention.key_length_mla": "attention.key_length",
    "attention.value_length_mla": "attention.value_length",
}


def plain_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """``settings`` with the sizes of heads, where the file has those of the narrow state that all share."""
    found = {name: value for name, value in settings.items() if name not in _OF_HEADS}
    stated = {name: settings[own] for own, name in _OF_HEADS.items() if own in settings}
    if stated:
        stated["attention.head_count_kv"] = settings.get("attention.head_count")
    return found | stated


def in_two(entries: Iterable[Entry], anatomy: Anatomy) -> list[Entry]:
    """``entries`` with two tensors in the place of each that keys and values come from."""
    parts = {
        f"{part.latent.kv_b.name}.weight": part for part in anatomy.attentions() if part.latent is not None
    }
    found: list[Entry] = []
    for entry in entries:
        attention = parts.get(entry.parts[0].stored)
        found += [entry] if attention is None else _two(entry, attention)
    return found


def _two(entry: Entry, attention: Attention) -> list[Entry]:
    stored, latent = entry.parts[0].stored, attention.latent
    assert latent is not None
    rank, heads, values = latent.kv_b.in_features, attention.heads, attention.value_dim
    plain = attention.head_dim - latent.turned
    rows = np.arange(heads * (plain + values)).reshape(heads, -1)
    keys = Part(stored, rows[:, :plain].reshape(-1), shape=(heads, rank, plain), swapped=True)
    read = Part(stored, rows[:, plain:].reshape(-1), shape=(heads, values, rank))
    named = (("attn_k_b", keys), ("attn_v_b", read))
    return [Entry(entry.name.replace("attn_kv_b", name), (part,)) for name, part in named]
