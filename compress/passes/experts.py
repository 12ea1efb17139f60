"""Fewer experts: those of a mixture that are used least go, or are merged into those that they are most like.

By routed saliency (Lasby et al. 2025, REAP, arXiv 2510.13999) or frequency, on the original model; merging
after Chen et al. 2024, arXiv 2410.08589 (:mod:`..prune.structured.expert_pruning`). Each block keeps as many,
so that the result is a plain model of its family: its config has another number of experts, its router fewer
rows. Where the router chooses groups first (DeepSeek-V3), each keeps as many. Experts that are only dropped
keep their codes, if they have any, and their zeros. One block is in memory at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ...errors import InputError, RecipeError
from ..model.anatomy import Anatomy
from ..model.block_anatomy import BlockAnatomy, Experts, Linear
from ..model.family import size_keys
from ..model.skeleton import Skeleton
from ..numbers.scheme import Scheme
from ..pipeline.algorithm import EXPERTS, Fixed, whole_model
from ..pipeline.block import LayerStatus
from ..pipeline.block_inputs import Stream
from ..pipeline.block_shards import BlockWriter
from ..pipeline.forward import BatchSplitter
from ..pipeline.model_pass import ModelPass
from ..pipeline.stage import Stage, StageResult
from ..prune.structured.expert_pruning import (
    ExpertCriterion,
    ExpertUse,
    keep_experts,
    merge_experts,
    renumbered,
    used,
    with_experts,
)


class ExpertsPass(ModelPass):
    """Options of ``experts``."""

    works_on: ClassVar[frozenset[str]] = frozenset({EXPERTS})
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
    def calibrated(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return f"{self.keep:.0%} of the experts"

    def kept(self, anatomy: Anatomy) -> int:
        """How many experts of each block stay: a multiple of the groups that its router chooses from."""
        found = [block.experts for block in anatomy.blocks if block.experts is not None]
        if not found:
            raise InputError(
                f"a {anatomy.model_type} model has no experts", fix="prune its MLPs: pass narrow"
            )
        count, least = min(one.count for one in found), max(one.fewest for one in found)
        groups = max(one.groups for one in found)
        kept = int(self.keep * count) // groups * groups
        if kept < least:
            chosen = max(one.chosen for one in found)
            among = f" of {groups} groups" if groups > 1 else ""
            raise RecipeError(
                f"keeping {self.keep:.0%} of {count} experts leaves {kept}; a token takes {chosen}{among}",
                fix=f"keep at least {least / count:.3g}",
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
        """Count, choose and write block after block."""
        self._check(stage)
        text = stage.text("experts")
        source, anatomy, kept = stage.source, stage.source.anatomy, self.kept(stage.source.anatomy)
        skeleton, smaller = Skeleton(source, stage.device), BatchSplitter(stage.progress.note)
        folder, writer = stage.directory / "activations", BlockWriter(source, source.schemes, stage.directory)
        original = Stream.capture(folder / "original", skeleton, text.batches)
        pruned = original.fork("pruned", 0)
        parts, statuses, gone = [], list[LayerStatus](), dict[str, list[int]]()
        with stage.progress.task("pruning experts", len(anatomy.blocks)) as task:
            for block in anatomy.blocks:
                module = skeleton.fill_block(block.index)
                stays = None
                if block.experts is not None:
                    use = used(skeleton, block.experts, module, original.raw(block.index))
                    stays = use.kept(self.criterion, kept, block.experts.groups)
                    statuses.append(self._status(block.experts, use, stays))
                    gone[block.prefix] = sorted(set(range(block.experts.count)) - set(stays))
                original.advance(block.index, module, smaller)
                merged = self._merged(skeleton, block.experts, use, stays) if stays and block.experts else {}
                parts.append(self._written(stage, writer, block, merged, stays))
                pruned.advance(block.index, module, smaller)
                skeleton.free(block.prefix)
                task.advance(1)
        config = {key: kept for key in size_keys(source.reader.config).experts if key in source.reader.config}
        details = {"experts": kept, "removed": gone}
        schemes = self._schemes(source.schemes, anatomy, gone)
        return StageResult(
            [*parts, writer.outer()], statuses, schemes, writer.forms, config=config, details=details
        )

    def _check(self, stage: Stage) -> None:
        experts = {one.name for block in stage.source.anatomy.blocks for one in block.expert_linears()}
        coded = sorted(experts & stage.source.schemes.keys())
        if coded and self.method == "merge":
            raise RecipeError(
                f"{coded[0]} is quantized already, and a mean of codes is none",
                fix="merge experts before quantizing, or drop them: method: drop",
            )

    def _merged(
        self, skeleton: Skeleton, experts: Experts, use: ExpertUse, stays: Sequence[int]
    ) -> dict[str, Tensor]:
        """The parameters of experts that others were merged into, by stored name; leaves ``stays`` alone in
        the modules.
        """
        changed: dict[str, Tensor] = {}
        if self.method == "merge":
            means = {one: mean for one, mean in zip(stays, use.merging(stays), strict=True) if len(mean) > 1}
            merge_experts(skeleton, experts, means)
            for one in means:
                module = skeleton.submodule(f"{experts.prefix}.{one}")
                changed |= {
                    f"{experts.prefix}.{one}.{name}": parameter.detach().clone()
                    for name, parameter in module.named_parameters()
                }
        keep_experts(skeleton, experts, stays)
        return changed

    def _written(
        self,
        stage: Stage,
        writer: BlockWriter,
        block: BlockAnatomy,
        changed: Mapping[str, Tensor],
        stays: Sequence[int] | None,
    ) -> Path:
        """Write ``block`` with the experts ``stays`` alone; None leaves it as it is."""
        quantized = stage.source.quantized(block, stage.device)
        masks = stage.masks.of(block, stage.device)
        tensors = writer.tensors(block, quantized, changed)
        if block.experts is not None and stays is not None:
            tensors = with_experts(tensors, block.experts, stays)
            masks = with_experts(masks, block.experts, stays)
        return writer.exactly(block, tensors, masks)

    @staticmethod
    def _schemes(
        schemes: Mapping[str, Scheme], anatomy: Anatomy, gone: Mapping[str, Sequence[int]]
    ) -> dict[str, Scheme]:
        """Those of the linears that are left, by their new names."""
        found: dict[str, Scheme] = {}
        for block in anatomy.blocks:
            for linear in block.linears():
                name: str | None = linear.name
                if block.experts is not None:
                    removed = gone[block.prefix]
                    stays = [one for one in range(block.experts.count) if one not in removed]
                    name = renumbered(linear.name, block.experts, stays)
                if name is not None and linear.name in schemes:
                    found[name] = schemes[linear.name]
        return found

    def _status(self, experts: Experts, use: ExpertUse, stays: Sequence[int]) -> LayerStatus:
        saliency = use.saliency(self.criterion)
        lost = 1 - float(saliency[list(stays)].sum() / saliency.sum().clamp_min(1e-30))
        unused = int((use.chosen == 0).sum())
        detail = f"{unused} of {experts.count} were never chosen" if unused else ""
        label = f"experts {experts.count} → {len(stays)}"
        return LayerStatus(experts.router, "experts", label, "ok", lost, "saliency", detail)


PASS = ExpertsPass
