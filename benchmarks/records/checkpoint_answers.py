"""The checkpoint of an encoder–decoder under measurement: what it writes of an input, in torch.

transformers' decoders cut in front of their heads: see :mod:`.answer_subjects`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...compress.model.generation_tokens import GenerationTokens
from ...compress.model.weights import WeightSource
from ...runtime.engine.batch_decoder import REPLIES_AT_ONCE
from ...runtime.text.tokenizer import Tokenizer
from .answer_subjects import Numbers

Ids = NDArray[np.int64]
Step = Callable[[], None]


class CheckpointAnswers:
    """transformers' ``model``, loaded from ``source``; see :class:`.answer_subjects.AnswerModel`.

    Answers are chosen as the runtime of bundles chooses them: the likeliest token each time, but for one that
    is forced in front and those that are never written.
    """

    def __init__(self, model: Any, source: WeightSource, tokenizer: Tokenizer, device: torch.device) -> None:
        self._model, self._device = model, device
        without_own_settings(model)
        tokens = GenerationTokens.of(source)
        self.start, self._first = tokens.start(), tokens.one("forced_bos_token_id")
        self._never, self._ends = tokens.never(), frozenset(tokenizer.eos_ids)
        self._pad = tokenizer.pad_id or 0
        self.reads, self.writes = source.anatomy.max_positions, source.anatomy.max_positions - 1
        self.vocabulary = source.anatomy.vocab_size

    @torch.inference_mode()
    def logits(self, inputs: Ids, written: Ids) -> NDArray[np.float32]:
        """As :meth:`.answer_subjects.AnswerModel.logits`."""
        ids = self._tensor(inputs)
        found = self._model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            decoder_input_ids=self._tensor(written),
            use_cache=False,
        )
        return np.asarray(found.logits.float().cpu().numpy(), np.float32)

    def _tensor(self, ids: Ids) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(ids)).to(self._device)

    def answers(
        self, inputs: Sequence[list[int]], new_tokens: int, step: Step | None = None
    ) -> list[list[int]]:
        """As :meth:`.answer_subjects.AnswerModel.answers`."""
        return [
            answer
            for start in range(0, len(inputs), REPLIES_AT_ONCE)
            for answer in self._side_by_side(inputs[start : start + REPLIES_AT_ONCE], new_tokens, step)
        ]

    @torch.inference_mode()
    def _side_by_side(
        self, inputs: Sequence[list[int]], new_tokens: int, step: Step | None
    ) -> list[list[int]]:
        longest = max(map(len, inputs))
        ids = np.array([row + [self._pad] * (longest - len(row)) for row in inputs], np.int64)
        mask = np.array([[1] * len(row) + [0] * (longest - len(row)) for row in inputs], np.int64)
        settings = greedy_settings(
            new_tokens,
            sorted(self._ends),
            self._pad,
            decoder_start_token_id=self.start,
            forced_bos_token_id=self._first,
            suppress_tokens=self._never or None,
        )
        found = self._model.generate(
            input_ids=self._tensor(ids),
            attention_mask=self._tensor(mask),
            generation_config=settings,
            stopping_criteria=stepping(step),
        )
        return [until(row, self._ends) for row in found[:, 1:].tolist()]


def greedy_settings(new_tokens: int, ends: Sequence[int], pad: int, **more: Any) -> Any:
    """transformers' settings of greedy replies."""
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=False, max_new_tokens=new_tokens, eos_token_id=list(ends) or None, pad_token_id=pad, **more
    )


def without_own_settings(model: Any) -> None:
    """Let transformers' ``model`` forget its own settings: ``generate`` adds what they say of beams, lengths
    and repetitions to any that are silent of it, and a bundle has none of that."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig()


def stepping(step: Step | None) -> Any:
    """Criteria that never stop and call ``step`` after each token."""
    from transformers import StoppingCriteriaList

    def stepped(ids: torch.Tensor, _scores: torch.Tensor, **_: Any) -> torch.Tensor:
        if step is not None:
            step()
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    return StoppingCriteriaList([stepped])


def until(ids: list[int], ends: frozenset[int]) -> list[int]:
    """``ids`` to the first of ``ends``, with it."""
    place = next((place for place, token in enumerate(ids) if token in ends), len(ids) - 1)
    return ids[: place + 1]


class TorchBehindBlocks:
    """transformers' ``model``. Of states it computes what it does with all of its parts, by the same code on
    the same numbers: what comes before is passed over.
    """

    def __init__(self, model: nn.Module, device: torch.device, width: int) -> None:
        self._model, self._device, self.width = model, device, width
        decoder: Any = model.get_decoder()  # type: ignore[operator]
        self._blocks: nn.Module = decoder

    @torch.inference_mode()
    def read(self, input_ids: NDArray[np.int64]) -> tuple[Numbers, Numbers | None]:
        """As :meth:`BehindBlocks.read`."""
        seen: list[torch.Tensor] = []
        handle = self._blocks.register_forward_hook(lambda *given: seen.append(given[-1][0]))
        try:
            logits = self._logits(torch.from_numpy(np.ascontiguousarray(input_ids)))
        finally:
            handle.remove()
        if self._blocks is self._model or len(seen) != 1 or seen[0].dtype != torch.float32:
            return logits, None
        return logits, seen[0].cpu().numpy() if seen[0].shape[-1] == self.width else None

    @torch.inference_mode()
    def logits(self, states: Numbers) -> Numbers:
        """As :meth:`BehindBlocks.logits`."""
        batch, length, _ = states.shape
        # In memory of torch's own, aligned as it was: sums may depend on that.
        with self._blocks_give(torch.tensor(states, device=self._device)):
            return self._logits(torch.zeros(batch, length, dtype=torch.int64))

    def _logits(self, ids: torch.Tensor) -> Numbers:
        ids = ids.to(self._device)
        found = self._model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        return np.asarray(found.float().cpu().numpy(), np.float32)

    @contextmanager
    def _blocks_give(self, states: torch.Tensor) -> Iterator[None]:
        blocks: Any = self._blocks
        blocks.forward = lambda *_, **__: _LastStates(states)
        try:
            yield
        finally:
            del blocks.forward


class _LastStates:
    """What a stack of blocks returns, where nothing but its last states is asked for."""

    def __init__(self, states: torch.Tensor) -> None:
        self.last_hidden_state = states

    def __getitem__(self, place: int) -> torch.Tensor:
        return (self.last_hidden_state,)[place]

    def __getattr__(self, name: str) -> None:
        """Caches, attentions, the choices of routers: none."""
        return
