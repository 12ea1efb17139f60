"""Fewer experts: those of a mixture that are used least go, or are merged into those that they are most like.

By routed saliency (Lasby et al. 2025, REAP, arXiv 2510.13999) or frequency, on the original model; merging
after Chen et al. 2024, arXiv 2410.08589 (:mod:`..prune.structured.expert_pruning`). Each block keeps as many,
so that the result is a plain model of its family: its config has another number of experts, its router fewer
rows. One block is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from ...errors import InputError, RecipeError
from ..model.anatomy import Anatomy
from ..model.block_anatomy import Experts, Linear
from ..model.family import size_keys
from ..model.skeleton import Skeleton
from ..pipeline.algorithm import Fixed, whole_model
from ..pipeline.block import LayerStatus
from ..pipeline.block_inputs import Stream
from ..pipeline.block_shards import BlockWriter
from ..pipeline.forward import BatchSplitter
from ..pipeline.model_pass import ModelPass
from ..pipeline.stage import Stage, StageResult
from ..prune.structured.expert_pruning import (
    ExpertCriterion,
    ExpertUse,
    replace_experts,
    used,
    with_experts,
)


class ExpertsPass(ModelPass):
    """Options of ``experts``."""

    fixed: ClassVar[Mapping[str, Fixed]] = whole_model("every block keeps as many experts")
    keep: float = Field(gt=0, lt=1, description="fraction of the experts of each block that stays, at most")
    criterion: ExpertCriterion = Field(
        "routed",
        description="saliency of an expert: routed, its outputs as the router weighs them, or frequency",
    )
    method: Literal["drop", "merge"] = Field(
        "drop", description="the other experts are dropped, or merged into those that they are most like"
    )

    @property
    def knows_experts(self) -> bool:
        return True

    @property
    def calibrated(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return f"{self.keep:.0%} of the experts"

    def kept(self, anatomy: Anatomy) -> int:
        """How many experts of each block stay.

        Raises:
            InputError: the model has none.
            RecipeError: fewer than a token goes through.
        """
        found = [block.experts for block in anatomy.blocks if block.experts is not None]
        if not found:
            raise InputError(
                f"a {anatomy.model_type} model has no experts", fix="prune its MLPs: pass narrow"
            )
        if any(one.fixed for one in found):
            raise RecipeError(
                f"experts: those of a {anatomy.model_type} do not go one by one",
                why="its router has a bias or groups, or gate and up are one matrix",
                fix="prune their weights: passes prune, sparsegpt, alps",
            )
        count, chosen = min(one.count for one in found), max(one.chosen for one in found)
        kept = int(self.keep * count)
        if kept < chosen:
            raise RecipeError(
                f"keeping {self.keep:.0%} of {count} experts leaves {kept}; a token takes {chosen}",
                fix=f"keep at least {chosen / count:.3g}",
            )
        return kept

    def anatomy_after(self, anatomy: Anatomy) -> Anatomy:
        kept = self.kept(anatomy)
        blocks = [
            block if block.experts is None else replace(block, experts=replace(block.experts, count=kept))
            for block in anatomy.blocks
        ]
        return replace(anatomy, blocks=tuple(blocks))

    def selected(self, anatomy: Anatomy) -> list[Linear]:
        """The linears of all experts; raises as :meth:`kept`."""
        self.kept(anatomy)
        return [linear for block in anatomy.blocks for linear in block.expert_linears()]

    def working_bytes(self, weights: int) -> int:
        """Blocks come one at a time; the plan counts one."""
        return 0

    def apply(self, stage: Stage) -> StageResult:
        """Count, choose and write block after block.

        Raises:
            CalibrationError: there is no text.
        """
        text = stage.text("experts")
        source, anatomy, kept = stage.source, stage.source.anatomy, self.kept(stage.source.anatomy)
        skeleton, smaller = Skeleton(source, stage.device), BatchSplitter(stage.progress.note)
        folder, writer = stage.directory / "activations", BlockWriter(source, {}, stage.directory)
        original = Stream.capture(folder / "original", skeleton, text.batches)
        pruned = original.fork("pruned", 0)
        parts, statuses, gone = [], list[LayerStatus](), dict[str, list[int]]()
        with stage.progress.task("pruning experts", len(anatomy.blocks)) as task:
            for block in anatomy.blocks:
                module = skeleton.fill_block(block.index)
                tensors = source.reader.read(source.names(f"{block.prefix}."))
                entering = original.raw(block.index)
                use = None if block.experts is None else used(skeleton, block.experts, module, entering)
                original.advance(block.index, module, smaller)
                if use is not None and block.experts is not None:
                    stays = use.kept(self.criterion, kept).tolist()
                    weights = use.merged(stays) if self.method == "merge" else use.left(stays)
                    replace_experts(skeleton, block.experts, weights)
                    tensors = with_experts(tensors, block.experts, weights)
                    statuses.append(self._status(block.experts, use, stays))
                    gone[block.prefix] = sorted(set(range(block.experts.count)) - set(stays))
                pruned.advance(block.index, module, smaller)
                parts.append(writer.exactly(block, tensors))
                skeleton.free(block.prefix)
                task.advance(1)
        config = {key: kept for key in size_keys(source.reader.config).experts if key in source.reader.config}
        details = {"experts": kept, "removed": gone}
        return StageResult(
            [*parts, writer.outer()], statuses, {}, writer.forms, config=config, details=details
        )

    def _status(self, experts: Experts, use: ExpertUse, stays: Sequence[int]) -> LayerStatus:
        saliency = use.saliency(self.criterion)
        lost = 1 - float(saliency[list(stays)].sum() / saliency.sum().clamp_min(1e-30))
        unused = int((use.chosen == 0).sum())
        detail = f"{unused} of {experts.count} were never chosen" if unused else ""
        label = f"experts {experts.count} → {len(stays)}"
        return LayerStatus(experts.router, "experts", label, "ok", lost, "saliency", detail)


PASS = ExpertsPass
