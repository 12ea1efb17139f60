"""Exact backpropagation with one block in memory: the gradient of a loss at the inputs of every block.

Forward, the inputs of each block stay on disk. Backward, the blocks are loaded in reverse: each runs again on
its inputs, takes the gradient of its output and hands on that of its input; on the way observers see what
goes through its modules and the gradients there. Weights do not learn. What observers find of a block is
written when it is done, with a journal entry: a killed sweep goes on there and ends with the same bytes.

The loss is that of :mod:`edgepress.compress.measure.fisher`, in an encoder–decoder of what its decoder
writes. Each block of that adds its gradient at the encoder's states to those of the blocks behind it, which
wait beside the gradient at its inputs; through the encoder's norm their sum is that of what left the encoder.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ...files.storage import sha256_json, write_atomic
from ...terminal.progress import Progress, ProgressTask
from ..measure.fisher import Measure, Observer, direction, looking, observed
from ..measure.reading import Precision, autocast
from ..model.skeleton import Head, Skeleton
from ..model.torch_model import round_inputs
from ..model.weights import WeightSource
from ..numbers.fake_quant import unwrap
from ..text.micro_batches import MicroBatch
from .block_inputs import BlockRunner, Stream
from .capture import MEMORY, BatchContext, capture
from .forward import Batch, BatchSplitter, block_output, require_few
from .journal import Journal

# What a micro-batch takes on the way back, in forward passes; and one that is looked at: its own, and as many
# as take about what observers do behind it.
_BACK, _LOOKED = 3, 7

Unit = dict[str, Any]


class BackwardSweep:
    """Runs ``micro_batches`` through the model of ``source`` and back; what it writes is in ``directory``.

    Micro-batches that the model turns into NaN or infinity are not sent back, nor are those of ``looked_at``,
    which observers that look first are shown before. ``seed`` is of what the loss draws; ``dtype`` of weights
    and states, as far as ``precision`` has no other.
    """

    def __init__(
        self,
        source: WeightSource,
        micro_batches: Sequence[MicroBatch],
        device: torch.device,
        progress: Progress,
        directory: Path,
        *,
        precision: Precision = "auto",
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        looked_at: Sequence[MicroBatch] = (),
    ) -> None:
        self.source, self.device = source, device
        self.micro_batches, self.sent_back = [*micro_batches, *looked_at], len(micro_batches)
        self.progress, self.directory = progress, directory
        self.precision, self.seed = precision, seed
        self.skeleton = Skeleton(source, device, dtype)
        self.runner = BlockRunner(self.skeleton, BatchSplitter(progress.note))
        self.blocks = self.runner.blocks
        self.inputs = Stream(directory / "activations" / "inputs", [], device)
        self.gradients = Stream(directory / "activations" / "gradients", [], device)
        self.journal = Journal(directory, "")

    def run(self, title: str, measure: Measure) -> list[Path]:
        """What the observers of ``measure`` find, by their names: a safetensors file for each block."""
        tokens = [batch.tokens for batch in self.micro_batches]
        self.journal = Journal.open(self.directory, sha256_json([title, tokens, self.seed]))
        done = self.journal.resume()
        parts = [self.directory / "parts" / f"{block.index:04d}.safetensors" for block in self.blocks]
        if not (done == 1 and self.journal.units[0]["whole"]):
            self._sweep(title, measure, parts, done)
            # From now on only what was found has to be there.
            self.journal.units = []
            self.journal.add({"part": self.journal.hashes(parts), "activations": {}, "whole": True})
        shutil.rmtree(self.directory / "activations", ignore_errors=True)
        return parts

    def _sweep(self, title: str, measure: Measure, parts: Sequence[Path], done: int) -> None:
        count, many = len(self.blocks), len(self.micro_batches)
        back = [partial(self._backward, index, measure, parts[index]) for index in reversed(range(count))]
        steps: list[Callable[[ProgressTask], Unit]] = [
            partial(self._forward, index) for index in range(count)
        ]
        steps += [self._turn, *back]
        of_back = _BACK * self.sent_back + _LOOKED * (many - self.sent_back)
        sizes = [*[many] * count, self.sent_back, *[of_back] * count]
        with self.progress.task(title, sum(sizes)) as task:
            files = self._embed(write=done == 0)
            if done == 0:
                self.journal.add({"part": self.journal.hashes(files), "activations": {}, "whole": False})
                done = 1
            task.advance(sum(sizes[: done - 1]))
            for number, step in enumerate(steps[done - 1 :], done - 1):
                self.journal.add(step(task) | {"whole": False})
                if number > count:
                    self.gradients.drop(2 * count + 1 - number)

    def _embed(self, *, write: bool) -> list[Path]:
        """What each micro-batch keeps for all blocks, and the first block's inputs."""
        files: list[Path] = []
        entries: list[BatchContext] = []
        with self._autocast():
            for number, (hidden, waiting, entry) in enumerate(capture(self.skeleton, self.micro_batches)):
                entries.append(entry)
                files += [self.inputs.write(0, number, hidden, waiting)] if write else []
        self.inputs.entries = self.gradients.entries = entries
        return files

    def _forward(self, index: int, task: ProgressTask) -> Unit:
        files = []
        with self._loaded(index) as module:
            for number in range(len(self.micro_batches)):
                with torch.no_grad(), self._autocast():
                    output = block_output(module, self.inputs.read(index, number))
                states = self.inputs.behind(index, index + 1, number, output)
                files.append(self.inputs.write(index + 1, number, *states))
                task.advance(1, self.blocks[index].prefix)
        return {"part": self.journal.hashes(files), "activations": {}}

    def _turn(self, task: ProgressTask) -> Unit:
        """Through the final norm and the head, and back to what left the last block."""
        generator = torch.Generator(self.device).manual_seed(self.seed)
        end, sound, files = len(self.blocks), [], []
        with self.skeleton.last_norm() as norm, self._head() as head:
            for number in range(self.sent_back):
                batch = self.inputs.read(end, number)
                hidden = batch.hidden.requires_grad_(True)
                with torch.enable_grad(), self._autocast():
                    states = norm(hidden)
                    rows = states.flatten(0, 1) if batch.mask is None else states[batch.mask]
                task.advance(1)
                if bool(torch.isfinite(rows).all()):
                    rows.backward(direction(head, rows.detach(), generator))
                    memory = self.inputs.states(end, number)[1]
                    waiting = None if memory is None else torch.zeros_like(memory)
                    files.append(self.gradients.write(end, number, _gradient(hidden), waiting))
                    sound.append(number)
        require_few(self.sent_back - len(sound), self.sent_back, "the model")
        return {"part": {}, "activations": self.journal.hashes(files), "sound": sound}

    def _head(self) -> AbstractContextManager[Head | None]:
        return self.skeleton.head() if self._decodes else nullcontext()

    @property
    def _decodes(self) -> bool:
        return self.source.anatomy.kind != "encoder"

    def _tokens(self, number: int) -> int:
        """Those of a micro-batch that the loss is of."""
        batch = self.micro_batches[number]
        two = self.source.anatomy.kind == "encoder_decoder"
        return int(batch.written().attention_mask.sum()) if two else batch.tokens

    def _backward(self, index: int, measure: Measure, part: Path, task: ProgressTask) -> Unit:
        sound: list[int] = self.journal.units[len(self.blocks) + 1]["sound"]
        tokens, files = sum(map(self._tokens, sound)), []
        with self._loaded(index) as module:
            observers = measure(self.blocks[index], self._weight)
            self._look_first(module, index, observers, task)
            with observed(self.skeleton, observers, self.blocks[index]) as expect:
                for number in sound:
                    batch = self.inputs.read(index, number)
                    expect(*_real(batch))
                    states = self._back_through(module, batch, index, number)
                    files.append(self.gradients.write(index, number, *states))
                    task.advance(_BACK, self.blocks[index].prefix)
            scale = (0.5 if self._decodes else 1.0) / tokens
            found = {name: observer.found(tokens, scale) for name, observer in observers.items()}
        part.parent.mkdir(exist_ok=True)
        write_atomic(part, save({name: tensor.cpu().contiguous() for name, tensor in found.items()}))
        return {"part": self.journal.hashes([part]), "activations": self.journal.hashes(files)}

    def _look_first(
        self, module: nn.Module, index: int, observers: Mapping[str, Observer], task: ProgressTask
    ) -> None:
        """Show the micro-batches that are looked at to those of ``observers`` that want them."""
        block, end = self.blocks[index], len(self.micro_batches)
        behind = (_LOOKED - 1) * (end - self.sent_back)
        with looking(
            self.skeleton, observers, block, lambda part: task.advance(behind * part, block.prefix)
        ) as expect:
            for number in range(self.sent_back, end if expect is not None else 0):
                batch = self.inputs.read(index, number)
                assert expect is not None
                expect(*_real(batch))
                with torch.no_grad(), self._autocast():
                    block_output(module, batch)
                task.advance(1, block.prefix)

    def _back_through(
        self, module: nn.Module, batch: Batch, index: int, number: int
    ) -> tuple[Tensor, Tensor | None]:
        """The gradient at the inputs of the block ``index``, and what waits beside it."""
        gradient, waiting = self.gradients.states(index + 1, number)
        entry, hidden = self.inputs.entries[number], batch.hidden.requires_grad_(True)
        memory: Tensor | None = batch.arguments.get(MEMORY)
        if memory is not None:
            memory.requires_grad_(True)
        with torch.enable_grad(), self._autocast():
            output = block_output(module, batch)
            if entry.crossing is not None and entry.crosses(index, index + 1):
                output = entry.crossing.norm(output)
                assert waiting is not None
                gradient, waiting = waiting, None
        output.backward(gradient)  # type: ignore[no-untyped-call]
        if memory is None or waiting is None:
            return _gradient(hidden), None
        return _gradient(hidden), waiting + _gradient(memory)

    def _autocast(self) -> Any:
        return autocast(self.precision, self.device)

    def _weight(self, name: str) -> Tensor:
        return self.skeleton.submodule(name).get_parameter("weight").detach()

    @contextmanager
    def _loaded(self, index: int) -> Iterator[nn.Module]:
        """The block ``index`` with its weights; its quantized activations are rounded."""
        with self.runner.loaded(index) as module:
            prefix = f"{self.blocks[index].prefix}."
            rounded = round_inputs(self.skeleton.model, self.source, prefix)
            try:
                yield module
            finally:
                for name in rounded:
                    unwrap(self.skeleton.model, name)


def _real(batch: Batch) -> tuple[Tensor, Tensor | None]:
    """Which tokens ``[rows, tokens]`` are no padding: of the states, and of an encoder's that are read."""
    memory: Tensor | None = batch.arguments.get(MEMORY)
    return _or_all(batch.mask, batch.hidden), None if memory is None else _or_all(batch.memory_mask, memory)


def _or_all(mask: Tensor | None, states: Tensor) -> Tensor:
    return torch.ones(states.shape[:2], dtype=torch.bool, device=states.device) if mask is None else mask


def _gradient(states: Tensor) -> Tensor:
    assert states.grad is not None
    return states.grad
