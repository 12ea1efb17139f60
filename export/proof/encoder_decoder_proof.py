"""The proof of the two graphs of an encoder–decoder, driven by the runtime that ships them: its logits
elementwise in float, over texts or sounds of unequal length and caches of every depth; when quantized as
distributions, elementwise without rounded activations and caches, and by what codes in the caches cost; and
greedy answers side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ...compress.model.anatomy import module_name
from ...compress.numbers.fake_quant import TokenQuantLinear, unwrap, wrap
from ...runtime.bundle.graph_sections import EncoderDecoderSection
from ...runtime.engine.encoder_decoder import EncoderDecoder
from ...runtime.session.session import open_session
from ...terminal import ProgressTask
from ..graph.attention.cache_io import CODES, FLOAT
from ..graph.encoder_decoder_graph import Stack
from ..graph.graph_writer import Opset
from ..job import ExportJob
from .distances import clear_margin, compare, compare_caches, elementwise_bound, gate, rounded
from .encoder_decoder_cases import LONGEST, Case, Floats, sentences, short_cases, sound_case
from .graphs import exact_session, write_float_cache, write_float_graph
from .proof_text import Ids, padded, token_sentences
from .reference import Reference

ENCODER_DECODER_STEPS = 4
_ANSWERS, _TOKENS = 3, 32

Graphs = tuple[Path, Path]


@dataclass(frozen=True)
class Layout:
    """How two graphs hold a model: the ``encoder`` and ``decoder`` that are built, and who ``drives`` them
    with a section of the manifest.
    """

    encoder: Stack
    decoder: Stack
    drives: Callable[[ExportJob, Any, Any, EncoderDecoderSection], EncoderDecoder]


BUNDLE = Layout(
    "encoder", "decoder", lambda job, encoder, decoder, section: EncoderDecoder(encoder, decoder, section)
)


def prove_encoder_decoder(
    job: ExportJob,
    graphs: Graphs,
    section: EncoderDecoderSection,
    work: Path,
    opset: Opset,
    task: ProgressTask,
    layout: Layout = BUNDLE,
) -> dict[str, Any]:
    """Compare ``graphs``, the encoder's and the decoder's, with torch; returns the differences for the
    manifest. ``work`` is for scratch files.

    ``task`` advances :data:`ENCODER_DECODER_STEPS` times.

    Raises:
        GateFailed: a difference beyond its bound.
    """
    proof = _Proof(job, graphs, section, work, opset, layout)
    task.advance(0, "float graphs")
    result: dict[str, Any] = {"float": proof.in_float()}
    task.advance(1, "greedy answers")
    if not job.rounds:
        result["greedy"] = proof.greedy(proof.reference.model, 2 * result["float"]["bound"])
        task.advance(ENCODER_DECODER_STEPS - 1)
        return result
    result |= proof.as_distributions()
    task.advance(2, "quantized weights")
    result |= proof.unrounded()
    task.advance(1)
    return result


class _Proof:
    """What ``graphs`` are compared by, part by part."""

    def __init__(
        self,
        job: ExportJob,
        graphs: Graphs,
        section: EncoderDecoderSection,
        work: Path,
        opset: Opset,
        layout: Layout,
    ) -> None:
        self.job, self.graphs, self.section = job, graphs, section
        self.work, self.opset, self.layout = work, opset, layout
        self.cases, self.reference = short_cases(job, section), Reference(job.source)
        self._floats = replace(section, kv_dtype=FLOAT)

    def in_float(self) -> dict[str, Any]:
        """Graphs of the weights before they are rounded, elementwise."""
        graphs = self.graphs
        if self.job.rounds:
            encoder, decoder = (
                write_float_graph(self.job, self.work / name, self.opset, stack=stack)
                for name, stack in self._scratch
            )
            graphs = encoder, decoder
        driver = self._driver(graphs, self._floats)
        return _elementwise(driver, self.reference.model, self.cases, "the float graphs")

    def as_distributions(self) -> dict[str, Any]:
        """The graphs as they ship beside torch with the same rounding, and their greedy answers."""
        text = sentences(self.job, self.section)
        unrounded = text.theirs(self.reference.model)
        model = self.reference.round(cache=self.job.kv_dtype in CODES)
        rows, expected = text.ours(self._driver(self.graphs, self.section)), text.theirs(model)

        def with_rounded_inputs() -> Iterator[Floats]:
            return iter(_with_rounded_inputs(self.job, model, text))

        found = compare(rows, expected, unrounded, text.written, with_rounded_inputs)
        return {"quantized": found, "greedy": self.greedy(model, clear_margin(found["kl_of_rounding"]))}

    def unrounded(self) -> dict[str, Any]:
        """The graphs without rounded activations: what codes in the caches cost; and without those, too,
        elementwise.
        """
        result: dict[str, Any] = {}
        exact, graphs = self.reference.with_float_activations(), self.graphs
        if self.job.kv_dtype in CODES:
            text = sentences(self.job, self.section)
            with self._exactly(graphs, self.section) as coded:
                found, expected = text.ours(coded), text.theirs(exact)
            exact = self.reference.with_float_cache()
            result["caches"] = compare_caches(found, expected, text.theirs(exact))
        if self.job.kv_dtype != FLOAT:
            encoder, decoder = (
                write_float_cache(self.job, self.work / name, self.opset, stack)
                for name, stack in self._scratch
            )
            graphs = encoder, decoder
        with self._exactly(graphs, self._floats) as driver:
            codes = _elementwise(driver, exact, self.cases, "quantized weights, float activations")
        return {**result, "codes": codes}

    def greedy(self, model: nn.Module, margin: float) -> dict[str, Any]:
        """Answers of the graphs as they ship."""
        return _greedy(self._driver(self.graphs, self.section), model, self.job, margin)

    @property
    def _scratch(self) -> tuple[tuple[str, Stack], tuple[str, Stack]]:
        return ("encoder", self.layout.encoder), ("decoder", self.layout.decoder)

    def _driver(self, graphs: Graphs, section: EncoderDecoderSection) -> EncoderDecoder:
        encoder, decoder = map(open_session, graphs)
        return self.layout.drives(self.job, encoder, decoder, section)

    @contextmanager
    def _exactly(self, graphs: Graphs, section: EncoderDecoderSection) -> Iterator[EncoderDecoder]:
        """Without rounding of activations."""
        with ExitStack() as stack:
            encoder, decoder = (stack.enter_context(exact_session(graph)) for graph in graphs)
            yield self.layout.drives(self.job, encoder, decoder, section)


def _elementwise(driver: EncoderDecoder, model: nn.Module, cases: list[Case], what: str) -> dict[str, Any]:
    worst = largest = 0.0
    for case in cases:
        found, expected = case.ours(driver), case.theirs(model)
        worst = float(np.max([worst, np.abs(found - expected).max()]))
        largest = max(largest, float(np.abs(expected).max()))
    bound = elementwise_bound(largest)
    gate(f"the largest difference of a logit ({what})", worst, bound)
    return {"max_abs_difference": rounded(worst), "bound": rounded(bound), "cases": len(cases)}


def _with_rounded_inputs(job: ExportJob, model: nn.Module, case: Case) -> Floats:
    """Torch's logits with the inputs of every quantized linear in 8 bits."""
    names = [module_name(job.source.anatomy, name) for name in job.source.schemes]
    names = [name for name in names if not isinstance(model.get_submodule(name), TokenQuantLinear)]
    try:
        for name in names:
            wrap(model, name)
        return case.theirs(model)
    finally:
        for name in names:
            unwrap(model, name)


def _greedy(driver: EncoderDecoder, model: nn.Module, job: ExportJob, margin: float) -> dict[str, Any]:
    """Answers to texts or sounds of unequal length, side by side: each token must be torch's choice, or as
    good.
    """
    section = driver.section
    steps = min(_TOKENS, section.context_length - 1 - len(section.prompt))
    if section.sound is not None:
        case = sound_case(job, np.empty((_ANSWERS, 0), np.int64))
        assert case.sounds is not None
        logits = driver.listen(case.sounds, section.prompt, new_tokens=steps - 1)
        behind = driver.prompts
    else:
        longest = min(LONGEST, section.max_length)
        rows = token_sentences(job.path, job.text, _ANSWERS, longest, section.vocab_size)
        case, behind = Case(padded(rows, 0), np.empty((len(rows), 0), np.int64)), None
        logits = driver.prefill([row.tolist() for row in rows], new_tokens=steps - 1)
    chosen = [logits.argmax(-1)]
    while len(chosen) < steps:
        chosen.append(driver.step(chosen[-1].tolist()).argmax(-1))
    return _choices(case, behind, np.stack(chosen, axis=1), section, model, margin)


def _choices(
    case: Case,
    behind: Ids | None,
    tokens: Ids,
    section: EncoderDecoderSection,
    model: nn.Module,
    margin: float,
) -> dict[str, Any]:
    """How good ``tokens [answers, steps]`` are for torch, which stand ``behind`` a prompt or the start."""
    start = np.full((len(tokens), 1), section.start_token_id, np.int64)
    front = start if behind is None else np.concatenate([start, behind], axis=1)
    written = replace(case, written=np.concatenate([front, tokens[:, :-1]], axis=1))
    expected = written.theirs(model)[:, front.shape[1] - 1 :]
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
