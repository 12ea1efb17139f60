"""The proof of an encoder graph: token states, sentence vectors and logits elementwise in float; when
quantized, vectors by cosine and labels by KL.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...compress.text.calibration_images import probe_images
from ...runtime.engine.label_form import LabelForm
from ...runtime.session.session import graph_errors_are_typed, open_session
from ...terminal import ProgressTask
from ..graph.encoder_graph import LOGITS
from ..graph.graph_writer import Opset
from ..job import ExportJob
from .distances import (
    COSINE_DISTANCE,
    KL_MEAN,
    divergence,
    elementwise_bound,
    gate,
    log_softmax,
    noise_bound,
    rounded,
)
from .graphs import exact_session, write_float_graph
from .proof_text import padded, token_rows, token_sentences
from .reference import Reference, hidden_states, label_logits, vectors_of_tower

Floats = NDArray[np.float32]
BATCHES, LENGTHS = (1, 3), (1, 7, 33)
SENTENCES, LONGEST = 16, 64
POOLED = "sentence_embedding"
ENCODER_STEPS = 3
Feeds = dict[str, Any]


def prove_encoder(
    job: ExportJob, graph: Path, max_length: int, work: Path, opset: Opset, task: ProgressTask
) -> dict[str, Any]:
    """Compare ``graph`` with torch; returns the differences for the manifest. ``work`` is for scratch files.

    ``task`` advances :data:`ENCODER_STEPS` times.

    Raises:
        GateFailed: a difference beyond its bound.
    """
    cases, texts = _cases(job, max_length), _sentences(job, max_length)
    task.advance(0, "float graph")
    reference = Reference(job.source)
    float_graph = write_float_graph(job, work, opset, reference.tensor) if job.rounds else graph
    model = reference.model
    result = {"float": _elementwise(open_session(float_graph), model, cases, job, "the float graph")}
    task.advance(1, "quantized graph")
    if not job.rounds:
        task.advance(2)
        return result
    unrounded = [_expected(model, text, job) for text in texts]
    model = reference.round()
    session = open_session(graph)
    found = [_run(session, text) for text in texts]
    head = job.source.anatomy.classifier
    form = None if head is None else LabelForm(head.labelled, head.several)
    result["quantized"] = _as_shipped(found, [_expected(model, text, job) for text in texts], unrounded, form)
    task.advance(1, "quantized weights")
    model = reference.with_float_activations()
    with exact_session(graph) as session:
        result["codes"] = _elementwise(session, model, cases, job, "quantized weights, float activations")
    task.advance(1)
    return result


def form_distance(job: ExportJob, session: Any, cpu: Any, max_length: int, provider: str) -> dict[str, Any]:
    """How far the vectors of a graph in the form of another provider are from those of the CPU's.

    Raises:
        GateFailed: it computes something else.
    """
    distances = [
        1 - float(_vector(_run(session, text)) @ _vector(_run(cpu, text)))
        for text in _sentences(job, max_length)
    ]
    mean = float(np.mean(distances))
    what = f"the mean cosine distance of the graph's vectors on {provider} from those of the CPU's form"
    gate(what, mean, COSINE_DISTANCE)
    return {"cosine_distance_mean": rounded(mean), "bound": COSINE_DISTANCE}


def compare_labels(
    found: Sequence[Floats], reference: Sequence[Floats], unrounded: Sequence[Floats]
) -> dict[str, Any]:
    """How far ``found`` lies from ``reference``, both of each text the logits ``[rows, choices]``;
    ``unrounded`` are torch's without rounding beyond that of the weights.

    Raises:
        GateFailed: farther than rounding explains.
    """
    ours, theirs, exact = ([log_softmax(rows) for rows in texts] for texts in (found, reference, unrounded))
    kl, rounding = (
        float(np.mean(np.concatenate([divergence(*pair) for pair in zip(*pairs, strict=True)])))
        for pairs in ((theirs, ours), (exact, theirs))
    )
    agree = [one.argmax(-1) == other.argmax(-1) for one, other in zip(ours, theirs, strict=True)]
    bound = noise_bound(KL_MEAN, rounding)
    gate("the mean KL divergence of the quantized graph's labels from torch's", kl, bound)
    return {
        "label_kl_mean": rounded(kl),
        "label_kl_of_rounding": rounded(rounding),
        "label_agreement": rounded(float(np.concatenate(agree).mean())),
        "bounds": {"label_kl_mean": rounded(bound)},
    }


def _cases(job: ExportJob, max_length: int) -> list[Feeds]:
    """Batches of rows of unequal length, padded as the model expects, on either side where a decoder embeds;
    of images one and all.
    """
    if job.source.anatomy.patches is not None:
        images = _images(job)
        return [*images[:1], {name: np.concatenate([one[name] for one in images]) for name in images[0]}]
    tower = job.source.anatomy.tower
    longest = min(max(LENGTHS), max_length)
    ids = token_rows(job.path, job.text, max(BATCHES), longest, job.source.anatomy.vocab_size)
    if tower is not None and tower.filled:  # all places are read
        return [{"input_ids": ids[:batch]} for batch in BATCHES]
    pad = job.source.anatomy.position_offset - 1 if job.source.anatomy.position_offset else 0
    cases = []
    for batch in BATCHES:
        for length in sorted({min(length, longest) for length in LENGTHS}):
            cut = [length, max(1, length // 2), length][:batch]
            rows = [ids[row, :valid] for row, valid in enumerate(cut)]
            sides = (False, True) if job.source.anatomy.looks_back and batch > 1 else (False,)
            cases += [padded(rows, pad, left=left) for left in sides]
    return cases


def _sentences(job: ExportJob, max_length: int) -> list[Feeds]:
    """Sentences one by one, so that none is padded; or images."""
    if job.source.anatomy.patches is not None:
        return _images(job)
    longest = min(LONGEST, max_length)
    rows = token_sentences(job.path, job.text, SENTENCES, longest, job.source.anatomy.vocab_size)
    tower = job.source.anatomy.tower
    if tower is not None and tower.filled:
        return [{"input_ids": row[None]} for row in rows]
    return [padded([row], 0) for row in rows]


def _images(job: ExportJob) -> list[Feeds]:
    patches = job.source.anatomy.patches
    assert patches is not None
    return [
        {"pixel_values": batch.input_ids.numpy()} for batch in probe_images(*patches.image, patches.tokens)
    ]


def _run(session: Any, feeds: Feeds) -> dict[str, Floats]:
    inputs = {node.name for node in session.get_inputs()}
    types = {"token_type_ids": np.zeros_like(feeds["input_ids"])} if "token_type_ids" in inputs else {}
    names = [node.name for node in session.get_outputs()]
    with graph_errors_are_typed("the exported graph does not run"):
        return dict(zip(names, session.run(names, {**feeds, **types}), strict=True))


def _expected(model: nn.Module, feeds: Feeds, job: ExportJob) -> dict[str, Floats]:
    hidden = hidden_states(model, feeds)
    expected = {"last_hidden_state": hidden.numpy()}
    if job.source.anatomy.classifier is not None:
        expected[LOGITS] = label_logits(model, feeds).numpy()
    elif job.source.anatomy.tower is not None:
        expected[POOLED] = vectors_of_tower(model, feeds).numpy()
    elif job.pooling is not None and job.pooling.mode is not None:
        mask = torch.from_numpy(_mask(feeds, hidden.shape))
        expected[POOLED] = job.pooling.apply(hidden, mask).numpy()
    return expected


def _mask(feeds: Feeds, shape: Sequence[int]) -> Any:
    """``[batch, tokens]``, of images nothing but ones."""
    return feeds.get("attention_mask", np.ones(shape[:2], np.int64))


def _elementwise(
    session: Any, model: nn.Module, cases: list[Feeds], job: ExportJob, what: str
) -> dict[str, Any]:
    worst = largest = 0.0
    for feeds in cases:
        found, expected = _run(session, feeds), _expected(model, feeds, job)
        real = _mask(feeds, expected["last_hidden_state"].shape).astype(bool)
        for name, values in expected.items():
            chosen = real if values.ndim == 3 else np.ones(len(values), bool)
            worst = float(np.max([worst, np.abs(found[name][chosen] - values[chosen]).max()]))
            largest = max(largest, float(np.abs(values[chosen]).max()))
    bound = elementwise_bound(largest)
    gate(f"the largest difference of an output ({what})", worst, bound)
    return {"max_abs_difference": rounded(worst), "bound": rounded(bound), "cases": len(cases)}


def _vector(outputs: dict[str, Floats]) -> NDArray[np.float64]:
    """A sentence's embedding, or all its token states, as one vector of length 1."""
    vector = outputs.get(POOLED, outputs["last_hidden_state"]).ravel().astype(np.float64)
    return np.asarray(vector / np.linalg.norm(vector))


def _as_shipped(
    found: list[dict[str, Floats]],
    reference: list[dict[str, Floats]],
    unrounded: list[dict[str, Floats]],
    form: LabelForm | None,
) -> dict[str, Any]:
    three = (found, reference, unrounded)
    distances = _distances(*([_vector(outputs) for outputs in texts] for texts in three))
    if form is None:
        return distances
    labels = compare_labels(*([form.rows(out[LOGITS][0]) for out in texts] for texts in three))
    return {**distances, **labels, "bounds": distances["bounds"] | labels["bounds"]}


def _distances(found: list[Any], reference: list[Any], unrounded: list[Any]) -> dict[str, Any]:
    cosines = [float(ours @ theirs) for ours, theirs in zip(found, reference, strict=True)]
    rounding = float(np.mean([1 - float(a @ b) for a, b in zip(unrounded, reference, strict=True)]))
    distance, bound = (
        float(np.mean([1 - cosine for cosine in cosines])),
        noise_bound(COSINE_DISTANCE, rounding),
    )
    gate("the mean cosine distance of the quantized graph's vectors from torch's", distance, bound)
    return {
        "cosine_distance_mean": rounded(distance),
        "cosine_distance_of_rounding": rounded(rounding),
        "cosine_min": float(f"{min(cosines):.7g}"),
        "sentences": len(cosines),
        "bounds": {"cosine_distance_mean": rounded(bound)},
    }
