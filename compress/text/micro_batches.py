"""Calibration batches cut into micro-batches that go through a model at once, some of them held out.

What is held out is never learned from: it shows when training stopped to help.

``MeasuredText``: on which of the calibration text a pass measures sensitivities, and which other text it
may look at first, so that what is chosen on one is judged on the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...errors import CalibrationError
from .calibration import Calibration
from .token_batch import TokenBatch

# One in so many is held out, or fewer where so many tokens are enough: each measurement reads them all.
_HELD_OUT, _ENOUGH = 8, 32_768
# Calibration tokens that a pass measures sensitivities on, whatever it learns from them.
MEASURED_TOKENS = 4096
MEASURED_AT_ONCE = 1024
# The same of all protected groups together.
PROTECTED_TOKENS = 16_384


@dataclass(frozen=True)
class MicroBatch:
    """``input_ids`` and ``attention_mask``, both ``[rows, length]``, or pixels as in
    :class:`.token_batch.TokenBatch`; ``tokens`` are the real ones in it.

    Losses of places before ``counted_from`` in each row do not count. ``labels [rows]`` are a classifier's,
    −1 for none; None where no row has one. ``answers`` are as in :class:`.token_batch.TokenBatch`.
    """

    number: int
    input_ids: Tensor
    attention_mask: Tensor
    tokens: int
    counted_from: int = 0
    labels: Tensor | None = None
    answers: TokenBatch | None = None

    def written(self) -> TokenBatch:
        """What the decoder of an encoder–decoder writes of it."""
        return self.answers or TokenBatch(self.input_ids, self.attention_mask)

    @property
    def written_tokens(self) -> int:
        """How many real tokens the decoder writes: of a model of one stack those that it reads."""
        return self.tokens if self.answers is None else int(self.answers.attention_mask.sum())

    def counts(self) -> Tensor:
        """``[tokens]`` float32: 1 for each real token whose losses count, 0 for the others."""
        places = torch.arange(self.attention_mask.shape[1]).expand(self.attention_mask.shape)
        return (places >= self.counted_from)[self.attention_mask.bool()].to(torch.float32)


def micro_batches_of(calibration: Calibration, tokens: int) -> list[MicroBatch]:
    """Micro-batches of whole rows, at most ``tokens`` places in each but at least a row, and so small that
    some can be held out.
    """
    found: list[MicroBatch] = []
    for batch in calibration.batches:
        rows = max(1, min(tokens // batch.attention_mask.shape[1], calibration.samples // _HELD_OUT))
        for start in range(0, batch.input_ids.shape[0], rows):
            part = batch.part(slice(start, start + rows))
            tokens_in_it = int(part.attention_mask.sum())
            if not tokens_in_it:  # nothing but padding
                continue
            ids, mask, labels = part.input_ids, part.attention_mask, part.labels
            found.append(MicroBatch(len(found), ids, mask, tokens_in_it, labels=labels, answers=part.answers))
    return found


def first_tokens(
    micro_batches: Sequence[MicroBatch], tokens: int, *, written: bool = False
) -> list[MicroBatch]:
    """The first micro-batches that together hold so many tokens, or all of them; only those that are
    ``written`` count where that is asked for.
    """
    taken: list[MicroBatch] = []
    for batch in micro_batches:
        if sum(one.written_tokens if written else one.tokens for one in taken) >= tokens:
            break
        taken.append(batch)
    return taken


def held_out_tokens(tokens: int) -> int:
    """About how many of so many tokens :func:`hold_out` keeps back."""
    return min(tokens // _HELD_OUT, _ENOUGH)


def hold_out(micro_batches: Sequence[MicroBatch]) -> tuple[list[MicroBatch], list[MicroBatch]]:
    """``(training, held out)``: every eighth, evenly over the whole, at least one; of much text
    fewer, about 32,768 tokens.
    """
    if len(micro_batches) < 2:
        raise CalibrationError(
            f"{len(micro_batches)} micro-batch of text is too few to train on some and hold out others",
            fix="give more samples: --samples 64",
        )
    tokens = sum(batch.tokens for batch in micro_batches)
    every = min(max(_HELD_OUT, tokens // _ENOUGH), len(micro_batches))
    kept = [batch for position, batch in enumerate(micro_batches) if position % every == every - 1]
    return [batch for batch in micro_batches if batch not in kept], kept


class MeasuredText:
    """Micro-batches of ``calibration``, for the pass ``who``: ``first`` are those of ordinary text that are
    measured on. So many tokens are those that are read; where less is written of them, up to ``most_read``
    times as many are.
    """

    def __init__(self, calibration: Calibration, who: str, most_read: int = 1) -> None:
        self._calibration, self._who, self._most_read = calibration, who, most_read
        self._own = micro_batches_of(calibration.own(), MEASURED_AT_ONCE)
        self.first = self._first(self._own, MEASURED_TOKENS)

    @property
    def has_others(self) -> bool:
        """Whether there is ordinary text behind what is measured on."""
        return len(self._own) > len(self.first)

    def others(self, tokens: int) -> list[MicroBatch]:
        """So many ``tokens`` of ordinary text behind what is measured on."""
        return self._first(self._own[len(self.first) :], tokens)

    def _first(self, batches: Sequence[MicroBatch], tokens: int) -> list[MicroBatch]:
        read = first_tokens(batches, self._most_read * tokens)
        return read if self._most_read == 1 else first_tokens(read, tokens, written=True)

    def apart(self, tokens: int) -> tuple[list[MicroBatch], list[MicroBatch]]:
        """What is measured on, and so many ``tokens`` of other text that observers are shown first: behind
        it, or every second micro-batch of a text that is all measured on.
        """
        if self.has_others:
            return self.first, self.others(tokens)
        if len(self._own) < 2:
            raise CalibrationError(
                f"{self._who} has {sum(batch.tokens for batch in self._own)} tokens in {len(self._own)} "
                "sequence to calibrate on, and needs 2 sequences",
                why="losses are measured on other text than the codes are found on",
                fix="give --samples 2 or more, and enough text for them",
            )
        return self._own[::2], self._first(self._own[1::2], tokens)

    def grouped(
        self, tokens: int | None = None, *, written: bool = False
    ) -> tuple[list[MicroBatch], list[str]]:
        """Micro-batches of so many ``tokens`` of ordinary text, read or ``written``, by default those that
        are measured on, and of the protected groups, and the group of each: "" for ordinary text.
        """
        found = self.first if tokens is None else first_tokens(self._own, tokens, written=written)
        names, found = [""] * len(found), list(found)
        for group in self._calibration.protected:
            mine = micro_batches_of(self._calibration.only(group), MEASURED_AT_ONCE)
            mine = first_tokens(mine, PROTECTED_TOKENS // len(self._calibration.protected))
            names += [group.name] * len(mine)
            found += mine
        return [replace(batch, number=number) for number, batch in enumerate(found)], names
