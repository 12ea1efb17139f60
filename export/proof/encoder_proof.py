"""The proof of an encoder graph, block by block: memory holds one block in float32, whatever the model. First
every part alone, then the graph as it ships: token states, sentence vectors and logits elementwise where
nothing is rounded; else vectors by cosine and labels by KL.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...compress.model.anatomy import Anatomy
from ...compress.text.drawn_files import probe_images
from ...runtime.engine.encoder_answers import LabelForm
from ...runtime.session.session import graph_errors_are_typed, open_session
from ...terminal.progress import ProgressTask
from ..graph.build import GraphPart
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
from .encoder_parts_proof import EncoderPartsProof, largest_difference, mask_of, with_types
from .part_graphs import PartGraphs
from .proof_text import padded, token_rows, token_sentences
from .streamed import States
from .streamed_stacks import Feeds, Given, StreamedEncoder, hidden_states, label_logits, vectors_of_tower

Floats = NDArray[np.float32]
BATCHES, LENGTHS = (1, 3), (1, 7, 33)
SENTENCES, LONGEST = 16, 64
POOLED = "sentence_embedding"


def encoder_steps(anatomy: Anatomy) -> float:
    """How far :func:`prove_encoder` advances its task: one for each block, and some at either end."""
    return len(anatomy.blocks) + 3


def prove_encoder(
    job: ExportJob,
    graph: Path,
    parts: tuple[GraphPart, ...],
    max_length: int,
    opset: Opset,
    task: ProgressTask,
) -> dict[str, Any]:
    """Compare ``graph``, which consists of ``parts``, with torch, block by block; returns the differences for
    the manifest.

    ``task`` advances by :func:`encoder_steps`.
    """
    cases, texts = _cases(job, max_length), _sentences(job, max_length)
    task.advance(0, "as it ships")
    session = open_session(graph)
    found = [_run(session, text) for text in texts]
    del session
    task.advance(1)
    model = StreamedEncoder(job.source)
    proof = EncoderPartsProof(model, PartGraphs(job, graph, parts, opset), cases, texts, rounds=job.rounds)
    plain, stored = proof.run(task)
    task.advance(0, "whole graph")
    with model.leaving() as given:
        behind = Behind(given, job)
        proof.behind([behind.of(*pair) for pair in zip(cases, plain, strict=False)], plain)
        ours = [behind.of(*pair) for pair in zip(texts, plain[len(cases) :], strict=True)]
        result = proof.found()
        if job.rounds:
            theirs = [behind.of(*pair) for pair in zip(texts, stored[len(cases) :], strict=True)]
            head = job.source.anatomy.classifier
            form = None if head is None else LabelForm(head.labelled, head.several)
            result["quantized"] = _as_shipped(found, theirs, ours, form)
        else:
            result["float"] |= {"whole": _elementwise(found, ours, texts)}
    task.advance(1)
    return result


def form_distance(job: ExportJob, session: Any, cpu: Any, max_length: int, provider: str) -> dict[str, Any]:
    """How far the vectors of a graph in the form of another provider are from those of the CPU's."""
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
    longest, vocabulary = min(LONGEST, max_length), job.source.anatomy.vocab_size
    rows = token_sentences(job.path, job.text, SENTENCES, longest, vocabulary, job.prompts.in_front())
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
    fed = {name: value for name, value in with_types(feeds).items() if name in inputs}
    names = [node.name for node in session.get_outputs()]
    with graph_errors_are_typed("the exported graph does not run"):
        return dict(zip(names, session.run(names, fed), strict=True))


class Behind:
    """What torch makes of the states that leave the last block."""

    def __init__(self, given: Given, job: ExportJob) -> None:
        self.given, self.job = given, job

    def of(self, feeds: Feeds, states: States) -> dict[str, Floats]:
        """The graph's outputs of ``feeds`` by name, whose ``states`` these are."""
        self.given.states = states.hidden
        model, anatomy = self.given.model, self.job.source.anatomy
        hidden = hidden_states(model, feeds)
        expected = {"last_hidden_state": hidden.numpy()}
        if anatomy.classifier is not None:
            expected[LOGITS] = label_logits(model, feeds).numpy()
        elif anatomy.tower is not None:
            expected[POOLED] = vectors_of_tower(model, feeds).numpy()
        elif self.job.pooling is not None and self.job.pooling.mode is not None:
            mask = torch.from_numpy(mask_of(feeds, hidden.shape))
            expected[POOLED] = self.job.pooling.apply(hidden, mask).numpy()
        return expected


def _elementwise(
    found: list[dict[str, Floats]], expected: list[dict[str, Floats]], texts: list[Feeds]
) -> dict[str, Any]:
    """The whole graph, in which nothing is rounded."""
    worst, largest = largest_difference(found, expected, texts)
    bound = elementwise_bound(largest)
    gate("the largest difference of an output (the whole graph)", worst, bound)
    return {"max_abs_difference": rounded(worst), "bound": rounded(bound)}


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
