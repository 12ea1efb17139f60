"""Fewer experts: those of a mixture that are used least go, or are merged into those that they are most like.

By routed saliency (Lasby et al. 2025, REAP, arXiv 2510.13999) or frequency, on the original model; merging
after Chen et al. 2024, arXiv 2410.08589 (:mod:`edgepress.compress.prune.structured.expert_use`). Every block
keeps as many, so that the result is a plain model of its family: its config has another number of experts,
its router fewer rows. One block is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ...errors import CalibrationError, InputError, RecipeError
from ..model.anatomy import Anatomy
from ..model.block_anatomy import Experts, Linear
from ..model.family import size_keys
from ..model.skeleton import Skeleton
from ..pipeline.algorithm import Fixed, ModelPass, whole_model
from ..pipeline.block import LayerStatus
from ..pipeline.block_inputs import block_inputs
from ..pipeline.damage_probe import decoder_divergences
from ..pipeline.forward import Batch, Smaller, propagate
from ..pipeline.part_writer import PartWriter
from ..pipeline.stage import Stage, StageResult
from ..prune.structured.expert_use import Criterion, Use
from ..prune.structured.mixture import replace_experts, used, with_experts

_PROBE_TOKENS = 512


@dataclass(frozen=True)
class _Streams:
    """The states of each batch in the original and in the pruned model, its arguments by block, and its mask
    of real tokens or None.
    """

    original: list[Tensor]
    pruned: list[Tensor]
    arguments: list[list[dict[str, Any]]]
    masks: list[Tensor | None]

    def batches(self, index: int, states: Sequence[Tensor]) -> list[Batch]:
        """``states`` at the entrance of the block ``index``."""
        sides = zip(states, self.arguments, self.masks, strict=True)
        return [Batch(hidden, arguments[index], mask) for hidden, arguments, mask in sides]

    def rows(self, states: Sequence[Tensor]) -> Tensor:
        """The states of real tokens, as many as a probe has."""
        parts = [
            hidden.flatten(0, 1) if mask is None else hidden[mask]
            for hidden, mask in zip(states, self.masks, strict=True)
        ]
        return torch.cat(parts)[:_PROBE_TOKENS]


class ExpertsPass(ModelPass):
    """Options of ``experts``."""

    knows_experts: ClassVar[bool] = True
    fixed: ClassVar[Mapping[str, Fixed]] = whole_model("every block keeps as many experts")
    keep: float = Field(gt=0, lt=1, description="fraction of the experts of each block that stays, at most")
    criterion: Criterion = Field(
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
        if stage.calibration is None:
            raise CalibrationError("experts needs calibration text", fix="pass --calibration FILE")
        source, anatomy, kept = stage.source, stage.source.anatomy, self.kept(stage.source.anatomy)
        skeleton, smaller = Skeleton(source, stage.device), Smaller(stage.progress.note)
        streams, writer = _entrance(skeleton, stage), PartWriter(source, {}, stage.directory)
        parts, statuses, gone = [], list[LayerStatus](), dict[str, list[int]]()
        with stage.progress.task("pruning experts", len(anatomy.blocks)) as task:
            for block in anatomy.blocks:
                module = skeleton.fill(block.prefix)
                tensors = source.reader.read(source.names(f"{block.prefix}."))
                entering = streams.batches(block.index, streams.original)
                use = None if block.experts is None else used(skeleton, block.experts, module, entering)
                left = [propagate(module, batch, smaller) for batch in entering]
                if use is not None and block.experts is not None:
                    stays = use.kept(self.criterion, kept).tolist()
                    weights = use.merged(stays) if self.method == "merge" else use.left(stays)
                    replace_experts(skeleton, block.experts, weights)
                    tensors = with_experts(tensors, block.experts, weights)
                    statuses.append(self._status(block.experts, use, stays))
                    gone[block.prefix] = sorted(set(range(block.experts.count)) - set(stays))
                entering = streams.batches(block.index, streams.pruned)
                pruned = [propagate(module, batch, smaller) for batch in entering]
                streams = replace(streams, original=left, pruned=pruned)
                parts.append(writer.exactly(block, tensors))
                skeleton.free(block.prefix)
                task.advance(1)
        with skeleton.head() as head:
            sides = [streams.rows(side) for side in (streams.original, streams.pruned)]
            damage = decoder_divergences(sides, [head, head])
        config = {key: kept for key in size_keys(source.reader.config).experts if key in source.reader.config}
        details = {"experts": kept, "removed": gone}
        return StageResult(
            [*parts, writer.outer()], statuses, {}, writer.forms, damage, config=config, details=details
        )

    def _status(self, experts: Experts, use: Use, stays: Sequence[int]) -> LayerStatus:
        saliency = use.saliency(self.criterion)
        lost = 1 - float(saliency[list(stays)].sum() / saliency.sum().clamp_min(1e-30))
        unused = int((use.chosen == 0).sum())
        detail = f"{unused} of {experts.count} were never chosen" if unused else ""
        label = f"experts {experts.count} → {len(stays)}"
        return LayerStatus(experts.router, "experts", label, "ok", lost, "saliency", detail)


def _entrance(skeleton: Skeleton, stage: Stage) -> _Streams:
    assert stage.calibration is not None
    states: list[Tensor] = []
    arguments: list[list[dict[str, Any]]] = []
    masks: list[Tensor | None] = []
    with skeleton.embeddings() as model:
        for batch in stage.calibration.batches:
            padded = not bool(batch.attention_mask.all())
            mask = batch.attention_mask.to(stage.device) if padded else None
            hidden, named = block_inputs(skeleton, model, batch.input_ids.to(stage.device), mask)
            states.append(hidden)
            arguments.append(named)
            masks.append(None if mask is None else mask.to(torch.bool))
    return _Streams(states, states, arguments, masks)


PASS = ExpertsPass
