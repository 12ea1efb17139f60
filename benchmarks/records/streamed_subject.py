"""A decoder checkpoint that does not fit memory, under measurement: its blocks are loaded one at a time.

Told which windows it will be asked for, it sends all of them through its blocks once; a window that it was
not stated goes alone, at the cost of reading the whole model. It writes no replies, which would take such a
pass for every token.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ...compress.model.models import ResolvedModel
from ...compress.model.skeleton import Head, Skeleton
from ...compress.model.weights import WeightSource
from ...compress.pipeline.device import choose_device
from ...compress.pipeline.last_states import last_states
from ...compress.text.token_batch import TokenBatch
from ...errors import InputError
from ...files.limits import require_threads
from ...runtime.engine.encoder_answers import LabelForm
from ...runtime.session.threads import free_memory, thread_budget
from ...runtime.text.tokenizer import Tokenizer
from ...terminal.progress import Progress
from .answer_subjects import AnswerModel, BehindBlocks
from .checkpoint_subject import describe_checkpoint, torch_runtime
from .record import Subject

Ids = NDArray[np.int64]

# Weights in float32 may take so much of the free memory: torch makes copies while it loads them.
_SHARE = 0.5


def needs_streaming(source: WeightSource, memory: int | None = None) -> bool:
    """Whether the float32 weights of the decoder ``source`` would take more than half of the ``memory``, in
    bytes; of what is free when None.
    """
    if source.anatomy.kind != "decoder":
        return False
    weights = 4 * sum(map(math.prod, source.shapes.values()))
    return weights > _SHARE * (free_memory() if memory is None else memory)


class StreamedSubject:
    """A decoder whose weights stay on disk.

    Attributes:
        tokenizer: its own; max_length: tokens that fit one window.
        runtime: name, version, device and threads of what runs it, and that it is streamed.
    """

    kind: Literal["decoder", "encoder"] = "decoder"
    labels: tuple[str, ...] = ()
    label_form = LabelForm()
    answering: AnswerModel | None = None

    def __init__(
        self,
        resolved: ResolvedModel,
        source: WeightSource,
        progress: Progress,
        *,
        device: str,
        threads: int | None,
    ) -> None:
        self._resolved, self._source, self._progress = resolved, source, progress
        self.tokenizer = Tokenizer.open(resolved.path)
        self.max_length = source.anatomy.max_positions
        torch.set_num_threads(require_threads(threads) or thread_budget())
        self._skeleton = Skeleton(source, choose_device(device))
        self._states: dict[bytes, torch.Tensor] = {}
        self._open = ExitStack()
        self._head: Head | None = None
        self.runtime = {**torch_runtime(self._skeleton.device), "streamed": True}

    def read_ahead(self, windows: Ids) -> None:
        """Send ``windows [n, length]`` through the blocks, in one pass over the weights."""
        batches = [TokenBatch(torch.from_numpy(row[None]), torch.ones(1, len(row))) for row in windows]
        with tempfile.TemporaryDirectory(prefix="edgepress-states-") as directory:
            rows = last_states(
                self._skeleton, batches, Path(directory), self._progress, "reading with the original"
            )
        for window, states in zip(windows, torch.split(rows, windows.shape[1]), strict=True):
            # Alone in its memory, as what comes from the cache is: sums may depend on that.
            self._states[window.tobytes()] = states.clone()

    def logits(self, input_ids: Ids) -> NDArray[np.float32]:
        """Logits ``[batch, length, vocab]`` at every position of ``input_ids [batch, length]``."""
        return self._logits(self._states_of(input_ids))

    def _states_of(self, input_ids: Ids) -> list[torch.Tensor]:
        if any(row.tobytes() not in self._states for row in input_ids):
            self.read_ahead(input_ids)
        return [self._states[row.tobytes()] for row in input_ids]

    def _logits(self, states: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        if self._head is None:
            self._head = self._open.enter_context(self._skeleton.head())
        return np.stack([self._head(rows).float().cpu().numpy() for rows in states])

    @property
    def behind_blocks(self) -> BehindBlocks | None:
        """Its last states."""
        width = self._source.anatomy.hidden_size
        return _Streamed(self._states_of, self._logits, self._skeleton.device, width)

    def greedy(
        self, prompts: Sequence[str], new_tokens: int, step: Callable[[], None] | None = None
    ) -> list[list[int]]:
        """Nothing: every token would read the whole model again."""
        return []

    def embeddings(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """A decoder has none."""
        raise InputError("a decoder has logits, not embeddings")

    def label_logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """A decoder has none."""
        raise InputError("this model is no classifier: it has no labels")

    @cached_property
    def content_sha256(self) -> str:
        """The hash of all that its answers are made of."""
        return self._source.reader.fingerprint()

    def describe(self) -> Subject:
        """The checkpoint as records name it."""
        return describe_checkpoint(self._source, self._resolved, "decoder", lambda: self.content_sha256)


@dataclass(frozen=True)
class _Streamed:
    """See :class:`.answer_subjects.BehindBlocks`."""

    states_of: Callable[[Ids], list[torch.Tensor]]
    logits_of: Callable[[Sequence[torch.Tensor]], NDArray[np.float32]]
    device: torch.device
    width: int

    def read(self, input_ids: Ids) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        states = self.states_of(input_ids)
        return self.logits_of(states), torch.stack(states).cpu().numpy()

    def logits(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.logits_of([torch.tensor(rows, device=self.device) for rows in states])
