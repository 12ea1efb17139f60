"""The inputs of every block: captured once at the first block, then kept on disk from one block to the next.

This is the one way by which calibration text reaches blocks. :func:`capture` runs token batches up to the
first block; a :class:`Stream` is one run of the batches through the model. A sweep has several: the inputs
of the partly compressed model, those of the original, and short probes. All are read a batch at a time, so
that memory holds one block and one batch, whatever the model's size.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import save_file
from torch import Tensor, nn

from ...errors import CalibrationError, CheckpointError
from ..model.block_anatomy import BlockAnatomy
from ..model.family import gives_tuples
from ..model.skeleton import Skeleton
from .device import return_small_blocks
from .forward import Batch, BatchSplitter, StopForward, finite_samples, nonfinite, propagate, until_stopped


class Tokens(Protocol):
    """``input_ids`` and ``attention_mask``, both ``[batch, tokens]``."""

    @property
    def input_ids(self) -> Tensor: ...

    @property
    def attention_mask(self) -> Tensor: ...


@dataclass(frozen=True)
class BatchContext:
    """What a batch keeps: the keyword arguments of each block, and the mask of its real tokens."""

    arguments: Sequence[Mapping[str, Any]]
    mask: Tensor | None


class _Recorder(nn.Module):
    """Stands in for a block: keeps what it was called with and hands the hidden states on; of what else it is
    asked, such as the kind of its attention, the block knows.
    """

    def __init__(self, block: nn.Module, *, last: bool, tuples: bool) -> None:
        super().__init__()
        self.block = (block,)  # in a tuple, so that it is no part of this module
        self.names = list(signature(block.forward).parameters)[1:]
        self.last, self.tuples = last, tuples
        self.hidden: Tensor | None = None
        self.arguments: dict[str, Any] = {}

    def forward(self, hidden_states: Tensor, *positional: Any, **named: Any) -> Any:
        self.hidden = hidden_states
        self.arguments = {**dict(zip(self.names, positional, strict=False)), **named}
        if self.last:
            raise StopForward
        return (hidden_states, None) if self.tuples else hidden_states

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.block[0], name)


def block_inputs(
    skeleton: Skeleton, model: nn.Module, input_ids: Tensor, attention_mask: Tensor | None
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Hidden states ``[batch, tokens, hidden]`` at the first block, and the keyword arguments that each block
    is called with: masks may differ from block to block.

    Raises:
        CheckpointError: the model's code never called its blocks.
    """
    blocks = skeleton.block_modules()
    kept = list(blocks)
    tuples = gives_tuples(skeleton.source.reader.config)
    recorders = [_Recorder(block, last=block is kept[-1], tuples=tuples) for block in kept]
    extra = {"use_cache": False} if skeleton.anatomy.kind == "decoder" else {}
    try:
        for index, recorder in enumerate(recorders):
            blocks[index] = recorder
        until_stopped(lambda: model(input_ids=input_ids, attention_mask=attention_mask, **extra))
    finally:
        for index, block in enumerate(kept):
            blocks[index] = block
    hidden = recorders[0].hidden
    if hidden is None or recorders[-1].hidden is None:
        raise CheckpointError(f"the blocks of a {skeleton.anatomy.model_type} model were never called")
    return hidden, [recorder.arguments for recorder in recorders]


def capture(
    skeleton: Skeleton, batches: Iterable[Tokens], *, rounded: bool = False
) -> Iterator[tuple[Tensor, BatchContext]]:
    """For each of ``batches`` its hidden states ``[batch, tokens, hidden]`` at the first block, and what it
    keeps for all blocks; the embedding is ``rounded`` as exports store it.
    """
    device = skeleton.device
    with skeleton.embeddings(rounded=rounded) as model:
        for batch in batches:
            padded = not bool(batch.attention_mask.all())
            mask = batch.attention_mask.to(device) if padded else None
            hidden, arguments = block_inputs(skeleton, model, batch.input_ids.to(device), mask)
            yield hidden, BatchContext(arguments, None if mask is None else mask.to(torch.bool))


class Stream:
    """Batches at any block; ``directory`` holds one folder of hidden states a block.

    Args:
        entries: one a batch.
    """

    def __init__(self, directory: Path, entries: Sequence[BatchContext], device: torch.device) -> None:
        self.directory, self.entries, self.device = directory, entries, device

    @classmethod
    def capture(
        cls, directory: Path, skeleton: Skeleton, batches: Iterable[Tokens], *, rounded: bool = False
    ) -> Stream:
        """A stream of ``batches`` at the first block, in the place of what was in ``directory``; the
        embedding is ``rounded`` as exports store it.
        """
        shutil.rmtree(directory, ignore_errors=True)  # a killed run may have left a longer one
        entries: list[BatchContext] = []
        stream = cls(directory, entries, skeleton.device)
        for number, (hidden, entry) in enumerate(capture(skeleton, batches, rounded=rounded)):
            stream.write(0, number, hidden)
            entries.append(entry)
        return stream

    def empty(self, name: str) -> Stream:
        """A stream of the same batches, in the folder ``name`` beside this one, without states yet."""
        directory = self.directory.parent / name
        shutil.rmtree(directory, ignore_errors=True)
        return Stream(directory, self.entries, self.device)

    def fork(self, name: str, block: int, to: int | None = None) -> Stream:
        """A stream that has this one's inputs of ``block``, as its inputs of the block ``to``."""
        stream = self.empty(name)
        shutil.copytree(self._folder(block), stream._folder(block if to is None else to))
        return stream

    def _folder(self, block: int) -> Path:
        return self.directory / f"{block:04d}"

    def holds(self, block: int) -> bool:
        """Whether the inputs of ``block`` are there."""
        return self._folder(block).is_dir()

    def write(self, block: int, number: int, hidden: Tensor) -> Path:
        """Make ``hidden [batch, tokens, hidden]`` the inputs of ``block`` for batch ``number``."""
        path = self._folder(block) / f"{number:05d}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"hidden": hidden.cpu().contiguous()}, path)
        return path

    def batches(self, block: int) -> Iterator[Batch]:
        """The inputs of ``block``, one batch at a time; one past the last block, the outputs of that. Samples
        that hold NaN or infinity are masked: see :meth:`raw`.
        """
        yield from map(finite_samples, self.raw(block))

    def raw(self, block: int) -> Iterator[Batch]:
        """:meth:`batches` as they are: a sample that is not finite once stays so, since NaN only spreads."""
        for number in range(len(self.entries)):
            yield self.read(block, number)

    def read(self, block: int, number: int) -> Batch:
        """Batch ``number`` as it enters ``block``."""
        entry = self.entries[number]
        data = (self._folder(block) / f"{number:05d}.safetensors").read_bytes()
        arguments = entry.arguments[block] if block < len(entry.arguments) else {}
        return Batch(load_bytes(data)["hidden"].to(self.device), arguments, entry.mask)

    def rows(self, block: int) -> Iterator[Tensor]:
        """Of each batch the states ``[tokens, hidden]`` of its real tokens at ``block``."""
        for batch in self.raw(block):
            rows = batch.hidden.flatten(0, 1)
            yield rows if batch.mask is None else rows[batch.mask.flatten()]

    def advance(
        self,
        block: int,
        module: nn.Module,
        smaller: BatchSplitter,
        *,
        to: int | None = None,
        keep: bool = False,
        check: Callable[[Tensor, Batch], None] | None = None,
    ) -> list[Path]:
        """Run the batches through ``block``, which is ``module``: its outputs become the inputs of the block
        ``to``, by default the next; those of ``block`` are dropped unless ``keep`` is set.

        ``check`` sees each output and its batch. Returns the files.
        """
        to, files = block + 1 if to is None else to, []
        self.drop(to)
        for number, batch in enumerate(self.raw(block)):
            output = propagate(module, batch, smaller)
            if check is not None:
                check(output, batch)
            files.append(self.write(to, number, output))
        if not keep:
            self.drop(block)
        return files

    def drop(self, block: int) -> None:
        """Forget the inputs of ``block``."""
        shutil.rmtree(self._folder(block), ignore_errors=True)


class BlockRunner:
    """Runs streams through the blocks of a model in float32, each loaded when it is needed.

    ``smaller`` says in how many micro-batches a batch is run.
    """

    def __init__(self, skeleton: Skeleton, smaller: BatchSplitter) -> None:
        self.skeleton, self.smaller = skeleton, smaller
        self.blocks: Sequence[BlockAnatomy] = skeleton.anatomy.blocks

    @contextmanager
    def loaded(self, index: int) -> Iterator[nn.Module]:
        """transformers' block ``index`` with its weights, for as long as the context lasts."""
        prefix = self.blocks[index].prefix
        try:
            yield self.skeleton.fill(prefix)
        finally:
            self.skeleton.free(prefix)
            return_small_blocks()

    def advance(
        self, stream: Stream, index: int, module: nn.Module, to: int | None = None, *, keep: bool = False
    ) -> None:
        """Run ``stream`` through the block ``index``, which is ``module``; its outputs become the inputs of
        the block ``to``, by default the next. Those of ``index`` are dropped unless ``keep`` is set.

        Raises:
            CalibrationError: some outputs are NaN or infinity; names the block.
        """

        def check(output: Tensor, batch: Batch) -> None:
            self.check(index, output, batch.mask)

        stream.advance(index, module, self.smaller, to=to, keep=keep, check=check)

    def check(self, index: int, output: Tensor, mask: Tensor | None) -> None:
        """Refuse an ``output [batch, tokens, hidden]`` of the block ``index``; raises as :meth:`advance`."""
        if bool(nonfinite(output, mask).any()):
            raise CalibrationError(
                f"{self.blocks[index].prefix} turns samples into NaN or infinity",
                fix="check the model with `edgepress inspect`, or calibrate on other text",
            )
