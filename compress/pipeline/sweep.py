"""The sweep: one block at a time through statistics and passes, bounded in memory and safe to kill.

For each block: load its weights, run the calibration batches to collect what the passes ask for, apply the
passes in order, write the block and a journal entry, and run the batches through the changed block to make
the inputs of the next. Activations live on disk between blocks: peak memory is one block, its statistics and
one batch, whatever the model's size.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from ...files.storage import sha256_json
from ...terminal.progress import Progress, Tick, unseen
from ..measure.reading import autocast
from ..model.block_anatomy import BlockAnatomy
from ..model.skeleton import Skeleton
from ..model.weights import WeightSource
from ..numbers.scheme import Scheme
from ..text.calibration import Calibration
from .advance import FORWARD, BlockAdvance, block_weights, block_work, forwards_tick
from .block import Block, LayerStatus, Statistics
from .block_inputs import Stream, begin
from .block_pass import BlockPass
from .block_shards import BlockWriter, Masks
from .collect import Side, collect, coverage
from .damage_probe import DamageProbe, SweptProbes
from .device import return_small_blocks
from .forward import BatchSplitter, SampleCount, require_few
from .journal import Journal
from .stage import Stage, StageResult, prepared

WIDE = 256  # hidden size from which bfloat16 is faster than float32, casts of weights included

# A step is the passes that one entry of a recipe stands for; they share statistics.
StepPasses = Sequence[tuple[str, BlockPass]]


class Sweep:
    """Applies ``steps`` to every block of ``source``; results gather in the journal's directory.

    Args:
        schemes: the scheme that each linear ends with, which decides the form it is stored in.
        calibration: token batches, or None when no pass asks for them.
        masks: of weights that an earlier sweep pruned.
        probe: what each of the steps is measured with; None: they are not.
    """

    def __init__(
        self,
        source: WeightSource,
        steps: Sequence[StepPasses],
        schemes: Mapping[str, Scheme],
        calibration: Calibration | None,
        device: torch.device,
        journal: Journal,
        progress: Progress,
        masks: Masks | None = None,
        probe: DamageProbe | None = None,
    ) -> None:
        self.source, self.steps, self.calibration = source, steps, calibration
        self.device, self.journal, self.progress = device, journal, progress
        self.masks = masks or Masks()
        self.prepared: Sequence[Sequence[Path]] = ()
        self.smaller = BatchSplitter(progress.note)
        self.tick: Tick = unseen
        self.writer = BlockWriter(source, schemes, journal.directory)
        self.samples = SampleCount()  # of the stream that ran last, where it calibrates
        coarse = all(step.coarse for group in steps for _, step in group)
        self.coarse = coarse and source.anatomy.hidden_size >= WIDE
        self.compares = any(step.compares for group in steps for _, step in group)
        self.inputs, self.originals = self._stream("inputs"), self._stream("originals")
        self.probes = SweptProbes(probe, source, len(steps), self._stream)

    def _stream(self, name: str) -> Stream:
        return Stream(self.journal.directory / "activations" / name, [], self.device)

    @property
    def _runs(self) -> list[Stream]:
        """The streams of whole calibration batches."""
        if self.calibration is None:
            return []
        return [self.inputs, self.originals] if self.compares else [self.inputs]

    def run(self) -> StageResult:
        """Sweep the blocks that the journal lacks."""
        blocks = self.source.anatomy.blocks
        start = self.journal.resume()
        if start:
            self.progress.note(f"continuing after block {start} of {len(blocks)}")
        passes = [step for group in self.steps for _, step in group]
        self.prepared = prepared(
            passes, self.source, self.calibration, self.device, self.progress, self.journal.directory
        )
        skeleton = Skeleton(self.source, self.device)
        if self.calibration is not None:
            begin(self._runs, skeleton, self.calibration.batches, write=start == 0)
        self.probes.begin(skeleton, start)
        with self.progress.task("compressing blocks", len(blocks)) as task:
            task.advance(start)
            for anatomy in blocks[start:]:
                self.tick = advance = BlockAdvance(task, self._work(anatomy), anatomy.prefix)
                layers = self._sweep_block(skeleton, anatomy)
                advance.end(f"worst error {max((layer.error for layer in layers), default=0.0):.2g}")
        units = self.journal.units
        return StageResult(
            [self.journal.directory / next(iter(unit["part"])) for unit in units] + [self.writer.outer()],
            [LayerStatus(**status) for unit in units for status in unit["statuses"]],
            {name: Scheme.parse(scheme) for unit in units for name, scheme in unit["schemes"].items()},
            self.writer.forms,
            self.probes.damage(skeleton),
            kv_scheme=self.steps[-1][-1][1].kv_scheme,  # the last pass, if any
        )

    def _work(self, anatomy: BlockAnatomy) -> float:
        """Multiply-adds for a block."""
        sizes = [batch.attention_mask.shape for batch in self.calibration.batches] if self.calibration else []
        tokens, most = sum(map(math.prod, sizes)), max(map(math.prod, sizes), default=0)
        passes = [step for group in self.steps for _, step in group]
        samples = sum(size[0] for size in sizes)
        work = block_work(anatomy, passes, tokens, samples, most).multiplications
        return work + FORWARD * self.probes.tokens * block_weights(anatomy)

    def _sweep_block(self, skeleton: Skeleton, anatomy: BlockAnatomy) -> list[LayerStatus]:
        block = self._load(skeleton, anatomy)
        left = self._leave(skeleton, block, self.probes.unchanged)
        if self.compares:
            block.original = copy.deepcopy(block.module)
            block.references = lambda: self.originals.batches(anatomy.index)
            block.targets = lambda: self.originals.outputs(anatomy.index)
            left += self._leave(skeleton, block, [self.originals])
        for place, step in enumerate(self.steps):
            self._apply(block, step, place)
            left += self._leave(skeleton, block, self.probes.steps[place : place + 1])
        block.statistics, block.original = {}, None
        left += self._leave(skeleton, block, self._runs[:1])
        self._report_nonfinite(block)
        self.journal.add(
            {
                "part": self.journal.hashes([self.writer.write(block)]),
                "activations": self.journal.hashes(left),
                "statuses": [status.__dict__ for status in block.statuses],
                "schemes": {name: tensor.scheme.name for name, tensor in block.quantized.items()},
            }
        )
        for stream in (*self._runs, *self.probes.streams):
            stream.drop(anatomy.index)
        skeleton.free(anatomy.prefix)
        return_small_blocks()
        return block.statuses

    def _load(self, skeleton: Skeleton, anatomy: BlockAnatomy) -> Block:
        module = skeleton.fill_block(anatomy.index)
        linears = {linear.name: skeleton.submodule(linear.name) for linear in anatomy.linears()}
        return Block(
            anatomy,
            module,
            {name: linear for name, linear in linears.items() if isinstance(linear, nn.Linear)},
            batches=lambda: self.inputs.batches(anatomy.index),
            collector=None if self.calibration is None else self._collect,
            stored_types=self.writer.stored_types(anatomy),
            masks=self.masks.of(anatomy, self.device),
            cached=self.source.anatomy.cached(anatomy),
            renamed=self.source.anatomy.renamed,
            tick=self.tick,
            quantized=self.source.quantized(anatomy, self.device),
            prepared={
                name: found
                for files in self.prepared
                for name, found in load_file(files[anatomy.index]).items()
            },
        )

    def _apply(self, block: Block, step: StepPasses, place: int) -> None:
        before = len(block.statuses)
        wanted: dict[str, tuple[str, ...]] = {}
        for linear in block.anatomy.linears():
            needs = {need for _, options in step if options.selects(linear) for need in options.needs}
            if needs:
                wanted[linear.name] = tuple(sorted(needs))
        # What an earlier step changed has changed the inputs too: each step sees the block as it is now.
        block.tokens.clear()
        block.statistics = self._collect(block, wanted) if wanted else {}
        return_small_blocks()  # forward passes' heap would stand beside what solving a layer takes
        for name, options in step:
            options.apply(block)
            block.check(name)
        for status in block.statuses[before:]:
            status.place = place
        few = coverage(block.anatomy, block.tokens, block.statuses[before:])
        if few is not None:
            self.progress.note(few)

    def _collect(self, block: Block, wanted: Mapping[str, tuple[str, ...]]) -> Statistics:
        readers = {block.anatomy.stream_reader(one) for one in block.anatomy.linears() if one.name in wanted}
        norms = {norm.name: block.local(norm.name) for norm in block.anatomy.norms() if norm.name in readers}

        def found(module: nn.Module, names: Mapping[str, str]) -> dict[str, nn.Module]:
            return {name: module.get_submodule(path) for name, path in names.items()}

        current = Side(block.module, block.linears, block.batches, found(block.module, norms))
        original = None
        if block.original is not None:
            linears = found(block.original, {name: block.local(name) for name in block.linears})
            original = Side(block.original, linears, block.references, found(block.original, norms))
        if block.anatomy.experts is not None:
            inside = {one.name for mlp in block.anatomy.mlps() for one in (*mlp.projections, mlp.down)}
            wanted = {name: (*needs, "tokens") if name in inside else needs for name, needs in wanted.items()}
        with self._computes():
            values = collect(current, original, block.anatomy, wanted, self.smaller, self.tick)
        block.tokens |= {name: int(one["tokens"]) for name, one in values.items() if "tokens" in one}
        return values

    def _computes(self) -> AbstractContextManager[object]:
        """What calibration text goes through a block in; probes go in float32."""
        return autocast("auto" if self.coarse else "float32", self.device)

    def _leave(self, skeleton: Skeleton, block: Block, streams: Sequence[Stream]) -> list[Path]:
        """Run ``streams`` through the block as it is; returns the files that hold the next block's inputs."""
        files: list[Path] = []
        with block.simulated(skeleton), forwards_tick(block.linears.values(), self.tick):
            for stream in streams:
                self.samples = SampleCount()
                calibrates = stream in self._runs
                check = self.samples.add if calibrates else None
                with self._computes() if calibrates else nullcontext():
                    files += stream.advance(
                        block.anatomy.index, block.module, self.smaller, keep=True, check=check
                    )
        return files

    def _report_nonfinite(self, block: Block) -> None:
        """Say which layers were calibrated without some of the samples: those that end in NaN or infinity."""
        bad, total = self.samples.bad, self.samples.total
        require_few(bad, total, block.anatomy.prefix)
        if bad:
            text = f"{bad} of {total} samples are not finite here and were left out"
            self.progress.note(f"{block.anatomy.prefix}: {text}")
            for status in block.statuses:
                status.detail = f"{status.detail}; {text}" if status.detail else text


def sweep_within(
    stage: Stage, steps: Sequence[StepPasses], schemes: Mapping[str, Scheme], decided: Any
) -> StageResult:
    """A sweep that is the last part of a stage, after ``decided`` (JSON), which its result depends on."""
    journal = Journal.open(stage.directory, sha256_json(decided))
    calibrated = any(step.calibrated for group in steps for _, step in group)
    text = stage.calibration if calibrated else None
    return Sweep(stage.source, steps, schemes, text, stage.device, journal, stage.progress, stage.masks).run()
