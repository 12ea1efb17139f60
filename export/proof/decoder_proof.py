"""The proof of a decoder graph: elementwise in float, as distributions when quantized, and token by token.

One torch pass over a few rows serves every batch, length and cache depth at once: attention is causal, so
that the logits of a prefix are a prefix of the logits.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ...compress.model.anatomy import module_name
from ...runtime.bundle.manifest import DecoderSection
from ...runtime.engine.decoder import Decoder
from ...runtime.session.session import open_session
from ...terminal import ProgressTask
from ..graph.attention.cache_io import CODES
from ..graph.graph_writer import Opset
from ..job import ExportJob
from .distances import compare, elementwise_bound, gate, noise_bound, rounded
from .drive import GraphDriver, Ids
from .graphs import exact_session, write_float_graph
from .proof_text import token_rows
from .reference import Floats, Reference, float32_rounding, logits, with_rounded_activations

BATCHES, LENGTHS, DEPTHS = (1, 3), (1, 7, 33), (0, 1, 63)
GREEDY_TOKENS, PROMPT = 64, 16
DECODER_STEPS = 4


def prove_decoder(
    job: ExportJob, graph: Path, section: DecoderSection, work: Path, opset: Opset, task: ProgressTask
) -> dict[str, Any]:
    """Compare ``graph`` with torch; returns the differences for the manifest. ``work`` is for scratch files.

    ``task`` advances :data:`DECODER_STEPS` times.

    Raises:
        GateFailed: a difference beyond its bound.
    """
    length = min(max(LENGTHS) + max(DEPTHS), section.context_length)
    ids = token_rows(job.path, job.text, max(BATCHES), length, section.vocab_size)
    task.advance(0, "float graph")
    torch_model = Reference(job.source)
    float_graph = write_float_graph(job, work, opset, torch_model.tensor) if job.rounds else graph
    model = torch_model.model
    reference = logits(model, ids)
    driver = GraphDriver(open_session(float_graph))
    result: dict[str, Any] = {"float": _elementwise(driver, ids, reference, model)}
    task.advance(1, "greedy continuation")
    plain = replace(section, kv_dtype="float32")
    result["greedy"] = _greedy(driver, plain, model, ids[0], result["float"]["bound"])
    task.advance(1, "quantized graph")
    if not job.rounds:
        task.advance(2)
        return result
    del driver
    return result | _quantized(job, torch_model, graph, section, ids, reference, task)


def _quantized(
    job: ExportJob,
    torch_model: Reference,
    graph: Path,
    section: DecoderSection,
    ids: Ids,
    unrounded: Floats,
    task: ProgressTask,
) -> dict[str, Any]:
    model = torch_model.round(cache=job.kv_dtype in CODES)
    reference = logits(model, ids)
    shipped = GraphDriver(open_session(graph))
    agreement = rounded(float((_gaps(shipped, section, model, ids[0]) == 0).mean()))
    names = [module_name(job.source.anatomy, name) for name in job.source.schemes]
    quantized = compare(
        shipped.logits(ids),
        reference,
        unrounded,
        ids,
        lambda: logits(with_rounded_activations(model, names), ids),
    )
    quantized["greedy_agreement"] = agreement
    del shipped
    task.advance(1, "quantized weights")
    model = torch_model.with_float_activations()
    reference = logits(model, ids[:1])
    with exact_session(graph) as session:
        found = GraphDriver(session).logits(ids[:1])
    worst = float(np.abs(found - reference).max())
    codes = _within("a logit with quantized weights and float activations", worst, reference, model, ids[:1])
    task.advance(1)
    return {"quantized": quantized, "codes": codes}


def _elementwise(driver: GraphDriver, ids: Ids, reference: Floats, model: nn.Module) -> dict[str, Any]:
    worst, cases = 0.0, 0
    length = ids.shape[1]
    for batch in BATCHES:
        for depth in DEPTHS:
            for new in LENGTHS:
                # GroupQueryAttention extends the cache of a whole batch one token at a time only.
                if depth + new > length or (batch > 1 and depth and new > 1):
                    continue
                ragged = [new, max(1, new // 2), new][:batch] if depth == 0 else [depth + new] * batch
                found = driver.logits(ids[:batch, : depth + new], depth=depth, lengths=ragged)
                for row, valid in enumerate(ragged):
                    difference = found[row, : valid - depth] - reference[row, depth:valid]
                    worst = float(np.max([worst, np.abs(difference).max()]))
                cases += 1
    return _within("a logit of the float graph", worst, reference, model, ids) | {"cases": cases}


def _within(what: str, worst: float, reference: Floats, model: nn.Module, ids: Ids) -> dict[str, Any]:
    bound = elementwise_bound(float(np.abs(reference).max()))
    found: dict[str, Any] = {}
    if worst > bound:
        # A model may amplify the last digit of its sums more than most: ask how much it does so.
        rounding = float32_rounding(model, ids, reference)
        bound = noise_bound(bound, rounding)
        found["float32_rounding"] = rounded(rounding)
    gate(f"the largest difference of {what}", worst, bound)
    return found | {"max_abs_difference": rounded(worst), "bound": rounded(bound)}


def _greedy(
    driver: GraphDriver, section: DecoderSection, model: nn.Module, ids: Ids, bound: float
) -> dict[str, Any]:
    # Two logits that are each off by the bound may change places when they are closer than twice that.
    margin = 2 * bound
    gaps = _gaps(driver, section, model, ids)
    gate("the largest gap to torch's choice in a greedy continuation", float(gaps.max()), margin)
    return {"tokens": len(gaps), "near_ties": int((gaps > 0).sum()), "tie_margin": rounded(margin)}


def _gaps(driver: GraphDriver, section: DecoderSection, model: nn.Module, ids: Ids) -> Floats:
    """Continue the start of ``ids`` greedily, token by token over the bound cache.

    For each token, how far torch's logit for it lies below torch's largest, given the same tokens before it:
    0 where torch would choose it too.
    """
    steps = min(GREEDY_TOKENS, section.context_length - 1)
    prompt = ids[: min(PROMPT, section.context_length - steps)]
    decoder = Decoder(driver.session, section)
    chosen = [int(decoder.prefill(prompt.tolist(), new_tokens=steps).argmax())]
    while len(chosen) < steps:
        chosen.append(int(decoder.step(chosen[-1]).argmax()))
    path = np.concatenate([prompt, np.array(chosen[:-1], np.int64)])
    expected = logits(model, path[None])[0, len(prompt) - 1 :]
    return np.asarray(expected.max(-1) - expected[np.arange(steps), chosen], np.float32)
