"""The proof of an encoder graph: token states and sentence vectors elementwise in float, by cosine when quantized."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ...compress.pooling import Pooling
from ...runtime.session import graph_errors_are_typed, open_session
from ...terminal import Task
from ..job import ExportJob
from ..opset import Opset
from .bounds import COSINE, elementwise_bound, gate, rounded
from .graphs import exact_graph, write_float_graph
from .reference import float_model, hidden_states, quantized_model
from .tokens import padded
from .tokens import rows as token_rows
from .tokens import sentences as token_sentences

BATCHES, LENGTHS = (1, 3), (1, 7, 33)
SENTENCES, LONGEST = 16, 64
STEPS = 3
Floats = NDArray[np.float32]
Feeds = dict[str, Any]


def prove_encoder(
    job: ExportJob, graph: Path, max_length: int, work: Path, opset: Opset, task: Task
) -> dict[str, Any]:
    """Compare ``graph`` with torch and return the measured differences for the manifest; ``work`` is for scratch files.

    ``task`` advances :data:`STEPS` times.

    Raises:
        GateFailed: a difference beyond its bound.
    """
    cases = _cases(job, max_length)
    quantized = bool(job.source.schemes) or job.source.embedding_scheme is not None
    task.advance(0, "float graph")
    float_graph = write_float_graph(job, work, opset) if quantized else graph
    model = float_model(job.path)
    pooling = job.pooling
    result: dict[str, Any] = {
        "float": _elementwise(open_session(float_graph), model, cases, pooling, "float graph")
    }
    task.advance(1, "quantized graph")
    if not quantized:
        task.advance(2)
        return result
    model = quantized_model(job.path)
    if not any(scheme.activations for scheme in job.source.schemes.values()):
        with exact_graph(graph) as path:
            result["codes"] = _elementwise(open_session(path), model, cases, pooling, "quantized weights")
    task.advance(1, "quantized graph as shipped")
    batch = token_sentences(
        job.path, job.text, SENTENCES, min(LONGEST, max_length), job.source.anatomy.vocab_size
    )
    result["quantized"] = _cosines(open_session(graph), model, [_feeds(job, row) for row in batch], pooling)
    task.advance(1)
    return result


def _cases(job: ExportJob, max_length: int) -> list[Feeds]:
    """Batches of rows of unequal length, padded as the model expects."""
    longest = min(max(LENGTHS), max_length)
    ids = token_rows(job.path, job.text, max(BATCHES), longest, job.source.anatomy.vocab_size)
    pad = job.source.anatomy.position_offset - 1 if job.source.anatomy.position_offset else 0
    cases = []
    for batch in BATCHES:
        for length in sorted({min(length, longest) for length in LENGTHS}):
            cut = [length, max(1, length // 2), length][:batch]
            cases.append(padded([ids[row, :valid] for row, valid in enumerate(cut)], pad))
    return cases


def _feeds(job: ExportJob, ids: NDArray[np.int64]) -> Feeds:
    return padded([ids], 0)


def _run(session: Any, feeds: Feeds) -> dict[str, Floats]:
    inputs = {node.name for node in session.get_inputs()}
    types = {"token_type_ids": np.zeros_like(feeds["input_ids"])} if "token_type_ids" in inputs else {}
    names = [node.name for node in session.get_outputs()]
    with graph_errors_are_typed("the exported graph does not run"):
        return dict(zip(names, session.run(names, {**feeds, **types}), strict=True))


def _expected(model: nn.Module, feeds: Feeds, pooling: Pooling | None) -> dict[str, Floats]:
    import torch

    hidden = hidden_states(model, feeds)
    expected = {"last_hidden_state": hidden.numpy()}
    if pooling is not None and pooling.mode is not None:
        mask = torch.from_numpy(feeds["attention_mask"])
        expected["sentence_embedding"] = pooling.apply(hidden, mask).numpy()
    return expected


def _elementwise(
    session: Any, model: nn.Module, cases: list[Feeds], pooling: Pooling | None, what: str
) -> dict[str, Any]:
    worst = largest = 0.0
    for feeds in cases:
        found, expected = _run(session, feeds), _expected(model, feeds, pooling)
        real = feeds["attention_mask"].astype(bool)
        for name, values in expected.items():
            chosen = real if name == "last_hidden_state" else slice(None)
            difference = np.abs(found[name][chosen] - values[chosen])
            worst = float(np.max([worst, difference.max()]))
            largest = max(largest, float(np.abs(values[chosen]).max()))
    bound = elementwise_bound(largest)
    gate(f"the largest difference of an output ({what})", worst, bound)
    return {"max_abs_difference": rounded(worst), "bound": rounded(bound), "cases": len(cases)}


def _cosines(session: Any, model: nn.Module, batch: list[Feeds], pooling: Pooling | None) -> dict[str, Any]:
    cosines = []
    for feeds in batch:
        found, expected = _run(session, feeds), _expected(model, feeds, pooling)
        name = "sentence_embedding" if "sentence_embedding" in expected else "last_hidden_state"
        ours, theirs = found[name].ravel().astype(np.float64), expected[name].ravel().astype(np.float64)
        cosines.append(float(ours @ theirs / (np.linalg.norm(ours) * np.linalg.norm(theirs))))
    lowest = float(np.min(cosines))
    gate("the lowest cosine between a sentence's outputs and torch's", lowest, COSINE, at_least=True)
    return {
        "cosine_mean": float(f"{np.mean(cosines):.7g}"),
        "cosine_min": float(f"{lowest:.7g}"),
        "sentences": len(cosines),
        "bounds": {"cosine_min": COSINE},
    }
