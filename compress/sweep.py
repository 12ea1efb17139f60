"""The sweep: one block at a time through statistics and passes, bounded in memory and safe to kill.

For each block: load its weights, run the calibration batches to collect what the passes ask for, apply the
passes in order, write the block and a journal entry, and run the batches through the changed block to make
the inputs of the next. Activations live on disk between blocks: peak memory is one block, its statistics and
one batch, whatever the model's size.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import save_file
from torch import Tensor, nn

from ..terminal import Progress
from .algorithm import BlockPass
from .anatomy import BlockAnatomy
from .block import Block, LayerStatus
from .calibration import Calibration
from .checkpoint.compressed import forms, stored
from .fake_quant import wrap
from .forward import Batch, Smaller, collect, propagate
from .journal import Journal
from .scheme import Scheme
from .skeleton import Skeleton, first_block_inputs, module_name
from .weights import WeightSource


class Sweep:
    """Applies ``passes`` to every block of ``source``; results gather in ``directory``.

    Args:
        steps: ``(name, pass)`` in the order of the recipe.
        schemes: the scheme that each linear ends with, which decides the form it is stored in.
        calibration: token batches, or None when no pass asks for statistics.
    """

    def __init__(
        self,
        source: WeightSource,
        steps: Sequence[tuple[str, BlockPass]],
        schemes: Mapping[str, Scheme],
        calibration: Calibration | None,
        device: torch.device,
        journal: Journal,
        progress: Progress,
    ) -> None:
        self.source, self.steps, self.calibration = source, steps, calibration
        self.device, self.journal, self.progress = device, journal, progress
        self.directory, self.forms = journal.directory, forms(schemes.values())
        self.smaller = Smaller(progress.note)
        self.arguments: list[dict[str, Any]] = []
        self.masks: list[Tensor | None] = []

    def run(self) -> tuple[list[Path], list[LayerStatus]]:
        """Sweep the blocks that the journal lacks; returns the part files of the model and all statuses."""
        blocks = self.source.anatomy.blocks
        start = self.journal.resume()
        if start:
            self.progress.note(f"continuing after block {start} of {len(blocks)}")
        skeleton = Skeleton(self.source, self.device)
        if self.calibration is not None and start < len(blocks):
            self._enter(skeleton, write=start == 0)
        with self.progress.task("compressing blocks", len(blocks)) as task:
            task.advance(start)
            for anatomy in blocks[start:]:
                layers = self._sweep_block(skeleton, anatomy)
                worst = max((layer.error for layer in layers), default=0.0)
                task.advance(1, f"{anatomy.prefix} worst error {worst:.2g}")
        parts = [self.directory / next(iter(unit["part"])) for unit in self.journal.units]
        statuses = [LayerStatus(**status) for unit in self.journal.units for status in unit["statuses"]]
        return [*parts, self._outer_part()], statuses

    def _enter(self, skeleton: Skeleton, *, write: bool) -> None:
        """Embed the batches: keep each one's block arguments, and write the first block's inputs."""
        assert self.calibration is not None
        folder = self._folder(0)
        if write:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        with skeleton.embeddings() as model:
            for index, batch in enumerate(self.calibration.batches):
                padded = not bool(batch.attention_mask.all())
                mask = batch.attention_mask.to(self.device) if padded else None
                hidden, arguments = first_block_inputs(skeleton, model, batch.input_ids.to(self.device), mask)
                self.arguments.append(arguments)
                self.masks.append(None if mask is None else mask.to(torch.bool))
                if write:
                    save_file({"hidden": hidden.cpu().contiguous()}, folder / f"{index:05d}.safetensors")

    def _folder(self, index: int) -> Path:
        return self.directory / "activations" / f"{index:04d}"

    def _batches(self, index: int) -> Iterator[Batch]:
        for number, (arguments, mask) in enumerate(zip(self.arguments, self.masks, strict=True)):
            data = (self._folder(index) / f"{number:05d}.safetensors").read_bytes()
            yield Batch(load_bytes(data)["hidden"].to(self.device), arguments, mask)

    def _sweep_block(self, skeleton: Skeleton, anatomy: BlockAnatomy) -> list[LayerStatus]:
        module = skeleton.fill(anatomy.prefix)
        linears = {linear.name: skeleton.submodule(linear.name) for linear in anatomy.linears()}
        block = Block(anatomy, module, {n: m for n, m in linears.items() if isinstance(m, nn.Linear)})
        if self.calibration is not None:
            block.statistics = collect(
                module,
                block.linears,
                anatomy,
                self._wanted(anatomy),
                lambda: self._batches(anatomy.index),
                self.smaller,
            )
        for name, step in self.steps:
            step.apply(block)
            block.check(name)
        block.statistics = {}
        part = self._write_block(block)
        left = [] if self.calibration is None else self._leave(skeleton, block)
        self.journal.add(
            {
                "part": self.journal.hashes([part]),
                "activations": self.journal.hashes(left),
                "statuses": [status.__dict__ for status in block.statuses],
            }
        )
        shutil.rmtree(self._folder(anatomy.index), ignore_errors=True)
        skeleton.free(anatomy.prefix)
        return block.statuses

    def _wanted(self, anatomy: BlockAnatomy) -> dict[str, tuple[str, ...]]:
        wanted: dict[str, tuple[str, ...]] = {}
        for linear in anatomy.linears():
            needs = {need for _, step in self.steps if step.selects(linear) for need in step.needs}
            if needs:
                wanted[linear.name] = tuple(sorted(needs))
        return wanted

    def _leave(self, skeleton: Skeleton, block: Block) -> list[Path]:
        """Run the batches through the changed block; returns the files that hold the next block's inputs."""
        index = block.anatomy.index
        if index + 1 == len(self.source.anatomy.blocks):
            return []
        for name, tensor in block.quantized.items():
            if tensor.scheme.activations:
                wrap(skeleton.model, module_name(skeleton.anatomy, name))
        folder = self._folder(index + 1)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        files = []
        for number, batch in enumerate(self._batches(index)):
            output = propagate(block.module, batch, self.smaller, block.anatomy.prefix)
            files.append(folder / f"{number:05d}.safetensors")
            save_file({"hidden": output.cpu().contiguous()}, files[-1])
        return files

    def _write_block(self, block: Block) -> Path:
        """The block's tensors as the checkpoint stores them: quantized, changed, or untouched bytes."""
        changed = {status.name for status in block.statuses}
        tensors: dict[str, Tensor] = {}
        for name in self.source.names(block.anatomy.prefix + "."):
            module = name.removesuffix(".weight")
            if module in block.quantized:
                tensor = block.quantized[module]
                tensors |= stored(module, tensor, self.forms[tensor.scheme])
            elif module in changed:
                tensors[name] = block.linears[module].weight.detach().to(self._stored_type(name))
            else:
                tensors |= self._untouched(name)
        path = self.directory / "parts" / f"{block.anatomy.index:04d}.safetensors"
        return _save(path, tensors)

    def _stored_type(self, name: str) -> torch.dtype:
        tensor = self._untouched(name)[name]
        return tensor.dtype

    def _untouched(self, name: str) -> dict[str, Tensor]:
        if name in self.source.reader.shapes and name.removesuffix(".weight") not in self.source.schemes:
            return self.source.reader.read([name])
        return {name: self.source.tensor(name)}

    def _outer_part(self) -> Path:
        """Everything outside the blocks, in its stored type."""
        anatomy = self.source.anatomy
        prefixes = tuple(block.prefix + "." for block in anatomy.blocks)
        names = [name for name in self.source.names() if not name.startswith(prefixes)]
        if anatomy.tied and anatomy.head is not None:
            names = [name for name in names if name != f"{anatomy.head}.weight"]
        tensors: dict[str, Tensor] = {}
        for name in names:
            tensors |= self._untouched(name)
        return _save(self.directory / "parts" / "outer.safetensors", tensors)


def _save(path: Path, tensors: dict[str, Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})
    return path
