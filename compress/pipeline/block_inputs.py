"""The inputs of every block: captured once at the first block, then kept on disk from one block to the next.

This is the one way by which calibration text reaches blocks. :mod:`.capture` runs token batches up to the
first block; a :class:`Stream` is one run of the batches through the model. A sweep has several: the inputs
of the partly compressed model, those of the original, and short probes. All are read a batch at a time, so
that memory holds one block and one batch, whatever the model's size.

A batch of an encoder–decoder has states of two kinds: while its encoder's go through the encoder, those at
the decoder's first block wait beside them; in the decoder the encoder's last ones stay beside its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import save_file
from torch import Tensor, nn

from ...errors import CalibrationError
from ..model.block_anatomy import BlockAnatomy
from ..model.skeleton import Skeleton
from .capture import MEMORY, BatchContext, Tokens, capture
from .device import return_small_blocks
from .forward import Batch, BatchSplitter, finite_samples, nonfinite, propagate

# States in the files of a stream: those that enter a block, and those of the other stack.
HIDDEN, BESIDE = "hidden", "beside"


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
        for number, (hidden, waiting, entry) in enumerate(capture(skeleton, batches, rounded=rounded)):
            stream.write(0, number, hidden, waiting)
            entries.append(entry)
        return stream

    def empty(self, name: str) -> Stream:
        """A stream of the same batches, in the folder ``name`` beside this one, without states yet."""
        directory = self.directory.parent / name
        shutil.rmtree(directory, ignore_errors=True)
        return Stream(directory, self.entries, self.device)

    def fork(self, name: str, block: int, to: int | None = None) -> Stream:
        """A stream that has this one's inputs of ``block``, as its inputs of the block ``to``: in the decoder
        of an encoder–decoder where ``block`` is the encoder's.
        """
        stream, to = self.empty(name), block if to is None else to
        if any(entry.crosses(block, to) for entry in self.entries):
            for number in range(len(self.entries)):
                states = self._states(block, number)
                stream.write(to, number, states[BESIDE], states[HIDDEN])
            return stream
        shutil.copytree(self._folder(block), stream._folder(to))
        return stream

    def _folder(self, block: int) -> Path:
        return self.directory / f"{block:04d}"

    def holds(self, block: int) -> bool:
        """Whether the inputs of ``block`` are there."""
        return self._folder(block).is_dir()

    def write(self, block: int, number: int, hidden: Tensor, beside: Tensor | None = None) -> Path:
        """Make ``hidden [batch, tokens, hidden]`` the inputs of ``block`` for batch ``number``; ``beside``
        are the states of the other stack of an encoder–decoder.
        """
        path = self._folder(block) / f"{number:05d}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        states = {HIDDEN: hidden} | ({} if beside is None else {BESIDE: beside})
        save_file({name: tensor.cpu().contiguous() for name, tensor in states.items()}, path)
        return path

    def states(self, block: int, number: int) -> tuple[Tensor, Tensor | None]:
        """What :meth:`write` wrote of batch ``number`` at ``block``."""
        found = self._states(block, number)
        return found[HIDDEN], found.get(BESIDE)

    def _states(self, block: int, number: int) -> dict[str, Tensor]:
        data = (self._folder(block) / f"{number:05d}.safetensors").read_bytes()
        return {name: tensor.to(self.device) for name, tensor in load_bytes(data).items()}

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
        entry, states = self.entries[number], self._states(block, number)
        arguments = dict(entry.arguments[block]) if block < len(entry.arguments) else {}
        if entry.crossing is None or not entry.decodes(block):
            return Batch(states[HIDDEN], arguments, entry.mask)
        with torch.no_grad():
            arguments[MEMORY] = entry.crossing.norm(states[BESIDE])
        return Batch(states[HIDDEN], arguments, entry.mask_at(block), entry.mask)

    def outputs(self, block: int) -> Iterator[Batch]:
        """What left ``block``, as :meth:`batches` has it; without arguments."""
        yield from map(finite_samples, self.left(block))

    def left(self, block: int, to: int | None = None) -> Iterator[Batch]:
        """:meth:`outputs` as they are, where they became the inputs of the block ``to``, by default the
        next.
        """
        to = block + 1 if to is None else to
        for number, entry in enumerate(self.entries):
            hidden = self._states(to, number)[BESIDE if entry.crosses(block, to) else HIDDEN]
            yield Batch(hidden, {}, entry.mask_at(block))

    def rows(self, block: int) -> Iterator[Tensor]:
        """Of each batch the states ``[tokens, hidden]`` of its real tokens at ``block``."""
        yield from map(real_rows, self.raw(block))

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
            states, beside = self.behind(block, to, number, output)
            files.append(self.write(to, number, states, beside))
        if not keep:
            self.drop(block)
        return files

    def behind(self, block: int, to: int, number: int, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """What enters the block ``to`` where ``output`` leaves ``block``, and what stays beside it."""
        entry = self.entries[number]
        if entry.crossing is None:
            return output, None
        beside = self._states(block, number)[BESIDE]
        return (beside, output) if entry.crosses(block, to) else (output, beside)

    def drop(self, block: int) -> None:
        """Forget the inputs of ``block``."""
        shutil.rmtree(self._folder(block), ignore_errors=True)


def begin(streams: Sequence[Stream], skeleton: Skeleton, batches: Iterable[Tokens], *, write: bool) -> None:
    """Give ``streams`` what they keep of ``batches`` for all blocks and, with ``write``, the inputs of the
    first block: captured once for all of them.
    """
    entries: list[BatchContext] = []
    for number, (hidden, waiting, entry) in enumerate(capture(skeleton, batches)):
        entries.append(entry)
        for stream in streams if write else ():
            if number == 0:
                stream.drop(0)
            stream.write(0, number, hidden, waiting)
    for stream in streams:
        stream.entries = entries


def real_rows(batch: Batch) -> Tensor:
    """The states ``[tokens, hidden]`` of the real tokens of ``batch``."""
    rows = batch.hidden.flatten(0, 1)
    return rows if batch.mask is None else rows[batch.mask.flatten()]


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
            yield self.skeleton.fill_block(index)
        finally:
            self.skeleton.free(prefix)
            return_small_blocks()

    def advance(
        self, stream: Stream, index: int, module: nn.Module, to: int | None = None, *, keep: bool = False
    ) -> None:
        """Run ``stream`` through the block ``index``, which is ``module``; its outputs become the inputs of
        the block ``to``, by default the next. Those of ``index`` are dropped unless ``keep`` is set.
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
