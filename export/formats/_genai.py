"""What onnxruntime-genai needs to open a decoder bundle as its model folder: its configuration and a graph.

That runtime allocates the logits itself: of one position if the graph declares one, else of every position of
the prompt. Ours keep ``logits_to_keep`` of them, so the bundle holds a second graph with that number
fixed at 1: the last token of each row, wherever its padding is. It reads the same weights file and costs the
bytes of its nodes.

A prompt goes through in chunks, as in our runtime: attention keeps the scores of a whole chunk
(:mod:`..graph.attention.attention`).

Sizes of the cache are read from the graph, layer by layer. A sliding window is in the graph's attention, over
a cache of full length: the configuration's own ``sliding_window`` is for caches that slide, and stays out.
"""

from pathlib import Path
from typing import Any

import onnx_ir as ir

from ...compress.model.anatomy import Anatomy
from ...files.disk import disk_full_is_typed
from ...files.storage import write_json
from ...runtime.engine.decoder import PREFILL_CHUNK

CONFIG = "genai_config.json"
GRAPH = "model.genai.onnx"
_KEPT, _LOGITS = "logits_to_keep", "logits"


def write_genai(graph: Path, anatomy: Anatomy, section: dict[str, Any]) -> None:
    """Write both files beside ``graph``, the bundle's own; ``section`` is the manifest's about the
    decoder.
    """
    write_json(graph.with_name(CONFIG), genai_config(anatomy, section))
    with disk_full_is_typed(graph):
        ir.save(_last_position_only(ir.load(graph)), graph.with_name(GRAPH))


def genai_config(anatomy: Anatomy, section: dict[str, Any]) -> dict[str, Any]:
    """The content of ``genai_config.json``: greedy by default, over one buffer for past and present."""
    attention = anatomy.blocks[0].attention
    ends, pad = section["eos_token_ids"], section["pad_token_id"]
    # Padding of a batch is masked, so that any id serves where the model names none.
    pad = next(iter(ends), 0) if pad is None else pad
    tokens = {"bos_token_id": section["bos_token_id"], "eos_token_id": ends or None, "pad_token_id": pad}
    return {
        "model": {
            "type": "decoder",
            "vocab_size": section["vocab_size"],
            "context_length": section["context_length"],
            **{name: value for name, value in tokens.items() if value is not None},
            "decoder": {
                "filename": GRAPH,
                "session_options": {"provider_options": []},
                "hidden_size": anatomy.hidden_size,
                "head_size": attention.head_dim,
                "num_attention_heads": attention.heads,
                "num_key_value_heads": attention.kv_heads,
                "num_hidden_layers": len(anatomy.blocks),
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": _LOGITS,
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            "do_sample": False,
            "max_length": section["context_length"],
            "min_length": 0,
            "num_beams": 1,
            "num_return_sequences": 1,
            "past_present_share_buffer": True,
            "chunk_size": PREFILL_CHUNK,
        },
    }


def _last_position_only(model: ir.Model) -> ir.Model:
    """``model`` without its input ``logits_to_keep``, whose default stays as a constant."""
    graph = model.graph
    graph.inputs.remove(next(value for value in graph.inputs if value.name == _KEPT))
    logits = next(value for value in graph.outputs if value.name == _LOGITS)
    assert logits.shape is not None
    logits.shape = ir.Shape([logits.shape[0], 1, logits.shape[2]])
    return model
