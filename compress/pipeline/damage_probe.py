"""Which step cost what: after each, a text that no pass reads goes through the model.

Its divergence from the original there is the damage up to that step, exactly, over the whole vocabulary: the
same text and the same tokens for every pass, calibrated or not. The original's last states are found once and
kept; logits are made of them a few tokens at a time, so that memory holds no more than the head and those.
Steps that share a sweep have a stream each in it, and so has the original where the sweep reads it anyway
(:mod:`.sweep`); after all others the finished checkpoint is run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from ...errors import CheckpointError, EdgepressError
from ...files.storage import sha256_json, write_atomic
from ...runtime.text.tokenizer import Tokenizer
from ...terminal.progress import Progress, Tick, unseen
from ..model.hearing.feature_extractor import require_log_mel
from ..model.hearing.speech_prompt import words_of
from ..model.skeleton import Skeleton
from ..model.weights import WeightSource
from ..text.calibration_audio import probe_sounds
from ..text.drawn_files import probe_images
from ..text.probe_text import describe, probe_batches
from ..text.token_batch import TokenBatch
from .block_inputs import Stream, begin
from .journal import SEAL_BYTES, ends_with_seal, sealed
from .last_states import last_states

PROBED_AT_ONCE = 64  # tokens whose logits are held at once: a row is as long as the vocabulary


class DamageProbe:
    """What the ``original`` says about the probe text, and how far other models are from it.

    Args:
        batches: the probe text in the original's tokens.
        directory: for states that wait, and for the original's last ones, which a resumed run finds again.
    """

    def __init__(
        self,
        original: WeightSource,
        batches: Sequence[TokenBatch],
        directory: Path,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self.original, self.batches = original, batches
        self.directory, self.device, self.progress = directory, device, progress

    @classmethod
    def open(
        cls, original: WeightSource, directory: Path, device: torch.device, progress: Progress
    ) -> DamageProbe | None:
        """The probe of ``original``; None, and said so, where no text of its tokenizer goes through it."""
        anatomy, path = original.anatomy, original.reader.path
        if anatomy.patches is not None:
            images = probe_images(*anatomy.patches.image, anatomy.patches.tokens)
            return cls(original, images, directory, device, progress)
        hearing = anatomy.hearing
        if hearing is not None and hearing.log_mel is None:
            return None
        try:
            if hearing is not None:
                batches = probe_sounds(require_log_mel(hearing, path), words_of(original), hearing.tokens)
            else:
                batches = probe_batches(Tokenizer.open(path), anatomy.max_positions)
            last = max(int(_ids(batch).max()) for batch in batches)
            if last >= anatomy.vocab_size:
                raise CheckpointError(
                    f"token {last} of its tokenizer is none of the {anatomy.vocab_size} of {path}"
                )
        except EdgepressError as error:
            progress.note(f"steps are not measured: {error.what}")
            return None
        return cls(original, batches, directory, device, progress)

    def describe(self) -> dict[str, Any]:
        """What a manifest keeps of the text."""
        return describe(self.batches)

    def knows(self, source: WeightSource) -> bool:
        """Whether ``source`` has the original's vocabulary: else nothing can be compared token by token."""
        return source.anatomy.vocab_size == self.original.anatomy.vocab_size

    def measure(self, source: WeightSource) -> dict[str, Any] | None:
        """How far the checkpoint ``source`` is from the original; None where the two cannot be compared."""
        if not self.knows(source):
            return None
        skeleton = Skeleton(source, self.device)
        return self.compare(skeleton, self._through(skeleton, "measuring the step"))

    def compare(self, skeleton: Skeleton, rows: Tensor) -> dict[str, Any]:
        """How far ``rows [tokens, hidden]`` behind the last block of ``skeleton`` are from the original's:
        ``kl`` (mean nats a token, original ‖ compressed) and ``top1`` (the likeliest token agrees) of a
        decoder, in an encoder–decoder given the text that its encoder reads; of an encoder ``distance``, one
        less the mean cosine of the states.
        """
        hidden = finite([self._states(), rows])
        if skeleton.anatomy.kind == "encoder":
            with torch.no_grad(), skeleton.last_norm() as norm:
                return distance(*map(norm, hidden))
        with ExitStack() as stack:
            head = stack.enter_context(skeleton.head())
            same = skeleton.source.reader.path == self.original.reader.path
            own = head if same else stack.enter_context(Skeleton(self.original, self.device).head())
            task = stack.enter_context(self.progress.task("comparing with the original", len(hidden[0])))
            return decoder_divergences(hidden, [own, head], task.advance)[0]

    def lacks(self, source: WeightSource) -> bool:
        """Whether ``source`` is the original, whose states are not known yet."""
        own = source.reader.path == self.original.reader.path and source.kv_scheme is None
        return own and not ends_with_seal(self._file)

    def keep(self, rows: Tensor) -> None:
        """Take ``rows [tokens, hidden]`` for what leaves the original's last block."""
        self.directory.mkdir(parents=True, exist_ok=True)
        write_atomic(self._file, sealed(save({"rows": rows.cpu()})))

    @property
    def _file(self) -> Path:
        return self.directory / f"original-{sha256_json(self.describe())[:16]}.safetensors"

    def _states(self) -> Tensor:
        """The original's ``[tokens, hidden]`` behind its last block."""
        if not ends_with_seal(self._file):
            self.keep(self._through(Skeleton(self.original, self.device), "measuring the original"))
        rows: Tensor = load(self._file.read_bytes()[:-SEAL_BYTES])["rows"]
        return rows.to(self.device)

    def _through(self, skeleton: Skeleton, title: str) -> Tensor:
        """The states ``[tokens, hidden]`` of the text behind the last block."""
        return last_states(skeleton, self.batches, self.directory / "activations", self.progress, title)


class SweptProbes:
    """The text of a ``probe`` on its way through a sweep of ``source``: a stream behind each of its steps, of
    which there are so many, and one of the original where the sweep reads that and nobody ran it yet. None
    of them without a probe that knows the source. ``stream`` makes one, without states, by its name.
    """

    def __init__(
        self,
        probe: DamageProbe | None,
        source: WeightSource,
        steps: int,
        stream: Callable[[str], Stream],
    ) -> None:
        self.probe = probe if probe is not None and probe.knows(source) else None
        self.source, self._stream = source, stream
        self.steps = [stream(f"probe-{number}") for number in range(steps if self.probe is not None else 0)]
        self.unchanged: list[Stream] = []

    @property
    def streams(self) -> list[Stream]:
        """All of them."""
        return [*self.steps, *self.unchanged]

    @property
    def tokens(self) -> int:
        """Of all streams."""
        batches = [] if self.probe is None else self.probe.batches
        return len(self.streams) * sum(batch.attention_mask.numel() for batch in batches)

    def begin(self, skeleton: Skeleton, start: int) -> None:
        """Get ready at the block ``start``, where earlier ones are swept."""
        if self.probe is None:
            return
        original = self._stream("probe-original")
        if self.probe.lacks(self.source) and (start == 0 or original.holds(start)):
            self.unchanged = [original]
        begin(self.streams, skeleton, self.probe.batches, write=start == 0)

    def damage(self, skeleton: Skeleton) -> list[dict[str, Any]]:
        """Of each step, as :meth:`DamageProbe.compare` has it, once all blocks are swept."""
        if self.probe is None:
            return []
        end = len(self.source.anatomy.blocks)
        for stream in self.unchanged:
            self.probe.keep(torch.cat(list(stream.rows(end))))
        return [self.probe.compare(skeleton, torch.cat(list(stream.rows(end)))) for stream in self.steps]


def _ids(batch: TokenBatch) -> Tensor:
    """Its tokens."""
    return batch.written().input_ids


def divergences(skeleton: Skeleton, hidden: Sequence[Tensor]) -> list[dict[str, Any]]:
    """As :meth:`DamageProbe.compare`, of rows ``[tokens, hidden]`` that leave the last block: the original's
    come first.
    """
    hidden = finite(hidden)
    if skeleton.anatomy.kind == "encoder":
        with torch.no_grad(), skeleton.last_norm() as norm:
            original, *others = map(norm, hidden)
            return [distance(original, rows) for rows in others]
    with skeleton.head() as logits:
        return decoder_divergences(hidden, [logits] * len(hidden))


def finite(hidden: Sequence[Tensor]) -> Sequence[Tensor]:
    """Without the tokens that are not finite in any of the probes, which hold the same ones."""
    keep = torch.stack([torch.isfinite(rows).all(1) for rows in hidden]).all(0)
    return hidden if bool(keep.all()) else [rows[keep] for rows in hidden]


def decoder_divergences(
    hidden: Sequence[Tensor], heads: Sequence[Callable[[Tensor], Tensor]], tick: Tick = unseen
) -> list[dict[str, Any]]:
    """As :func:`divergences` of a decoder; each of ``hidden`` has a head of its own, from rows to logits.
    ``tick`` is called with tokens that were compared.
    """
    totals = [[0.0, 0] for _ in hidden[1:]]
    for start in range(0, hidden[0].shape[0], PROBED_AT_ONCE):
        original = torch.log_softmax(heads[0](hidden[0][start : start + PROBED_AT_ONCE]), -1)
        best = original.argmax(-1)
        for total, rows, logits in zip(totals, hidden[1:], heads[1:], strict=True):
            other = torch.log_softmax(logits(rows[start : start + PROBED_AT_ONCE]), -1)
            total[0] += float((original.exp() * (original - other)).sum())
            total[1] += int((other.argmax(-1) == best).sum())
        tick(len(original))
    tokens = hidden[0].shape[0]
    if not tokens:
        return [{"tokens": 0} for _ in totals]
    return [{"tokens": tokens, "kl": kl / tokens, "top1": same / tokens} for kl, same in totals]


def distance(original: Tensor, rows: Tensor) -> dict[str, Any]:
    """One less the mean cosine of rows ``[tokens, hidden]``."""
    if not len(rows):
        return {"tokens": 0}
    cosine = torch.nn.functional.cosine_similarity(original, rows, dim=-1)
    return {"tokens": rows.shape[0], "distance": 1 - float(cosine.mean())}
