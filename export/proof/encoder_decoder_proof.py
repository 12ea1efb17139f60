"""The proof of the two graphs of an encoder–decoder, block by block: every part alone, then both as they
ship, driven by the runtime that ships them: logits as distributions, or elementwise where nothing is rounded,
and greedy answers side by side. Memory holds one block in float32, whatever the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ...compress.model.anatomy import Anatomy
from ...compress.model.skeleton import Head
from ...runtime.bundle.graph_sections import EncoderDecoderSection
from ...runtime.engine.encoder_decoder import EncoderDecoder
from ...runtime.session.session import open_session
from ...terminal.progress import ProgressTask
from ..graph.build import GraphPart
from ..graph.encoder_decoder_graph import Stack
from ..graph.graph_writer import Opset
from ..job import ExportJob
from .distances import clear_margin, compare, elementwise_bound, gate, rounded
from .drive import Floats
from .encoder_decoder_cases import Case, case_of, sentences, texts_of
from .pair_parts_proof import PairPartsProof, PairStreams
from .part_graphs import PartGraphs
from .streamed_stacks import StreamedPair
from .whole_proof import LogitRows

_ANSWERS, _TOKENS = 3, 32

# Of the decoder's graph and the encoder's.
Parts = tuple[tuple[GraphPart, ...], tuple[GraphPart, ...]]


@dataclass(frozen=True)
class Layout:
    """How two graphs hold a model: the ``encoder`` and ``decoder`` that are built, and who ``drives`` them
    with a section of the manifest; ``by_head`` as :class:`.pair_inputs_proof.PairCrossings` has it.
    """

    encoder: Stack
    decoder: Stack
    drives: Callable[[ExportJob, Any, Any, EncoderDecoderSection], EncoderDecoder]
    by_head: bool = False


BUNDLE = Layout(
    "encoder", "decoder", lambda job, encoder, decoder, section: EncoderDecoder(encoder, decoder, section)
)


def encoder_decoder_steps(anatomy: Anatomy) -> float:
    """How far :func:`prove_encoder_decoder` advances its task."""
    return len(anatomy.blocks) + 4


def prove_encoder_decoder(
    job: ExportJob,
    graphs: tuple[Path, Path],
    parts: Parts,
    section: EncoderDecoderSection,
    opset: Opset,
    task: ProgressTask,
    layout: Layout = BUNDLE,
) -> dict[str, Any]:
    """Compare ``graphs``, the decoder's and the encoder's, each of its ``parts``, with torch; returns the
    differences for the manifest.

    ``task`` advances by :func:`encoder_decoder_steps`.
    """
    decoder, encoder = graphs
    driver = layout.drives(job, open_session(encoder), open_session(decoder), section)
    task.advance(0, "greedy answers")
    case, answers = sentences(job, section), Answers.of(driver, job)
    found = case.logits(driver, case.written.shape[1] // 2)
    del driver
    task.advance(1)
    model = StreamedPair(job.source, job.kv_dtype)
    cut = (
        PartGraphs(job, encoder, parts[1], opset, layout.encoder),
        PartGraphs(job, decoder, parts[0], opset, layout.decoder),
    )
    proof = PairPartsProof(
        model, cut, case, [answers.case.batch()], rounds=job.rounds, by_head=layout.by_head
    )
    last = proof.run(task)
    task.advance(0, "whole graphs")
    whole = _whole(model, found, case, answers, last, rounds=job.rounds)
    task.advance(1)
    name = "quantized" if job.rounds else "float"
    result = proof.found()
    return {**result, "greedy": whole.pop("greedy"), name: result.get(name, {}) | whole}


@dataclass(frozen=True)
class Answers:
    """What graphs answer greedily to texts or sounds, side by side; the first ``behind`` tokens of each row
    are a prompt.
    """

    case: Case
    behind: int
    section: EncoderDecoderSection

    @classmethod
    def of(cls, driver: EncoderDecoder, job: ExportJob) -> Answers:
        """To some texts or sounds of unequal length."""
        section = driver.section
        steps = min(_TOKENS, section.context_length - 1 - len(section.prompt))
        rows = texts_of(job, section, _ANSWERS)
        prompts = np.empty((_ANSWERS if rows is None else len(rows), 0), np.int64)
        case = case_of(job, section, rows, prompts)
        if rows is None:
            assert case.sounds is not None
            logits = driver.listen(case.sounds, section.prompt, new_tokens=steps - 1)
            prompts = driver.prompts
        else:
            logits = driver.prefill([row.tolist() for row in rows], new_tokens=steps - 1)
        chosen = [logits.argmax(-1)]
        while len(chosen) < steps:
            chosen.append(driver.step(chosen[-1].tolist()).argmax(-1))
        written = np.concatenate([prompts, np.stack(chosen, axis=1)], axis=1)
        return cls(replace(case, written=written.astype(np.int64)), prompts.shape[1], section)

    def held(self, rows: Floats, margin: float) -> dict[str, Any]:
        """How good they are for torch, whose logits of all tokens are ``rows [answers, tokens, vocab]``: each
        must be its choice, or as good.
        """
        section, tokens = self.section, self.case.written[:, self.behind :]
        expected = rows[:, self.behind :].copy()
        expected[..., section.suppressed_ids] = -np.inf
        expected[:, 0, section.first_suppressed_ids] = -np.inf
        gaps = expected.max(-1) - np.take_along_axis(expected, tokens[..., None], -1)[..., 0]
        gaps = gaps if section.first_token_id is None else gaps[:, 1:]
        gate("the largest gap to torch's choice in a greedy answer", float(gaps.max(initial=0)), margin)
        return {
            "tokens": int(gaps.size),
            "near_ties": int((gaps > 0).sum()),
            "tie_margin": rounded(margin),
        }


def _whole(
    model: StreamedPair, found: Floats, case: Case, answers: Answers, last: PairStreams, *, rounds: bool
) -> dict[str, Any]:
    """Both graphs as they ship: ``found`` are their logits of ``case``; ``last`` is what torch makes of it,
    and of the case of ``answers``.
    """
    plain, stored = (
        [model.normed(model.source.anatomy.final_norm, one) for one in states.hidden]
        for states in (last.plain, last.stored)
    )
    if not rounds:
        with model.head() as head:
            result = _elementwise(found, head, plain[0])
            margin = 2 * result["logits"]["bound"]  # two logits that are each off by it may change places
            return result | {"greedy": answers.held(_logits(head, plain[1]), margin)}
    with model.head() as exact, model.head(rounded=True) as head:

        def with_rounded_inputs() -> LogitRows:
            entered = model.entered([case.batch()], rounded=True)
            (left,) = model.swept(entered, [model.with_rounded_inputs])
            return LogitRows(head, model.normed(model.source.anatomy.final_norm, left.hidden[0]))

        references = LogitRows(head, stored[0]), LogitRows(exact, plain[0])
        result = compare(found, *references, case.decoder_ids, with_rounded_inputs)
        margin = clear_margin(result["kl_of_rounding"])
        return result | {"greedy": answers.held(_logits(head, stored[1]), margin)}


def _logits(head: Head, normed: Tensor) -> Floats:
    return np.stack(list(LogitRows(head, normed)))


def _elementwise(found: Floats, head: Head, normed: Tensor) -> dict[str, Any]:
    worst = largest = 0.0
    for ours, theirs in zip(found, LogitRows(head, normed), strict=True):
        worst = float(np.max([worst, np.abs(ours - theirs).max()]))
        largest = max(largest, float(np.abs(theirs).max()))
    bound = elementwise_bound(largest)
    gate("the largest difference of a logit", worst, bound)
    return {"logits": {"max_abs_difference": rounded(worst), "bound": rounded(bound)}}
