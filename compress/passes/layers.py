"""Fewer layers: whole blocks go, those that change the hidden states least, and the one before compensates.

Chosen as in ShortGPT (Men et al. 2024, arXiv 2403.03853), as a run (Gromov et al. 2024, arXiv 2403.17887),
or one by one by measured damage; what comes before a cut is refitted in closed form
(:mod:`edgepress.compress.prune.structured.layer_removal`). One block is in memory at a time. The result loads
in plain transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ...errors import RecipeError
from ..model.anatomy import Anatomy
from ..model.block_anatomy import BlockAnatomy
from ..model.checkpoint.block_sizes import without_blocks
from ..model.skeleton import Skeleton
from ..model.weights import WeightSource
from ..numbers.scheme import Scheme
from ..pipeline.algorithm import Fixed, float_bytes, whole_model
from ..pipeline.block import LayerStatus
from ..pipeline.block_inputs import BlockRunner, Stream
from ..pipeline.block_shards import BlockWriter, numbered
from ..pipeline.forward import BatchSplitter
from ..pipeline.model_pass import ModelPass
from ..pipeline.stage import Stage, StageResult
from ..prune.structured.budget import WEIGHTS, BudgetOption
from ..prune.structured.layer_removal import LayerChoice, LayerCriterion, choose, refit
from ..prune.structured.residual_fit import adds_plainly, refit_bytes
from ..text.token_batch import TokenBatch

_MEASURED = 512  # tokens that greedy measures each choice on


class Layers(ModelPass):
    """Options of ``layers``."""

    fixed: ClassVar[Mapping[str, Fixed]] = whole_model("whole blocks go") | {
        "damping": Fixed(None, "each refit takes what fits the other half of the text best"),
        "measured_tokens": Fixed(_MEASURED, "greedy runs the rest of the model for every block that may go"),
    }
    keep: float = Field(gt=0, lt=1, description="fraction of the budget that is left, at most")
    budget: BudgetOption = WEIGHTS
    criterion: LayerCriterion = Field(
        "influence",
        description="influence: blocks that change the states least; contiguous: a run of them; greedy: one "
        "by one, by measured KL",
    )
    repair: Literal["least_squares", "none"] = Field(
        "least_squares", description="closed-form refit of the block before each cut"
    )

    @property
    def knows_states(self) -> bool:
        return True

    @property
    def knows_experts(self) -> bool:
        """Without a repair, which refits the one MLP before a cut."""
        return self.repair == "none"

    @property
    def calibrated(self) -> bool:
        return True

    @property
    def label(self) -> str:
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
        for count in range(len(blocks) - 1, 0, -1):
            if self._enough(anatomy, range(count, len(blocks))):
                return replace(anatomy, blocks=blocks[:count])
        raise RecipeError(
            f"keeping {self.keep:.0%} of the weights of {len(blocks)} blocks would leave none",
            fix=f"keep at least {1 / len(blocks):.2f}",
        )

    def working_bytes(self, weights: int) -> int:
        """Blocks come one at a time: see :meth:`sweep_bytes`."""
        return 0

    def sweep_bytes(self, source: WeightSource, tokens: int, scales: int) -> int:
        """A block, and the sums, products and factors of the refit of its last linear."""
        blocks = source.anatomy.blocks
        refit = 0 if self.repair == "none" else max(refit_bytes(block.last) for block in blocks)
        return max(sum(map(float_bytes, block.linears())) for block in blocks) + refit

    def multiplications(self, weights: int, tokens: int) -> float:
        """The original and the shortened model once each, and what greedy tries."""
        tried = 0.5 * (1 - self.keep) * 30**2 * _MEASURED if self.criterion == "greedy" else 0
        return float(weights) * (3 * tokens + tried)

    def apply(self, stage: Stage) -> StageResult:
        """Choose, refit, and write the model with the blocks that stay, numbered again.

        Raises:
            CalibrationError: no text to choose by.
            RecipeError: blocks that would have to be refitted are quantized.
        """
        runner = BlockRunner(Skeleton(stage.source, stage.device), BatchSplitter(stage.progress.note))
        folder, batches = stage.directory / "activations", stage.text("layers").batches
        inputs = Stream.capture(folder / "inputs", runner.skeleton, batches)
        measured = inputs
        if self.criterion == "greedy":
            few = _first(batches, _MEASURED)
            measured = Stream.capture(folder / "measured", runner.skeleton, few)
        choice = self._choose(stage, runner, measured)
        changed, statuses = self._refitted(stage, runner, inputs, choice.removed)
        return self._written(stage, choice, changed, statuses)

    def _enough(self, anatomy: Anatomy, removed: Sequence[int]) -> bool:
        kept = tuple(block for block in anatomy.blocks if block.index not in removed)
        return self.budget.total(replace(anatomy, blocks=kept)) <= self.keep * self.budget.total(anatomy)

    def _choose(self, stage: Stage, runner: BlockRunner, measured: Stream) -> LayerChoice:
        anatomy = stage.source.anatomy
        self.anatomy_after(anatomy)

        def enough(removed: Sequence[int]) -> bool:
            return self._enough(anatomy, removed)

        return choose(self.criterion, runner, measured, enough, stage.progress)

    def _refitted(
        self, stage: Stage, runner: BlockRunner, inputs: Stream, removed: Sequence[int]
    ) -> tuple[dict[str, Tensor], list[LayerStatus]]:
        """New parameters by stored name, and a status for each cut.

        The ``inputs`` of the first block go through all blocks, and beside them through those that stay.
        """
        blocks, end = runner.blocks, len(runner.blocks)
        changed: dict[str, Tensor] = {}
        statuses: list[LayerStatus] = []
        first = _run_after(-1, removed)
        # A cut at the very beginning has nothing before it: both sides begin behind it.
        original, shortened = (inputs.fork(name, 0, len(first)) for name in ("original", "shortened"))
        with stage.progress.task("refitting cuts", end) as task:
            for block in blocks:
                task.advance(1)
                if block.index in removed:
                    continue
                run = _run_after(block.index, removed)
                for index in (block.index, *run):
                    with runner.loaded(index) as module:
                        runner.advance(original, index, module)
                with runner.loaded(block.index) as module:
                    after = block.index + len(run) + 1
                    if run and self.repair != "none":
                        sides = original, shortened
                        statuses.append(self._refit(stage, runner, block, run, sides, changed))
                    runner.advance(shortened, block.index, module, after)
        if first and self.repair != "none":
            detail = "no layer comes before it"
            statuses.append(_status(blocks[0], first, "fallback-unrepaired", 1.0, detail))
        return changed, statuses

    def _refit(
        self,
        stage: Stage,
        runner: BlockRunner,
        block: BlockAnatomy,
        run: Sequence[int],
        streams: tuple[Stream, Stream],
        changed: dict[str, Tensor],
    ) -> LayerStatus:
        """Fit the last linear of ``block``, which is loaded, so that what leaves it for the second of
        ``streams`` comes closest to what leaves ``run`` for the first.
        """
        name = block.last.name
        if name in stage.source.schemes:
            raise RecipeError(
                f"layers: {name} would be refitted, and it is quantized",
                fix="drop layers before quantizing, or set repair: none",
            )
        if not adds_plainly(block, block.last):
            return _status(block, run, "fallback-unrepaired", 1.0, "its MLP is normalized before it is added")
        original, shortened = streams
        fitted = refit(runner.skeleton, block, shortened, original, run[-1] + 1, None)
        if fitted.fit.damping is None:
            return _status(block, run, "fallback-unrepaired", 1.0, "the Gram is not positive definite")
        weight = fitted.fit.weight
        mask = stage.masks.of(block, stage.device).get(name)
        weight = weight if mask is None else weight * mask
        new = {f"{name}.weight": weight}
        if fitted.fit.bias is not None:
            new[f"{name}.bias"] = fitted.fit.bias
        module = runner.skeleton.submodule(block.prefix)
        for parameter, value in new.items():
            stored = value.to(stage.source.stored_type(parameter))
            changed[parameter] = stored
            local = parameter.removeprefix(f"{block.prefix}.")
            runner.skeleton.assign(module, local, stored.to(torch.float32))
        return _status(block, run, "ok", fitted.error, "")

    def _written(
        self,
        stage: Stage,
        choice: LayerChoice,
        changed: dict[str, Tensor],
        statuses: list[LayerStatus],
    ) -> StageResult:
        source = stage.source
        writer = BlockWriter(source, source.schemes, stage.directory)
        kept = [block for block in source.anatomy.blocks if block.index not in choice.removed]
        parts: list[Path] = []
        schemes: dict[str, Scheme] = {}
        for place, block in enumerate(kept):
            quantized = source.quantized(block, stage.device)
            masks = stage.masks.of(block, stage.device)
            parts.append(writer.part(block, quantized, changed, masks, place=place))
            schemes |= {numbered(name, block, place): source.schemes[name] for name in quantized}
            for status in statuses:
                if status.name.startswith(f"{block.prefix}."):
                    status.name = numbered(status.name, block, place)
        return StageResult(
            [*parts, writer.outer()],
            statuses,
            schemes,
            writer.forms,
            config=without_blocks(source.reader.config, source.anatomy, [block.index for block in kept]),
            details={"removed": choice.removed, "scores": choice.scores},
        )


def _run_after(index: int, removed: Sequence[int]) -> list[int]:
    """The blocks that are cut right after the block ``index``."""
    run = [index]
    while run[-1] + 1 in removed:
        run.append(run[-1] + 1)
    return run[1:]


def _status(block: BlockAnatomy, run: Sequence[int], status: str, error: float, detail: str) -> LayerStatus:
    label = f"without {run[0]}–{run[-1]}" if len(run) > 1 else f"without {run[0]}"
    return LayerStatus(block.last.name, "layers", label, status, error, "output", detail)


def _first(batches: Sequence[TokenBatch], tokens: int) -> list[TokenBatch]:
    """The first rows of the batches that together hold about ``tokens`` tokens; at least one."""
    batch = batches[0]
    rows = max(1, min(len(batch.input_ids), tokens // batch.attention_mask.shape[1]))
    return [TokenBatch(batch.input_ids[:rows], batch.attention_mask[:rows])]


PASS = Layers
