"""The two graphs of an encoder–decoder, of operators that any ONNX Runtime has but for quantized products.

The encoder's reads a batch of texts, padded on the right, or of sounds, and gives the keys and values that
each block of the decoder reads of them: the cache of what was read. The decoder's is given those and the
cache of what was written so far, which ``Attention`` extends; both may be in codes or in half precision,
:mod:`.cache_io`. All its rows are equally long, since all answers begin at once. Other clients
know another layout, :mod:`.hub_stacks`.
"""

from typing import Literal

import numpy as np
import onnx_ir as ir

from ...compress.model.block_anatomy import Attention, BlockAnatomy
from ...compress.model.graph_limits import require_graph
from .attention.cache_io import KINDS, cache_dtype, read, stored, stored_width, weighted
from .audio_nodes import sound_states, spectra_of_sound
from .build import Build
from .encoder_decoder_nodes import (
    SPECTRA,
    Pair,
    attention,
    cross_of,
    decoded,
    embedded,
    encoded,
    past_shape,
    scores_of_padding,
)
from .hub_stacks import build_hub_decoder, build_hub_encoder
from .linear.linear import project_apart

# Those that edgepress drives, and those of model hubs.
Stack = Literal["encoder", "decoder", "hub_encoder", "hub_decoder"]
INT64, FLOAT = ir.DataType.INT64, ir.DataType.FLOAT
READ = "source_length"  # tokens of the longest text


def build_stack(build: Build, stack: Stack) -> None:
    """Write the graph of one ``stack`` of ``build.anatomy``, an encoder–decoder; ``build.weights`` is left
    with the anatomy of that stack.
    """
    require_graph(build.anatomy)
    whole, (encoder, decoder) = build.anatomy, build.anatomy.stacks()
    build.weights.anatomy = encoder if stack.endswith("encoder") else decoder
    if stack == "encoder":
        _encoder(build, decoder.blocks)
    elif stack == "decoder":
        _decoder(build, masked=encoder.hearing is None)
    elif stack == "hub_encoder":
        build_hub_encoder(build)
    else:
        build_hub_decoder(build, whole)


def _encoder(build: Build, readers: tuple[BlockAnatomy, ...]) -> None:
    graph, anatomy = build.graph, build.anatomy
    if anatomy.hearing is not None:
        spectra = spectra_of_sound(build, anatomy.hearing)
        mask, hidden = None, sound_states(build, anatomy.hearing, spectra)
        build.end_part(SPECTRA, [spectra], [hidden])
    else:
        ids = graph.input("input_ids", INT64, ["batch_size", READ])
        mask = graph.input("attention_mask", INT64, ["batch_size", READ])
        hidden = embedded(build, ids, graph.constant("position.none", np.array(0, np.int64)))
    hidden = encoded(build, hidden, mask)
    for index, reader in enumerate(readers):
        part = cross_of(reader)
        both = project_apart(build, hidden, [part.k, part.v], f"{part.module}.kv", f"{part.module}.split")
        made = [
            graph.node("Identity", f"{part.module}.{kind}", [stored(build, part, kind, value)])
            for kind, value in zip(KINDS, both, strict=True)
        ]
        for kind, one in zip(KINDS, made, strict=True):
            graph.output(one, f"cross.{index}.{kind}", cache_dtype(build), _read_shape(build, part))
        build.end_part(part.module, [hidden], made)


def _decoder(build: Build, *, masked: bool) -> None:
    """``masked`` are texts of unequal length that were read, by their padding."""
    graph, blocks = build.graph, build.anatomy.blocks
    ids = graph.input("input_ids", INT64, ["batch_size", "sequence_length"])
    mask = graph.input("encoder_attention_mask", INT64, ["batch_size", READ]) if masked else None
    pasts = [
        _inputs(build, f"past_key_values.{n}", past_shape(build, b, "past_length"))
        for n, b in enumerate(blocks)
    ]
    caches = [_inputs(build, f"cross.{n}", _read_shape(build, cross_of(b))) for n, b in enumerate(blocks)]
    known = None if mask is None else scores_of_padding(build, ids, mask)

    def reader(index: int, part: Attention, query: ir.Value) -> ir.Value:
        width = part.kv_heads * part.head_dim
        key, value = (
            read(build, f"{part.module}.{kind}", cache, [0, 0, width])
            for kind, cache in zip(KINDS, caches[index], strict=True)
        )
        query = weighted(build, part, "key", query)
        return weighted(build, part, "value", attention(build, part, [query, key, value, known], 1)[0])

    logits, presents = decoded(build, ids, pasts, caches, reader)
    for index, (block, present) in enumerate(zip(blocks, presents, strict=True)):
        for kind, value in zip(("key", "value"), present, strict=True):
            shape = past_shape(build, block, "total_length")
            graph.output(value, f"present.{index}.{kind}", cache_dtype(build), shape)
    graph.output(logits, "logits", FLOAT, ["batch_size", "sequence_length", build.anatomy.vocab_size])


def _inputs(build: Build, name: str, shape: list[int | str]) -> Pair:
    dtype = cache_dtype(build)
    return build.graph.input(f"{name}.key", dtype, shape), build.graph.input(f"{name}.value", dtype, shape)


def _read_shape(build: Build, part: Attention) -> list[int | str]:
    return ["batch_size", READ, stored_width(build, part.kv_heads * part.head_dim)]
