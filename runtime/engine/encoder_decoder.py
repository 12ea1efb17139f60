"""``EncoderDecoder``: texts or sounds that are read once, and answers that are written token by token side by
side.

The encoder's graph gives the keys and values that the decoder reads; they stay as they are. Those of what
was written grow by a token a step. All answers of a batch are equally long: one that has ended goes on, and
nobody reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import BundleError, InputError
from ..bundle.bundle import Bundle
from ..bundle.graph_contract import TYPES
from ..bundle.graph_sections import EncoderDecoderSection
from ..session.session import graph_errors_are_typed, owned_value
from .decoder import Ids, Logits, TokenLimits
from .load import load_graph

_PAST, _PRESENT = "past_key_values.", "present."
SOUND = "audio"  # what the encoder's graph calls it
Samples = npt.NDArray[np.float32]


class EncoderDecoder:
    """:meth:`prefill` some texts, then :meth:`step`, as :class:`.batch_decoder.BatchDecoder`.

    Attributes:
        session: that of the decoder's graph.
        lengths: tokens of each answer in the cache, the start among them.
        prompts: of what :meth:`listen` began, the tokens ``[batch, places]`` behind the start.
    """

    def __init__(self, encoder: Any, session: Any, section: EncoderDecoderSection) -> None:
        self.encoder, self.session, self.section = encoder, session, section
        self.limits = TokenLimits(section.vocab_size, section.context_length)
        self.reads = TokenLimits(section.vocab_size, section.max_length)
        self.lengths: list[int] = []
        self.prompts: Ids = np.empty((0, 0), np.int64)
        self._read: dict[str, Any] = {}
        self._written: dict[str, Any] = {}
        self._begun: tuple[dict[str, Any], list[int]] = {}, []
        self._outputs = self._checked()

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        threads: int | None = None,
        *,
        provider: str = "cpu",
        profile: Path | None = None,
    ) -> EncoderDecoder:
        """Load both graphs of ``bundle``; the arguments are those of :func:`.load.load_graph`, and the
        encoder's ``profile`` has a name of its own.
        """
        section = bundle.encoder_decoder
        traces = (None, None) if profile is None else (profile.with_name(f"{profile.name}-encoder"), profile)
        encoder, decoder = (
            load_graph(bundle, threads=threads, provider=provider, graph=graph, profile=trace)
            for graph, trace in zip((bundle.encoder_graph, bundle.graph), traces, strict=True)
        )
        return cls(encoder, decoder, section)

    def _checked(self) -> list[str]:
        """The outputs of the decoder's graph, in the order in which they are asked for."""
        return _checked(self.encoder, self.session, self.section)

    def prefill(self, texts: Sequence[Sequence[int]], *, new_tokens: int = 0) -> Logits:
        """Read ``texts`` and begin an answer to each, with room for ``new_tokens`` after its first; the
        logits ``[batch, vocab]`` of that.
        """
        if not len(texts):
            raise InputError("there are no texts to read")
        rows = [self.reads.row(text)[0] for text in texts]
        self.reads.check_room(max(map(len, rows)))
        self.limits.check_room(1 + new_tokens)
        ids = np.full((len(rows), max(map(len, rows))), self.section.pad_token_id or 0, np.int64)
        mask = np.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)], mask[number, : len(row)] = row, 1
        self.read(ids, mask)
        logits = self._suppressed(self.write(self._start())[:, -1])
        if self.section.first_token_id is not None:
            logits[:] = -np.inf
            logits[:, self.section.first_token_id] = 0
        self._begun = self._written, self.lengths
        return logits

    def step(self, tokens: Sequence[int]) -> Logits:
        """Append one id to every answer; as :meth:`prefill` otherwise."""
        if len(tokens) != len(self.lengths):
            raise InputError(f"{len(tokens)} rows were given for {len(self.lengths)} answers")
        return self._suppressed(self.write(self.limits.row(tokens).reshape(-1, 1))[:, -1])

    def listen(self, sounds: Samples, prompt: Sequence[Sequence[int]], *, new_tokens: int = 0) -> Logits:
        """Hear ``sounds [batch, samples]`` and begin an answer to each: behind the start the likeliest token
        of each place of ``prompt``, which :attr:`prompts` keeps; otherwise as :meth:`prefill`.
        """
        self.limits.check_room(1 + len(prompt) + new_tokens)
        self.hear(sounds)
        logits, self.prompts = self.write(self._start())[:, -1], np.empty((len(sounds), 0), np.int64)
        for place in prompt:
            chosen = np.asarray(place, np.int64)[logits[:, place].argmax(-1), None]
            self.prompts = np.concatenate([self.prompts, chosen], axis=1)
            logits = self.write(chosen)[:, -1]
        logits[:, self.section.first_suppressed_ids] = -np.inf
        self._begun = self._written, self.lengths
        return self._suppressed(logits)

    def rewind(self) -> None:
        """Back to where the answers began, after :meth:`prefill` or :meth:`listen`."""
        self._written, self.lengths = self._begun

    def _start(self) -> Ids:
        return np.full((len(self.lengths), 1), self.section.start_token_id, np.int64)

    def _suppressed(self, logits: Logits) -> Logits:
        """``logits [batch, vocab]`` with minus infinity for tokens that are never written."""
        logits[:, self.section.suppressed_ids] = -np.inf
        return logits

    def read(self, ids: Ids, mask: Ids) -> None:
        """Read ``ids [batch, tokens]``, of which ``mask`` says the real ones, and begin answers."""
        self._begin({"input_ids": ids, "attention_mask": mask}, {"encoder_attention_mask": mask}, len(ids))

    def hear(self, sounds: Samples) -> None:
        """Read ``sounds [batch, samples]``, as long as the graph has them, and begin answers."""
        self._begin({SOUND: sounds}, {}, len(sounds))

    def _begin(self, fed: dict[str, Any], kept: dict[str, Any], count: int) -> None:
        names = [node.name for node in self.encoder.get_outputs()]
        with graph_errors_are_typed("the encoder's graph failed"):
            found = self.encoder.run_with_ort_values(names, values(fed))
        self._read = dict(zip(names, found, strict=True)) | values(kept)
        dtype = self.section.kv_dtype
        empty = {
            f"{_PAST}{index}.{part}": np.zeros((count, layer.kv_heads, 0, layer.width(dtype)), dtype)
            for index, layer in enumerate(self.section.layers)
            for part in ("key", "value")
        }
        self._written, self.lengths = values(empty), [0] * count

    def write(self, ids: Ids) -> Logits:
        """Append ``ids [batch, tokens]`` to the answers; logits ``[batch, tokens, vocab]`` after each."""
        total = self.lengths[0] + ids.shape[1]
        self.limits.check_room(total)
        fed = {**values({"input_ids": np.ascontiguousarray(ids)}), **self._read, **self._written}
        with graph_errors_are_typed(f"the graph failed at token {total}"):
            logits, *present = self.session.run_with_ort_values(self._outputs, fed)
        self._written = dict(zip(self._written, present, strict=True))
        self.lengths = [total] * len(self.lengths)
        found: Logits = logits.numpy()
        return found


class Answer:
    """One text and its answer: what :func:`.generate.stream` asks of a decoder."""

    def __init__(self, model: EncoderDecoder) -> None:
        self.model, self.session, self.section = model, model.session, model.section

    def prefill(self, ids: Sequence[int], *, new_tokens: int = 0) -> Logits:
        """As :meth:`EncoderDecoder.prefill`, logits ``[vocab]``."""
        found: Logits = self.model.prefill([ids], new_tokens=new_tokens)[0]
        return found

    def step(self, token: int) -> Logits:
        """As :meth:`EncoderDecoder.step`, logits ``[vocab]``."""
        found: Logits = self.model.step([token])[0]
        return found


def values(arrays: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """ONNX Runtime's own of ``arrays``, by name."""
    return {name: owned_value(array) for name, array in arrays.items()}


def _checked(encoder: Any, session: Any, section: EncoderDecoderSection) -> list[str]:
    """The outputs of the decoder's graph, in the order in which they are asked for."""
    read = {node.name for node in encoder.get_outputs()}
    caches = [f"{index}.{part}" for index in range(len(section.layers)) for part in ("key", "value")]
    cross = {f"cross.{name}" for name in caches}
    pasts = {node.name: node.shape for node in session.get_inputs() if node.name.startswith(_PAST)}
    held = [*encoder.get_outputs(), *session.get_inputs(), *session.get_outputs()]
    held = [node for node in held if node.name.startswith((_PAST, _PRESENT, "cross."))]
    wanted = {"input_ids", *cross, *(f"{_PAST}{name}" for name in caches)}
    wanted |= set() if section.sound is not None else {"encoder_attention_mask"}
    given = {"input_ids", "attention_mask"} if section.sound is None else {SOUND}
    outputs = {node.name: node for node in session.get_outputs()}
    written = ["logits", *(f"{_PRESENT}{name}" for name in caches)]
    problems = []
    fed = {node.name: node.shape for node in encoder.get_inputs()}
    if read != cross or set(fed) != given:
        problems.append("the encoder's graph reads or gives something else")
    elif section.sound is not None and fed[SOUND][-1] != section.sound.samples:
        problems.append(f"the encoder's graph does not read {section.sound.samples} samples")
    if {node.name for node in session.get_inputs()} != wanted or set(outputs) != set(written):
        problems.append("the decoder's graph reads or gives something else")
    elif outputs["logits"].shape[-1] != section.vocab_size:
        problems.append(f"its logits are not over {section.vocab_size} tokens")
    elif any(
        [pasts[f"{_PAST}{index}.{part}"][place] for place in (1, 3)]
        != [layer.kv_heads, layer.width(section.kv_dtype)]
        for index, layer in enumerate(section.layers)
        for part in ("key", "value")
    ):
        problems.append("its caches have other sizes")
    elif any(node.type != TYPES[section.kv_dtype] for node in held):
        problems.append(f"its caches are not in {section.kv_dtype}")
    if problems:
        raise BundleError("the graphs are not those that the manifest describes", why="; ".join(problems))
    return written
