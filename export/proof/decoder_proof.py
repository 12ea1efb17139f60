"""The proof of a decoder graph, block by block: memory holds one block in float32, whatever the model.

First every part alone, then the whole graph as it ships. One torch pass over a few rows serves all of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...compress.model.anatomy import Anatomy
from ...runtime.bundle.graph_sections import DecoderSection
from ...terminal.progress import ProgressTask
from ..graph.build import GraphPart
from ..graph.graph_writer import Opset
from ..job import ExportJob
from .part_graphs import PartGraphs
from .parts_proof import BATCHES, DEPTHS, LENGTHS, PartsProof
from .proof_text import token_rows
from .replies import replies_of
from .streamed import StreamedModel
from .whole_proof import Continuation, prove_whole

# For the time left: how many weights of a block take the time of one logit's comparison with torch.
_LOGIT = 480


def decoder_steps(anatomy: Anatomy) -> float:
    """How far :func:`prove_decoder` advances its task: about one for each block, and one at either end."""
    return len(anatomy.blocks) + 2 + sum(_whole_steps(anatomy))


def _whole_steps(anatomy: Anatomy) -> tuple[float, float]:
    """What the whole graph costs in blocks: its continuation before the parts, and its logits after them."""
    count = len(anatomy.blocks)
    weights = sum(one.out_features * one.in_features for one in anatomy.linears()) / count
    return count / 7, count / 6 + _LOGIT * anatomy.vocab_size / weights


def prove_decoder(
    job: ExportJob,
    graph: Path,
    parts: tuple[GraphPart, ...],
    section: DecoderSection,
    opset: Opset,
    task: ProgressTask,
) -> dict[str, Any]:
    """Compare ``graph``, which consists of ``parts``, with torch; returns the differences for the manifest.

    ``task`` advances by :func:`decoder_steps`.
    """
    before, after = _whole_steps(job.source.anatomy)
    length = min(max(LENGTHS) + max(DEPTHS), section.context_length)
    rows = token_rows(job.path, job.text, max(BATCHES), length, section.vocab_size)
    continued = Continuation.of(graph, section, rows[0], task, before)
    ids = np.concatenate([rows, continued.row(length)])
    model = StreamedModel(job.source, job.kv_dtype)
    proof = PartsProof(model, PartGraphs(job, graph, parts, opset), ids, rounds=job.rounds)
    last = proof.run(task)
    task.advance(0, "whole graph")
    whole = prove_whole(graph, model, ids, continued, last, rounds=job.rounds)
    task.advance(after)
    found = {**proof.found(), "greedy": whole.pop("greedy")}
    replies = replies_of(job, graph, section)
    if replies is not None:
        found["replies"] = replies
    name = "quantized" if job.rounds else "float"
    return {**found, name: found.get(name, {}) | whole}
