"""Fewer layers: whole blocks go, those that change the hidden states least, and the one before compensates.

Chosen as in ShortGPT (Men et al. 2024, arXiv 2403.03853), as a run (Gromov et al. 2024, arXiv 2403.17887),
or one by one by measured damage; what comes before a cut is refitted in closed form
(:mod:`edgepress.compress.prune.structured.layer_removal`). One block is in memory at a time. The result loads
in plain transformers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from ...errors import RecipeError
from ..model.anatomy import Anatomy
from ..model.block_anatomy import BlockAnatomy
from ..model.checkpoint.block_sizes import without_blocks
from ..model.hearing.speech_prompt import renumbered
from ..model.skeleton import Skeleton
from ..model.weights import WeightSource
from ..numbers.scheme import Scheme
from ..pipeline.advance import Work
from ..pipeline.algorithm import EVERY, EXPERTS, Fixed, float_bytes, whole_model
from ..pipeline.block import LayerStatus
from ..pipeline.block_inputs import BlockRunner, Stream
from ..pipeline.block_shards import BlockWriter, numbered
from ..pipeline.forward import BatchSplitter
from ..pipeline.model_pass import ModelPass, Workload
from ..pipeline.stage import Stage, StageResult
from ..prune.structured.budget import WEIGHTS, BudgetOption
from ..prune.structured.cut_repair import CutRepair
from ..prune.structured.layer_removal import LayerChoice, LayerCriterion, choose, given, shortest_runs
from ..prune.structured.residual_fit import refit_bytes
from ..text.token_batch import TokenBatch

STACKS = ("encoder", "decoder")
_MEASURED = 512  # tokens that greedy measures each choice on


class Layers(ModelPass):
    """Options of ``layers``."""

    works_on: ClassVar[frozenset[str]] = EVERY
    fixed: ClassVar[Mapping[str, Fixed]] = whole_model("whole blocks go") | {
        "damping": Fixed(None, "each refit takes what fits the other half of the text best"),
        "measured_tokens": Fixed(_MEASURED, "greedy runs the rest of the model for every block that may go"),
    }
    keep: float | None = Field(
        None, gt=0, lt=1, description="fraction of the budget that is left, at most; null: by removed"
    )
    budget: BudgetOption = WEIGHTS
    criterion: LayerCriterion = Field(
        "influence",
        description="influence: blocks that change the states least; contiguous: a run of them; greedy: one "
        "by one, by measured KL",
    )
    repair: Literal["least_squares", "none"] = Field(
        "least_squares", description="closed-form refit of the block before each cut"
    )

    stacks: Literal["both", "encoder", "decoder"] = Field(
        "both", description="which stacks of an encoder–decoder lose blocks; each keeps one at least"
    )
    removed: tuple[int, ...] = Field((), description="the numbers of the blocks that go, in place of keep")

    @model_validator(mode="after")
    def _chosen(self) -> Self:
        if (self.keep is None) == (not self.removed):
            raise ValueError("it takes keep, or the numbers of blocks under removed, and not both")
        return self

    def refuses(self, anatomy: Anatomy) -> Mapping[str, str]:
        why = "the repair refits what a block adds last, which is a sum over experts that vary by token"
        return {} if self.repair == "none" else {EXPERTS: why}

    @property
    def calibrated(self) -> bool:
        return True

    @property
    def label(self) -> str:
        if self.keep is None:
            return f"without {len(self.removed)} blocks"
        return f"{self.keep:.0%} of the {'blocks' if self.budget == WEIGHTS else self.budget.of}"

    def anatomy_after(self, anatomy: Anatomy) -> Anatomy:
        """As many blocks as stay; which ones is not known before."""
        blocks = anatomy.blocks
        if any(block.repeats > 1 for block in blocks):
            raise RecipeError(
                f"layers: all layers of an {anatomy.model_type} are one block, which is applied "
                f"{blocks[0].repeats} times",
                fix="prune its heads and channels instead: pass narrow",
            )
        if len({block.experts is None for block in blocks}) > 1:
            raise RecipeError(
                "layers: some blocks have experts and some have none, by their number in config.json",
                fix="prune experts instead: pass experts",
            )
        if anatomy.kinds_by_number:
            raise RecipeError(
                f"layers: what a block of a {anatomy.model_type} consists of follows from its number in "
                "config.json",
                why="those behind a block that goes would be read as blocks of another kind",
                fix="prune weights instead: passes prune, sparsegpt and alps",
            )
        if self.stacks != "both" and anatomy.kind != "encoder_decoder":
            raise RecipeError(
                f"layers: stacks: {self.stacks} is of an encoder–decoder; {anatomy.model_type} has one stack",
                fix="leave stacks out",
            )
        removed = list(given(self.removed, self._losing(anatomy)))
        if not removed:
            self._check_reached(anatomy)
        for index in () if removed else _last_first(self._losing(anatomy)):
            if removed and self._enough(anatomy, removed):
                break
            removed.append(index)
        stacks = ([blocks[n] for n in stack if n not in removed] for stack in anatomy.ranges())
        kept = [(place, block) for stack in stacks for place, block in enumerate(stack)]
        return replace(anatomy, blocks=tuple(one.moved(n, place) for n, (place, one) in enumerate(kept)))

    def _check_reached(self, anatomy: Anatomy) -> None:
        """Refuse a ``keep`` that not even a block for each stack meets, or no run within one of them."""
        stacks = self._losing(anatomy)
        all_but_one = [index for stack in stacks for index in stack[1:]]
        count = len(anatomy.blocks)
        if not self._enough(anatomy, all_but_one):
            least = self._total(anatomy, all_but_one) / self.budget.total(anatomy)
            where = "none" if len(anatomy.ranges()) == 1 else f"a stack without any ({self.stacks} lose some)"
            raise RecipeError(
                f"keeping {self.keep:.0%} of the weights of {count} blocks would leave {where}",
                fix=f"keep at least {math.ceil(100 * least) / 100:.2f}",
            )
        if self.criterion == "contiguous" and not shortest_runs(stacks, partial(self._enough, anatomy)):
            raise RecipeError(
                f"no run of blocks within one stack of this {anatomy.model_type} is "
                f"{1 - (self.keep or 0.0):.0%} of the weights",
                fix="take the blocks one by one: criterion: influence",
            )

    def working_bytes(self, weights: int) -> int:
        """Blocks come one at a time: see :meth:`sweep_bytes`."""
        return 0

    def sweep_bytes(self, source: WeightSource, tokens: int, scales: int) -> int:
        """A block, and the sums, products and factors of the refit of its last linear."""
        blocks = source.anatomy.blocks
        refit = 0 if self.repair == "none" else max(refit_bytes(block.last) for block in blocks)
        return max(sum(map(float_bytes, block.linears())) for block in blocks) + refit

    def work(self, load: Workload) -> Work:
        """The original and the shortened model once each with the Grams, and what greedy tries."""
        greedy = self.criterion == "greedy" and self.keep is not None
        tried = 0.5 * (1 - (self.keep or 0.0)) * 30**2 * _MEASURED if greedy else 0
        return Work(2 * load.blocks * load.tokens + load.forward * tried)

    def apply(self, stage: Stage) -> StageResult:
        """Choose, refit, and write the model with the blocks that stay, numbered again."""
        runner = BlockRunner(Skeleton(stage.source, stage.device), BatchSplitter(stage.progress.note))
        folder, batches = stage.directory / "activations", stage.text("layers").batches
        inputs = Stream.capture(folder / "inputs", runner.skeleton, batches)
        measured = inputs
        if self.criterion == "greedy" and not self.removed:
            few = _first(batches, _MEASURED)
            measured = Stream.capture(folder / "measured", runner.skeleton, few)
        choice = self._choose(stage, runner, measured)
        repair = CutRepair(stage, runner, choice.removed, refits=self.repair != "none")
        repair.run(inputs)
        return self._written(stage, choice, repair.changed, repair.statuses)

    def _enough(self, anatomy: Anatomy, removed: Sequence[int]) -> bool:
        assert self.keep is not None
        return self._total(anatomy, removed) <= self.keep * self.budget.total(anatomy)

    def _total(self, anatomy: Anatomy, removed: Sequence[int]) -> int:
        kept = tuple(block for block in anatomy.blocks if block.index not in removed)
        return self.budget.total(replace(anatomy, blocks=kept))

    def _choose(self, stage: Stage, runner: BlockRunner, measured: Stream) -> LayerChoice:
        anatomy = stage.source.anatomy
        self.anatomy_after(anatomy)
        if self.removed:
            return LayerChoice(sorted(self.removed), [])

        def enough(removed: Sequence[int]) -> bool:
            return self._enough(anatomy, removed)

        return choose(self.criterion, runner, measured, self._losing(anatomy), enough, stage.progress)

    def _losing(self, anatomy: Anatomy) -> list[range]:
        """The blocks of each stack that loses some."""
        names = STACKS if anatomy.kind == "encoder_decoder" else ("both",)
        return [
            blocks
            for name, blocks in zip(names, anatomy.ranges(), strict=True)
            if self.stacks in (name, "both")
        ]

    def _written(
        self,
        stage: Stage,
        choice: LayerChoice,
        changed: dict[str, Tensor],
        statuses: list[LayerStatus],
    ) -> StageResult:
        source = stage.source
        writer = BlockWriter(source, source.schemes, stage.directory)
        parts: list[Path] = []
        schemes: dict[str, Scheme] = {}
        kept: list[int] = []
        for stack in source.anatomy.ranges():
            stays = [source.anatomy.blocks[index] for index in stack if index not in choice.removed]
            kept += [block.index for block in stays]
            for place, block in enumerate(stays):
                quantized = source.quantized(block, stage.device)
                masks = stage.masks.of(block, stage.device)
                table = _position_bias(source, stack.start, block) if place == 0 else {}
                parts.append(writer.part(block, quantized, changed, masks, table, place=place))
                schemes |= {numbered(name, block, place): source.schemes[name] for name in quantized}
                for status in statuses:
                    if status.name.startswith(f"{block.prefix}."):
                        status.name = numbered(status.name, block, place)
        return StageResult(
            [*parts, writer.outer()],
            statuses,
            schemes,
            writer.forms,
            config=without_blocks(source.reader.config, source.anatomy, kept),
            details={"removed": choice.removed, "scores": choice.scores},
            files=renumbered(source.reader.path, source.anatomy, kept),
        )


def _last_first(stacks: Sequence[range]) -> list[int]:
    """All but the first block of each of ``stacks``, the last ones first, as deep in both."""
    order = [(-place / len(stack), index) for stack in stacks for place, index in enumerate(stack) if place]
    return [index for _, index in sorted(order)]


def _position_bias(source: WeightSource, first: int, block: BlockAnatomy) -> dict[str, Tensor]:
    """The table of biases by distance that the block ``first`` has for its stack, as a part of ``block``,
    which is the first now; empty where that has it, or there is none.
    """
    before = source.anatomy.blocks[first]
    tables = [name for name in source.anatomy.position_biases if name.startswith(f"{before.prefix}.")]
    if block.index == first:
        return {}
    moved = {f"{name}.weight": f"{block.prefix}.{name.removeprefix(f'{before.prefix}.')}" for name in tables}
    return {f"{new}.weight": source.tensor(name).to(source.stored_type(name)) for name, new in moved.items()}


def _first(batches: Sequence[TokenBatch], tokens: int) -> list[TokenBatch]:
    """The first rows of the batches that together hold about ``tokens`` tokens; at least one."""
    batch = batches[0]
    rows = max(1, min(len(batch.input_ids), tokens // batch.attention_mask.shape[1]))
    return [batch.part(slice(rows))]


PASS = Layers
