"""The proof of a decoder graph: elementwise in float, as distributions when quantized, and token by token.

One torch pass over a few rows answers for every batch, length and cache depth at once: attention is causal, so that the
logits of a prefix are a prefix of the logits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.decoder import Decoder
from ...runtime.manifest import DecoderSection
from ...runtime.session import open_session
from ...terminal import Task
from ..job import ExportJob
from ..opset import Opset
from .bounds import KL_MEAN, PERPLEXITY_RATIO, TOP1, elementwise_bound, gate, rounded
from .drive import GraphDriver, Ids
from .graphs import exact_graph, write_float_graph
from .reference import float_model, logits, quantized_model
from .tokens import rows as token_rows

BATCHES, LENGTHS, DEPTHS = (1, 3), (1, 7, 33), (0, 1, 63)
GREEDY_TOKENS, PROMPT = 64, 16
STEPS = 4
Floats = NDArray[np.float32]


def prove_decoder(
    job: ExportJob, graph: Path, section: DecoderSection, work: Path, opset: Opset, task: Task
) -> dict[str, Any]:
    """Compare ``graph`` with torch and return the measured differences for the manifest; ``work`` is for scratch files.

    ``task`` advances :data:`STEPS` times.

    Raises:
        GateFailed: a difference beyond its bound.
    """
    anatomy = job.source.anatomy
    length = min(max(LENGTHS) + max(DEPTHS), section.context_length)
    ids = token_rows(job.path, job.text, max(BATCHES), length, section.vocab_size)
    quantized = bool(job.source.schemes) or job.source.embedding_scheme is not None
    task.advance(0, "float graph")
    float_graph = write_float_graph(job, work, opset) if quantized else graph
    model = float_model(job.path)
    reference = logits(model, ids)
    driver = GraphDriver(open_session(float_graph), anatomy)
    result: dict[str, Any] = {"float": _elementwise(driver, ids, reference)}
    task.advance(1, "greedy continuation")
    bound = elementwise_bound(float(np.abs(reference).max()))
    steps = min(GREEDY_TOKENS, section.context_length - 2)
    prompt = ids[0, : min(PROMPT, section.context_length - steps)]
    result["greedy"] = _greedy(driver, section, model, prompt, steps, margin=2 * bound)
    task.advance(1, "quantized graph")
    if quantized:
        del driver
        model = quantized_model(job.path)
        reference = logits(model, ids)
        if not any(scheme.activations for scheme in job.source.schemes.values()):
            with exact_graph(graph) as path:
                exact = GraphDriver(open_session(path), anatomy)
                result["codes"] = _exact(exact, ids, reference)
        task.advance(1, "quantized graph as shipped")
        shipped = GraphDriver(open_session(graph), anatomy)
        result["quantized"] = _distributions(shipped.logits(ids), reference, ids)
        agreed = _teacher_forced(shipped, section, model, prompt, steps)
        result["quantized"]["greedy_agreement"] = rounded(float((agreed == 0).mean()))
        task.advance(1)
    else:
        task.advance(2)
    return result


def _elementwise(driver: GraphDriver, ids: Ids, reference: Floats) -> dict[str, Any]:
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
    return _within("the largest difference of a logit of the float graph", worst, reference) | {
        "cases": cases
    }


def _exact(driver: GraphDriver, ids: Ids, reference: Floats) -> dict[str, Any]:
    worst = float(np.abs(driver.logits(ids[:1]) - reference[:1]).max())
    return _within("the largest difference of a logit with quantized weights", worst, reference)


def _within(what: str, worst: float, reference: Floats) -> dict[str, Any]:
    largest = float(np.abs(reference).max())
    bound = elementwise_bound(largest)
    gate(what, worst, bound)
    return {
        "max_abs_difference": rounded(worst),
        "bound": rounded(bound),
        "largest_logit": rounded(largest),
    }


def _greedy(
    driver: GraphDriver, section: DecoderSection, model: Any, prompt: Ids, steps: int, *, margin: float
) -> dict[str, Any]:
    gaps = _teacher_forced(driver, section, model, prompt, steps)
    gate("the largest gap to torch's choice in a greedy continuation", float(gaps.max()), margin)
    return {"tokens": steps, "near_ties": int((gaps > 0).sum()), "tie_margin": rounded(margin)}


def _teacher_forced(
    driver: GraphDriver, section: DecoderSection, model: Any, prompt: Ids, steps: int
) -> Floats:
    """Continue ``prompt`` greedily, token by token over the bound cache. For each token, how far torch's logit for it
    lies below torch's largest, given the same tokens before it: 0 where torch would choose it too.
    """
    decoder = Decoder(driver.session, section)
    chosen = [int(decoder.prefill(prompt.tolist(), new_tokens=steps).argmax())]
    while len(chosen) < steps:
        chosen.append(int(decoder.step(chosen[-1]).argmax()))
    path = np.concatenate([prompt, np.array(chosen[:-1], np.int64)])
    expected = logits(model, path[None])[0, len(prompt) - 1 :]
    return np.asarray(expected.max(-1) - expected[np.arange(steps), chosen], np.float32)


def _log_softmax(values: Floats) -> NDArray[np.float64]:
    shifted = values.astype(np.float64) - values.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def _distributions(found: Floats, reference: Floats, ids: Ids) -> dict[str, Any]:
    """Mean KL divergence, top-1 agreement and ratio of perplexities over all positions, a row at a time."""
    divergences, agreements, surprises = [], [], []
    for row in range(len(ids)):
        ours, theirs = _log_softmax(found[row]), _log_softmax(reference[row])
        divergences.append((np.exp(theirs) * (theirs - ours)).sum(-1))
        agreements.append(ours.argmax(-1) == theirs.argmax(-1))
        following = (np.arange(ids.shape[1] - 1), ids[row, 1:])
        surprises.append(theirs[:-1][following] - ours[:-1][following])
    divergence, agreement = float(np.mean(divergences)), float(np.mean(agreements))
    ratio = float(np.exp(np.mean(surprises)))
    gate("the mean KL divergence of the quantized graph from torch", divergence, KL_MEAN)
    gate("the top-1 agreement of the quantized graph with torch", agreement, TOP1, at_least=True)
    gate("the perplexity of the quantized graph over torch's", ratio, PERPLEXITY_RATIO)
    return {
        "kl_mean": rounded(divergence),
        "top1_agreement": rounded(agreement),
        "perplexity_ratio": rounded(ratio),
        "positions": int(ids.size),
        "bounds": {"kl_mean": KL_MEAN, "top1_agreement": TOP1, "perplexity_ratio": PERPLEXITY_RATIO},
    }
