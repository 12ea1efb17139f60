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
import torch
from numpy.typing import NDArray
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
from .graphs import exact_session, write_float_cache, write_float_graph
from .proof_text import Ids, padded, token_rows, token_sentences
from .reference import Reference
from .sounds import sounds_of

ENCODER_DECODER_STEPS = 4
# Texts that are read, tokens that are written of each, and how many of them come out of the cache.
_SHAPES = (((1,), 1, 0), ((7, 3, 7), 5, 2), ((33, 16, 9), 20, 19))
_TEXTS, _SOUNDS, _LONGEST, _WRITTEN = 8, 4, 48, 32
_ANSWERS, _TOKENS = 3, 32
Floats = NDArray[np.float32]


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


@dataclass(frozen=True)
class Case:
    """What an encoder is given in torch, texts or ``sounds [batch, samples]``, and what is written of it,
    ``[batch, written]``, of which the first ``depth`` tokens come from the cache.
    """

    given: dict[str, Any]
    written: Ids
    depth: int = 0
    sounds: Floats | None = None

    def ours(self, driver: EncoderDecoder) -> Floats:
        """The graphs' logits ``[batch, written, vocab]``."""
        if self.sounds is None:
            driver.read(self.given["input_ids"], self.given["attention_mask"])
        else:
            driver.hear(self.sounds)
        cuts = (self.written[:, : self.depth], self.written[:, self.depth :])
        return np.concatenate([driver.write(cut) for cut in cuts if cut.shape[1]], axis=1)

    @torch.no_grad()
    def theirs(self, model: nn.Module) -> Floats:
        """Torch's."""
        given = {**self.given, "decoder_input_ids": self.written}
        found = model(**{name: torch.from_numpy(value) for name, value in given.items()}, use_cache=False)
        return np.asarray(found.logits.float().numpy(), np.float32)


def prove_encoder_decoder(
    job: ExportJob,
    graphs: tuple[Path, Path],
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
    cases, reference = _cases(job, section), Reference(job.source)
    task.advance(0, "float graphs")
    floats, in_float = graphs, replace(section, kv_dtype=FLOAT)
    if job.rounds:
        floats = (
            write_float_graph(job, work / "encoder", opset, stack=layout.encoder),
            write_float_graph(job, work / "decoder", opset, stack=layout.decoder),
        )

    def driver(graphs: tuple[Path, Path], section: EncoderDecoderSection = section) -> EncoderDecoder:
        encoder, decoder = map(open_session, graphs)
        return layout.drives(job, encoder, decoder, section)

    result: dict[str, Any] = {
        "float": _elementwise(driver(floats, in_float), reference.model, cases, "the float graphs")
    }
    task.advance(1, "greedy answers")
    if not job.rounds:
        margin = 2 * result["float"]["bound"]
        result["greedy"] = _greedy(driver(graphs), reference.model, job, margin)
        task.advance(ENCODER_DECODER_STEPS - 1)
        return result
    text = _texts(job, section)
    unrounded, model = text.theirs(reference.model), reference.round(cache=job.kv_dtype in CODES)
    rows, expected = text.ours(driver(graphs)), text.theirs(model)

    def with_rounded_inputs() -> Iterator[Floats]:
        return iter(_with_rounded_inputs(job, model, text))

    result["quantized"] = compare(rows, expected, unrounded, text.written, with_rounded_inputs)
    margin = clear_margin(result["quantized"]["kl_of_rounding"])
    result["greedy"] = _greedy(driver(graphs), model, job, margin)
    task.advance(2, "quantized weights")
    exact = reference.with_float_activations()

    @contextmanager
    def exactly(graphs: tuple[Path, Path], section: EncoderDecoderSection) -> Iterator[EncoderDecoder]:
        with ExitStack() as stack:
            encoder, decoder = (stack.enter_context(exact_session(graph)) for graph in graphs)
            yield layout.drives(job, encoder, decoder, section)

    if job.kv_dtype in CODES:
        with exactly(graphs, section) as coded:
            found, expected = text.ours(coded), text.theirs(exact)
        exact = reference.with_float_cache()
        result["caches"] = compare_caches(found, expected, text.theirs(exact))
    if job.kv_dtype != FLOAT:
        graphs = (
            write_float_cache(job, work / "encoder", opset, layout.encoder),
            write_float_cache(job, work / "decoder", opset, layout.decoder),
        )
    with exactly(graphs, in_float) as unrounding:
        result["codes"] = _elementwise(unrounding, exact, cases, "quantized weights, float activations")
    task.advance(1)
    return result


def _cases(job: ExportJob, section: EncoderDecoderSection) -> list[Case]:
    longest = min(max(length for read, *_ in _SHAPES for length in read), section.max_length)
    ids = token_rows(job.path, job.text, 6, max(longest, _WRITTEN), section.vocab_size)
    found = []
    for read, written, depth in _SHAPES:
        tokens = np.ascontiguousarray(ids[3 : 3 + len(read), : min(written, section.context_length)])
        if section.sound is not None:
            found.append(_sound_case(job, tokens, depth))
        else:
            texts = padded([ids[row, : min(length, longest)] for row, length in enumerate(read)], 0)
            found.append(Case(texts, tokens, depth))
    return found


def _sound_case(job: ExportJob, written: Ids, depth: int = 0) -> Case:
    """Sounds of unequal length, and what is ``written`` of each."""
    sounds, given = sounds_of(job, len(written))
    return Case({"input_features": given}, written, depth, sounds)


def _texts(job: ExportJob, section: EncoderDecoderSection) -> Case:
    """Sentences, or sounds, and prose that is written of them."""
    length = min(_WRITTEN, section.context_length)
    if section.sound is not None:
        return _sound_case(job, token_rows(job.path, job.text, _SOUNDS, length, section.vocab_size))
    longest = min(_LONGEST, section.max_length)
    rows = token_sentences(job.path, job.text, _TEXTS, longest, section.vocab_size)
    written = token_rows(job.path, job.text, len(rows), length, section.vocab_size)
    return Case(padded(rows, 0), written)


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
        case = _sound_case(job, np.empty((_ANSWERS, 0), np.int64))
        assert case.sounds is not None
        logits = driver.listen(case.sounds, section.prompt, new_tokens=steps - 1)
        behind = driver.prompts
    else:
        longest = min(_LONGEST, section.max_length)
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
