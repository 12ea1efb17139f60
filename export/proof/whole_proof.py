"""The whole graph of a decoder as it ships, against torch one block at a time: its logits as distributions,
or elementwise where nothing is rounded, and its greedy continuation.

Every token of the continuation must be the one that torch prefers after the same tokens, or as good as that.
One pass over the finished continuation asks what a pass for each token would.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...compress.model.skeleton import Head
from ...runtime.bundle.graph_sections import DecoderSection
from ...runtime.engine.decoder import Decoder
from ...runtime.session.session import open_session
from ...terminal.progress import ProgressTask
from .distances import clear_margin, compare, elementwise_bound, gate, noise_bound, rounded
from .drive import Floats, GraphDriver, Ids
from .parts_proof import Streams
from .streamed import ROUNDINGS, StreamedModel

GREEDY_TOKENS, PROMPT = 64, 16


@dataclass(frozen=True)
class Continuation:
    """What a graph answers to a prompt, token by token over the bound cache."""

    prompt: Ids
    chosen: tuple[int, ...]

    @classmethod
    def of(
        cls, graph: Path, section: DecoderSection, ids: Ids, task: ProgressTask, amount: float
    ) -> Continuation:
        """The greedy continuation of the start of ``ids [tokens]``; ``task`` advances by ``amount``."""
        steps = min(GREEDY_TOKENS, section.context_length - 1)
        prompt = ids[: min(PROMPT, section.context_length - steps)]
        detail = "greedy continuation"
        task.advance(0, detail)
        decoder = Decoder(open_session(graph), section)
        chosen = [int(decoder.prefill(prompt.tolist(), new_tokens=steps).argmax())]
        while len(chosen) < steps:
            task.advance(amount / steps, detail)
            chosen.append(int(decoder.step(chosen[-1]).argmax()))
        task.advance(amount / steps, detail)
        return cls(prompt, tuple(chosen))

    def row(self, length: int) -> Ids:
        """Prompt and answer less its last token, ``[1, length]``, with padding on the right."""
        row = np.concatenate([self.prompt, np.array(self.chosen[:-1], np.int64)])
        return np.pad(row, (0, length - len(row)), mode="edge")[None]

    def gaps(self, logits: Floats) -> Floats:
        """How far torch's logit for each chosen token lies below torch's largest: 0 where it would choose
        that too. ``logits [length, vocab]`` are those of :meth:`row`.
        """
        steps = len(self.chosen)
        expected = logits[len(self.prompt) - 1 :][:steps]
        return np.asarray(expected.max(-1) - expected[np.arange(steps), list(self.chosen)], np.float32)


class LogitRows:
    """Torch's logits ``[seq, vocab]`` of one row after the other, from what the head reads."""

    def __init__(self, head: Head, normed: Tensor) -> None:
        self.head, self.normed = head, normed

    def __iter__(self) -> Iterator[Floats]:
        return (self.head.logits(row).numpy() for row in self.normed)


def prove_whole(
    graph: Path,
    model: StreamedModel,
    ids: Ids,
    continued: Continuation,
    last: Streams,
    *,
    rounds: bool,
) -> dict[str, Any]:
    """Hold ``graph`` against torch on ``ids [rows, seq]``, of which the last row is that of ``continued``;
    ``last`` is what torch's head reads of them.
    """
    driver = GraphDriver(open_session(graph))
    found = (driver.logits(row[None])[0] for row in ids[:-1])
    if rounds:
        with model.head() as exact, model.head(rounded=True) as head:
            references = LogitRows(head, last.stored.normed[:-1]), LogitRows(exact, last.plain.normed[:-1])
            result = compare(
                found, *references, ids[:-1], lambda: _with_rounded_inputs(model, head, ids[:-1])
            )
            gaps = continued.gaps(head.logits(last.stored.normed[-1]).numpy())
            margin = clear_margin(result["kl_of_rounding"])
            if gaps.max() > margin:
                moved = (LogitRows(exact, last.plain.normed), _with_rounded_inputs(model, head, ids))
                wanted = LogitRows(head, last.stored.normed)
                margin = noise_bound(margin, max(_largest_gap(rows, wanted) for rows in moved))
        result["greedy_agreement"] = rounded(float((gaps == 0).mean()))
        return result | {"greedy": _greedy(gaps, margin)}
    with model.head() as head:
        result = _elementwise(found, head, last.plain.normed[:-1], model, ids[:-1])
        gaps = continued.gaps(head.logits(last.plain.normed[-1]).numpy())
    # Two logits that are each off by the bound may change places when they are closer than twice that.
    return result | {"greedy": _greedy(gaps, 2 * result["logits"]["bound"])}


def _greedy(gaps: Floats, margin: float) -> dict[str, Any]:
    gate("the largest gap to torch's choice in a greedy continuation", float(gaps.max()), margin)
    return {"tokens": len(gaps), "near_ties": int((gaps > 0).sum()), "tie_margin": rounded(margin)}


def _largest_gap(rows: LogitRows, wanted: LogitRows) -> float:
    """How far below its best choice ``wanted`` has, at most, that of ``rows``, which differ by rounding: more
    than the mean of all tokens says of one that goes to other experts then, or whose activations are unusual.
    """
    return max(
        float((logits.max(-1) - np.take_along_axis(logits, ours.argmax(-1)[:, None], -1)[:, 0]).max())
        for ours, logits in zip(rows, wanted, strict=True)
    )


def _with_rounded_inputs(model: StreamedModel, head: Head, ids: Ids) -> LogitRows:
    (states,) = model.sweep(model.embedded(ids, rounded=True), [model.with_rounded_inputs])
    return LogitRows(head, _final(model, states))


def _final(model: StreamedModel, states: Tensor) -> Tensor:
    norm = model.source.anatomy.final_norm
    assert norm is not None
    return model.normed(norm, states.to(torch.float32))


def _elementwise(
    found: Iterator[Floats], head: Head, normed: Tensor, model: StreamedModel, ids: Ids
) -> dict[str, Any]:
    worst = largest = 0.0
    for ours, theirs in zip(found, LogitRows(head, normed), strict=True):
        worst = float(np.max([worst, np.abs(ours - theirs).max()]))
        largest = max(largest, float(np.abs(theirs).max()))
    bound = elementwise_bound(largest)
    if not worst <= bound:
        # A model may amplify the last digit of its sums more than most: ask how much it does so.
        bound = noise_bound(bound, _float32_rounding(model, head, normed, ids))
    gate("the largest difference of a logit", worst, bound)
    return {"logits": {"max_abs_difference": rounded(worst), "bound": rounded(bound)}}


def _float32_rounding(model: StreamedModel, head: Head, normed: Tensor, ids: Ids) -> float:
    """How far another program that is right may be from the logits of ``normed``, at most."""
    worst = 0.0
    for states in model.sweep(model.embedded(ids), ROUNDINGS):
        for ours, theirs in zip(LogitRows(head, _final(model, states)), LogitRows(head, normed), strict=True):
            worst = float(np.max([worst, np.abs(ours - theirs).max()]))
    return worst
