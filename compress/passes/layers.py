"""Fewer layers: whole blocks go, those that change the hidden states least, and the one before makes up for
them.

Chosen as in ShortGPT (Men et al. 2024, arXiv 2403.03853), as a run (Gromov et al. 2024, arXiv 2403.17887),
or one by one by measured damage (:mod:`edgepress.compress.prune.structured.layer_choice`). Mended in closed
form (:mod:`edgepress.compress.prune.structured.cut_refit`). The result loads in plain transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ...errors import CalibrationError, RecipeError
from ..model.anatomy import Anatomy
from ..model.block_anatomy import BlockAnatomy
from ..model.checkpoint.block_sizes import without_blocks
from ..model.skeleton import Skeleton
from ..numbers.scheme import Scheme
from ..pipeline.algorithm import Fixed, ModelPass, whole_model
from ..pipeline.block import LayerStatus
from ..pipeline.damage_probe import divergences
from ..pipeline.forward import Smaller
from ..pipeline.part_writer import PartWriter, numbered
from ..pipeline.stage import Stage, StageResult
from ..prune.structured.budget_cost import WEIGHTS, BudgetOption
from ..prune.structured.cut_refit import mend
from ..prune.structured.layer_choice import Choice, Criterion, greedy, least_influence, least_run
from ..prune.structured.model_batches import Passage, States
from ..prune.structured.residual_error import adds_plainly
from ..text.token_batch import TokenBatch

_PROBE_TOKENS = 512


_MEASURED = 512  # tokens that greedy measures each choice on


class Layers(ModelPass):
    """Options of ``layers``."""

    fixed: ClassVar[Mapping[str, Fixed]] = whole_model("whole blocks go") | {
        "damping": Fixed(None, "each refit takes what fits the other half of the text best"),
        "measured_tokens": Fixed(_MEASURED, "greedy runs the rest of the model for every block that may go"),
    }
    keep: float = Field(gt=0, lt=1, description="fraction of the budget that is left, at most")
    budget: BudgetOption = WEIGHTS
    criterion: Criterion = Field(
        "influence",
        description="influence: blocks that change the states least; contiguous: a run of them; greedy: one "
        "by one, by measured KL",
    )
    repair: Literal["least_squares", "none"] = Field(
        "least_squares", description="closed-form refit of the block before each cut"
    )

    @property
    def calibrated(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return f"{self.keep:.0%} of the {'blocks' if self.budget == WEIGHTS else self.budget.of}"

    def anatomy_after(self, anatomy: Anatomy) -> Anatomy:
        """As many blocks as stay; which ones is not known before."""
        blocks = anatomy.blocks
        for count in range(len(blocks) - 1, 0, -1):
            if self._enough(anatomy, range(count, len(blocks))):
                return replace(anatomy, blocks=blocks[:count])
        raise RecipeError(
            f"keeping {self.keep:.0%} of the weights of {len(blocks)} blocks would leave none",
            fix=f"keep at least {1 / len(blocks):.2f}",
        )

    def working_bytes(self, weights: int) -> int:
        """The model in float32."""
        return weights

    def multiplications(self, weights: int, tokens: int) -> float:
        """The original and the shortened model once each, and what greedy tries."""
        tried = 0.5 * (1 - self.keep) * 30**2 * _MEASURED if self.criterion == "greedy" else 0
        return float(weights) * (3 * tokens + tried)

    def apply(self, stage: Stage) -> StageResult:
        """Choose, mend, and write the model with the blocks that stay, numbered anew.

        Raises:
            CalibrationError: no text to choose by.
            RecipeError: blocks that would have to be mended are quantized.
        """
        if stage.calibration is None:
            raise CalibrationError("layers needs calibration text", fix="pass --calibration FILE")
        smaller = Smaller(stage.progress.note)
        skeleton = Skeleton(stage.source, stage.device)
        passage = Passage(skeleton, stage.calibration.batches, smaller)
        choice = self._choose(stage, passage, smaller)
        changed, statuses, damage = self._mended(stage, passage, choice.removed)
        return self._written(stage, choice, changed, statuses, damage)

    def _enough(self, anatomy: Anatomy, removed: Sequence[int]) -> bool:
        kept = tuple(block for block in anatomy.blocks if block.index not in removed)
        return self.budget.total(replace(anatomy, blocks=kept)) <= self.keep * self.budget.total(anatomy)

    def _choose(self, stage: Stage, passage: Passage, smaller: Smaller) -> Choice:
        anatomy = stage.source.anatomy
        self.anatomy_after(anatomy)

        def enough(removed: Sequence[int]) -> bool:
            return self._enough(anatomy, removed)

        if self.criterion == "greedy":
            assert stage.calibration is not None
            few = _first(stage.calibration.batches, _MEASURED)
            return greedy(Passage(passage.skeleton, few, smaller), enough, stage.progress)
        states, rows = passage.entrance, [passage.rows(passage.entrance)]
        with stage.progress.task("measuring layers", len(anatomy.blocks)) as task:
            for index in range(len(anatomy.blocks)):
                states = passage.through(index, states)
                rows.append(passage.rows(states))
                task.advance(1)
        return least_influence(rows, enough) if self.criterion == "influence" else least_run(rows, enough)

    def _mended(
        self, stage: Stage, passage: Passage, removed: Sequence[int]
    ) -> tuple[dict[str, Tensor], list[LayerStatus], list[dict[str, Any]]]:
        """New parameters by stored name, a status for each cut, and the damage of it all."""
        blocks = stage.source.anatomy.blocks
        changed: dict[str, Tensor] = {}
        statuses: list[LayerStatus] = []
        original = states = passage.entrance
        with stage.progress.task("mending cuts", len(blocks)) as task:
            for block in blocks:
                task.advance(1)
                if block.index in removed:
                    continue
                run = _run_after(block.index, removed)
                for index in (block.index, *run):
                    original = passage.through(index, original)
                if run and self.repair != "none":
                    statuses.append(self._mend(stage, passage, block, run, states, original, changed))
                states = passage.through(block.index, states)
            # A cut at the very beginning has nothing before it.
        first = _run_after(-1, removed)
        if first and self.repair != "none":
            detail = "no layer comes before it"
            statuses.append(_status(blocks[0], first, "fallback-unrepaired", 1.0, detail))
        rows = [passage.rows(one)[:_PROBE_TOKENS] for one in (original, states)]
        return changed, statuses, divergences(passage.skeleton, rows)

    def _mend(
        self,
        stage: Stage,
        passage: Passage,
        block: BlockAnatomy,
        run: Sequence[int],
        states: States,
        wanted: States,
        changed: dict[str, Tensor],
    ) -> LayerStatus:
        name = block.mlp.down.name
        if name in stage.source.schemes:
            raise RecipeError(
                f"layers: {name} would be refitted, and it is quantized",
                fix="drop layers before quantizing, or set repair: none",
            )
        if not adds_plainly(block, block.mlp.down):
            return _status(block, run, "fallback-unrepaired", 1.0, "its MLP is normalized before it is added")
        mended = mend(passage, passage.skeleton, block, states, wanted, None)
        if mended.fit.damping is None:
            return _status(block, run, "fallback-unrepaired", 1.0, "the Gram is not positive definite")
        weight = mended.fit.weight
        mask = stage.masks.of(block, stage.device).get(name)
        weight = weight if mask is None else weight * mask
        new = {f"{name}.weight": weight}
        if mended.fit.bias is not None:
            new[f"{name}.bias"] = mended.fit.bias
        for parameter, value in new.items():
            stored = value.to(stage.source.stored_type(parameter))
            changed[parameter] = stored
            local = parameter.removeprefix(f"{block.prefix}.")
            passage.skeleton.assign(passage.modules[block.index], local, stored.to(torch.float32))
        return _status(block, run, "ok", mended.error, "")

    def _written(
        self,
        stage: Stage,
        choice: Choice,
        changed: dict[str, Tensor],
        statuses: list[LayerStatus],
        damage: list[dict[str, Any]],
    ) -> StageResult:
        source = stage.source
        writer = PartWriter(source, source.schemes, stage.directory)
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
            damage,
            config=without_blocks(source.reader.config, source.anatomy, [block.index for block in kept]),
            details={"removed": choice.removed, "scores": choice.scores},
        )


def _run_after(index: int, removed: Sequence[int]) -> list[int]:
    """The blocks that are cut right after the block ``index``."""
    run = []
    while index + 1 in removed:
        index += 1
        run.append(index)
    return run


def _status(block: BlockAnatomy, run: Sequence[int], status: str, error: float, detail: str) -> LayerStatus:
    label = f"without {run[0]}–{run[-1]}" if len(run) > 1 else f"without {run[0]}"
    return LayerStatus(block.mlp.down.name, "layers", label, status, error, "output", detail)


def _first(batches: Sequence[TokenBatch], tokens: int) -> list[TokenBatch]:
    """The first rows of the batches that together hold about ``tokens`` tokens; at least one."""
    batch = batches[0]
    rows = max(1, min(len(batch.input_ids), tokens // batch.input_ids.shape[1]))
    return [TokenBatch(batch.input_ids[:rows], batch.attention_mask[:rows])]


PASS = Layers
