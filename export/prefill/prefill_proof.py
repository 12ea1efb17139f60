"""The proof of a prefill graph: in float32 it fills the cache as the model's own graph does, elementwise; as
shipped, the model's logits after it stay near those after the model's own graph.

It is an addition that a bundle can do without: where its rounding moves the model farther than the proof of
the model's own graph allows, it is left out and the manifest records that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.bundle.manifest import PrepackedLinear
from ...runtime.prepack.int8_weights import opened_in_memory
from ...runtime.session.session import graph_errors_are_typed, open_session
from ..graph.build import WeightView
from ..graph.graph_writer import Opset
from ..job import ExportJob
from ..proof.distances import (
    KL_MEAN,
    divergence,
    elementwise_bound,
    gate,
    log_softmax,
    noise_bound,
    rounded,
)
from ..proof.drive import GraphDriver, Ids, presents
from ..proof.graphs import write_float_graph
from ..proof.proof_text import token_rows
from .prefill_graph import write_prefill

CASES = ((0, 1), (0, 33), (1, 7), (63, 33))  # tokens that are cached, and new ones
FILLED, AFTER = 128, 64


def prove_prefill(
    job: ExportJob, graph: Path, section: dict[str, Any], vocab_size: int, opset: Opset, work: Path
) -> dict[str, Any]:
    """For the manifest: ``status`` (``passed`` or ``left out``) and the differences; ``graph`` is the model's
    own, beside which the prefill graph lies. ``work`` is for scratch files.

    Raises:
        GateFailed: the graph fills the cache with something else.
    """
    context = job.source.anatomy.max_positions
    ids = token_rows(job.path, job.text, 1, min(FILLED + AFTER, context), vocab_size)
    result: dict[str, Any] = {"float": _elementwise(job, ids, opset, work)}
    linears = [PrepackedLinear(**linear) for linear in section["linears"]]
    filler = opened_in_memory(graph.with_name(section["file"]), graph, linears)
    filled = ids.shape[1] * FILLED // (FILLED + AFTER)
    driver = GraphDriver(open_session(graph))
    reference = driver.logits(ids, depth=filled)
    found = driver.logits(ids, depth=filled, filler=filler)
    ours, theirs = log_softmax(found[0]), log_softmax(reference[0])
    kl = float(divergence(theirs, ours).mean())
    return result | {
        "kl_mean": rounded(kl),
        "top1_agreement": rounded(float((ours.argmax(-1) == theirs.argmax(-1)).mean())),
        "tokens": {"filled": filled, "compared": len(ours)},
    }


def judged(proof: dict[str, Any], rounding: float) -> dict[str, Any]:
    """``proof`` with its verdict, where torch's own rounding moves the model by a KL divergence of
    ``rounding``.
    """
    bound = noise_bound(KL_MEAN, rounding)
    near = proof["kl_mean"] <= bound
    return {"status": "passed" if near else "left out", **proof, "bounds": {"kl_mean": rounded(bound)}}


def _elementwise(job: ExportJob, ids: Ids, opset: Opset, work: Path) -> dict[str, Any]:
    model = write_float_graph(job, work / "prefill", opset)
    found = write_prefill(WeightView(job.source, as_float=True), opset, model)
    filler, driver = open_session(model.with_name(found["file"])), GraphDriver(open_session(model))
    worst = largest = 0.0
    cases = [(depth, new) for depth, new in CASES if depth + new <= ids.shape[1]]
    for depth, new in cases:
        part = ids[:, : depth + new]
        before = driver.cache(part, depth)
        reference = driver.cache(part, depth + new)
        feeds = {"input_ids": part[:, depth:], "attention_mask": np.ones_like(part), **before}
        with graph_errors_are_typed("the prefill graph does not run"):
            filled = filler.run(presents(before), feeds)
        for values, other in zip(filled, reference.values(), strict=True):
            worst = float(np.max([worst, np.abs(values - other).max()]))
            largest = max(largest, float(np.abs(other).max()))
    bound = elementwise_bound(largest)
    gate("the largest difference of a key or value in the prefill graph", worst, bound)
    return {"max_abs_difference": rounded(worst), "bound": rounded(bound), "cases": len(cases)}
