"""A checkpoint under measurement, dense or compressed: its logits, embeddings and labels come from torch."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ...compress.model.models import ResolvedModel
from ...compress.model.pooling import pooling_of
from ...compress.model.torch_model import label_logits, load_model, tower_vectors
from ...compress.model.weights import MANIFEST, WeightSource
from ...compress.pipeline.device import choose_device
from ...errors import InputError
from ...files.limits import require_threads
from ...files.storage import sha256_file
from ...runtime.engine.batch_decoder import REPLIES_AT_ONCE
from ...runtime.engine.encoder_answers import LabelForm
from ...runtime.session.threads import thread_budget
from ...runtime.text.greedy_loops import prompt_ids
from ...runtime.text.tokenizer import Tokenizer
from .answer_subjects import AnswerModel, BehindBlocks, answers_to, copying_logits
from .checkpoint_answers import (
    CheckpointAnswers,
    TorchBehindBlocks,
    greedy_settings,
    stepping,
    until,
    without_own_settings,
)
from .record import Subject, learning_curves

BATCH_SIZE = 32
FLOAT_NAMES = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}


class CheckpointSubject:
    """An opened checkpoint.

    Attributes:
        kind: decoder or encoder; that of an encoder–decoder is its decoder's, which is given, behind the
            token that answers begin with, the text that the encoder reads.
        tokenizer: its own; labels: of a classifier, read as ``label_form`` says.
        answering: of an encoder–decoder, what it writes of an input.
        behind_blocks: of a decoder, its last states.
        max_length: tokens that fit one window or text.
        runtime: name, version, device and threads of what runs it.
    """

    def __init__(
        self,
        resolved: ResolvedModel,
        source: WeightSource,
        *,
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        self._resolved, self._source = resolved, source
        anatomy = self._source.anatomy
        self.kind: Literal["decoder", "encoder"] = "encoder" if anatomy.kind == "encoder" else "decoder"
        head = anatomy.classifier
        self.labels = () if head is None else head.labels
        self.label_form = LabelForm() if head is None else LabelForm(head.labelled, head.several)
        self.tokenizer = Tokenizer.open(resolved.path)
        self._pooling = pooling_of(resolved.path) if self.kind == "encoder" else None
        self._tower = anatomy.tower
        room = anatomy.max_positions - (anatomy.kind == "encoder_decoder")
        self.max_length = min(room, (self._pooling and self._pooling.max_length) or room)
        self._device = choose_device(device)
        torch.set_num_threads(require_threads(threads) or thread_budget())
        self._model = load_model(source, device=self._device)
        self.answering: AnswerModel | None = None
        if anatomy.kind == "encoder_decoder":
            self.answering = CheckpointAnswers(self._model, self._source, self.tokenizer, self._device)
        self.behind_blocks: BehindBlocks | None = None
        if anatomy.kind == "decoder":
            self.behind_blocks = TorchBehindBlocks(self._model, self._device, anatomy.hidden_size)
        self.runtime = torch_runtime(self._device)

    def logits(self, input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits ``[batch, length, vocab]`` at every position of ``input_ids [batch, length]``."""
        if self.kind != "decoder":
            raise InputError("an encoder has embeddings, not logits")
        if self.answering is not None:
            return copying_logits(self.answering, input_ids)
        assert self.behind_blocks is not None
        return self.behind_blocks.read(input_ids)[0]

    @torch.inference_mode()
    def greedy(
        self, prompts: Sequence[str], new_tokens: int, step: Callable[[], None] | None = None
    ) -> list[list[int]]:
        """What the model replies to each of ``prompts``, as ids; empty where they do not fit."""
        if self.kind != "decoder":
            raise InputError("an encoder has embeddings, and writes no text")
        if self.answering is not None:
            return answers_to(self.answering, self.tokenizer, prompts, new_tokens, step)
        ids = prompt_ids(self.tokenizer, prompts)
        if max(map(len, ids)) + new_tokens > self.max_length:
            return []
        return [
            reply
            for start in range(0, len(ids), REPLIES_AT_ONCE)
            for reply in self._replies(ids[start : start + REPLIES_AT_ONCE], new_tokens, step)
        ]

    def _replies(
        self, prompts: Sequence[list[int]], new_tokens: int, step: Callable[[], None] | None
    ) -> list[list[int]]:
        """Side by side, from the right end of each prompt on."""
        longest, ends = max(map(len, prompts)), sorted(self.tokenizer.eos_ids)
        pad = self.tokenizer.pad_id or 0
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in prompts], device=self._device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts])
        without_own_settings(self._model)
        found = self._model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=mask.to(self._device),
            generation_config=greedy_settings(new_tokens, ends, pad),
            stopping_criteria=stepping(step),
        )
        return [until(row, frozenset(ends)) for row in found[:, longest:].tolist()]

    @torch.inference_mode()
    def embeddings(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Sentence embeddings ``[len(texts), hidden]``, pooled as the model's files say."""
        pooling = self._pooling
        if pooling is None:
            raise InputError("a decoder has logits, not embeddings")
        if self.labels:
            raise InputError("a classifier has labels, not embeddings")
        if self._tower is not None:
            return self._answers(texts, self._vectors_of_tower)
        return self._answers(
            texts, lambda ids, mask: pooling.apply(self._model(input_ids=ids, attention_mask=mask)[0], mask)
        )

    def _vectors_of_tower(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert self._tower is not None
        padding = {} if self._tower.filled else {"attention_mask": mask}
        return tower_vectors(self._model(input_ids=ids, **padding))

    @torch.inference_mode()
    def label_logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """A classifier's logits ``[texts or tokens, labels]``."""
        if not self.labels:
            raise InputError("this model is no classifier: it has no labels")
        return self._answers(
            texts, lambda ids, mask: label_logits(self._model(input_ids=ids, attention_mask=mask))
        )

    def _answers(
        self, texts: Sequence[str], ask: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> NDArray[np.float32]:
        """What ``ask`` gives for batches of texts of like length, a row a text or token."""
        ids = self.tokenizer.encode_batch(texts, max_length=self.max_length)
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        rows: dict[int, NDArray[np.float32]] = {}
        for start in range(0, len(order), BATCH_SIZE):
            chosen = order[start : start + BATCH_SIZE]
            padded, mask = self._padded([ids[index] for index in chosen])
            rows |= dict(zip(chosen, ask(padded, mask).float().cpu().numpy(), strict=True))
        if self.label_form.by_token:
            return np.concatenate([rows[index][: len(ids[index])] for index in range(len(ids))])
        return np.stack([rows[index] for index in range(len(ids))])

    def _padded(self, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        longest = max(map(len, rows))
        if self._tower is not None and self._tower.filled:
            longest = self.max_length
        pad = self.tokenizer.pad_id or 0
        padded = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        return padded.to(self._device), mask.to(self._device)

    def read_ahead(self, windows: NDArray[np.int64]) -> None:
        """Nothing: the model is in memory."""

    @cached_property
    def content_sha256(self) -> str:
        """The hash of all that its answers are made of."""
        return self._source.reader.fingerprint()

    def describe(self) -> Subject:
        """The checkpoint as records name it."""
        kind = "classifier" if self.labels else self.kind
        return describe_checkpoint(self._source, self._resolved, kind, lambda: self.content_sha256)


def torch_runtime(device: torch.device) -> dict[str, Any]:
    """What runs a checkpoint, for a record: torch, where and with how many threads."""
    version, threads = torch.__version__, torch.get_num_threads()
    return {"name": "torch", "version": version, "device": str(device), "threads": threads}


def describe_checkpoint(
    source: WeightSource,
    resolved: ResolvedModel,
    kind: Literal["decoder", "encoder", "classifier"],
    fingerprint: Callable[[], str] | None = None,
) -> Subject:
    """The checkpoint ``source`` as records name it: by its manifest's hash, else by its ``fingerprint``."""
    reader, manifest = source.reader, source.manifest
    fingerprint = fingerprint or reader.fingerprint
    origin, manifest_file = manifest.get("source") or {}, reader.path / MANIFEST
    return Subject(
        name=str(origin.get("name") or resolved.name),
        manifest_sha256=sha256_file(manifest_file) if manifest_file.is_file() else fingerprint(),
        kind=kind,
        format="hf",
        scheme=str(manifest.get("scheme") or _stored_as(source)),
        source=str(origin.get("described") or resolved.described),
        params=sum(math.prod(shape) for shape in source.shapes.values()),
        weight_bytes=sum(map(reader.nbytes, reader.shapes)),
        disk_bytes=sum(file.stat().st_size for file in reader.path.rglob("*") if file.is_file()),
        layers=manifest.get("layers") or [],
        recipe=manifest.get("recipe"),
        learning=learning_curves(manifest.get("steps") or []),
    )


def _stored_as(source: WeightSource) -> str:
    """The scheme most linears have, or the float type most weights are stored in."""
    if source.schemes:
        return Counter(scheme.name for scheme in source.schemes.values()).most_common(1)[0][0]
    stored = Counter[str]()
    for name, shape in source.reader.shapes.items():
        stored[source.reader.dtypes[name]] += math.prod(shape)
    dtype = stored.most_common(1)[0][0]
    return FLOAT_NAMES.get(dtype, dtype.lower())
