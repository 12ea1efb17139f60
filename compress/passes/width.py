"""A narrower model: the hidden size shrinks, and with it every matrix, the embedding and the head.

One orthonormal basis for the whole residual stream, so that the result is a plain model with nothing added to
its graph: channels ranked by their activations behind the norms (Muralidharan et al. 2024, arXiv 2407.14679),
by what the readers can compensate for least, or principal directions (Ashkboos et al. 2024, SliceGPT, arXiv
2401.15024). How parameters change: :mod:`edgepress.compress.prune.structured.residual_cut`; the rest is
repaired in closed form: :mod:`edgepress.compress.prune.structured.residual_repair`. A Llama whose heads no
longer divide its hidden size is written as the Mistral that it is: transformers refuses it under the other
name.

For decoders with RMSNorm; mixtures of experts, whose routers, gates and experts are all cut to the one basis,
and T5 and mT5, both of whose stacks have one, with ``repair: none``, so that ``distill`` or ``tune`` follows.
LayerNorm models are refused: their norms take off a mean over channels that would be removed, and their
configs derive the size of a head from the hidden size. A head that is the embedding stays so: then the final
norm's scales cannot be folded, and a basis of ``pca`` leaves alone the channels whose scales are unusual.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ...errors import InputError, RecipeError
from ..model.anatomy import Anatomy
from ..model.checkpoint.block_sizes import hidden_fits
from ..model.skeleton import Skeleton
from ..model.weights import WeightSource
from ..pipeline.advance import Work
from ..pipeline.algorithm import CROSS, EXPERTS, Fixed, float_bytes, whole_model
from ..pipeline.block import LayerStatus
from ..pipeline.block_inputs import BlockRunner, Stream
from ..pipeline.block_shards import BlockWriter
from ..pipeline.forward import BatchSplitter
from ..pipeline.model_pass import ModelPass, Workload
from ..pipeline.stage import Stage, StageResult
from ..prune.structured.budget import WEIGHTS, BudgetOption
from ..prune.structured.residual_basis import (
    Basis,
    NormInputs,
    basis_of,
    lost,
    measure_norm_inputs,
    unusual,
)
from ..prune.structured.residual_cut import Ends, cut_block, narrower, why_not
from ..prune.structured.residual_fit import refit_bytes
from ..prune.structured.residual_repair import NarrowBlock
from ..rotate.rotation import FusedTensors, scales_of


class Width(ModelPass):
    """Options of ``width``."""

    works_on: ClassVar[frozenset[str]] = frozenset({EXPERTS, CROSS})
    fixed: ClassVar[Mapping[str, Fixed]] = whole_model("the hidden size is that of all layers")
    keep: float = Field(gt=0, le=1, description="fraction of the budget that is left, at most")
    budget: BudgetOption = WEIGHTS
    multiple: int = Field(32, ge=1, description="the hidden size is a multiple of it")
    basis: Basis = Field(
        "activation",
        description="what stays: channels by activation or by reconstruction, or principal components (pca)",
    )
    repair: Literal["least_squares", "none"] = Field(
        "least_squares", description="closed-form refit of what is left"
    )
    damping: float | None = Field(
        None,
        gt=0,
        description="fraction of the mean Gram diagonal that is added; null: what fits the other half of the "
        "text best",
    )
    tied: Literal["keep", "separate"] = Field(
        "keep", description="a head tied to the embedding stays tied, or becomes a matrix of its own"
    )

    @property
    def calibrated(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return f"{self.keep:.0%} of the {'hidden size' if self.budget == WEIGHTS else self.budget.of}"

    def refuses(self, anatomy: Anatomy) -> Mapping[str, str]:
        found = {}
        experts = (
            "its repair refits the one MLP of a block, and reconstruction counts on a repair: with repair: "
            "none, and basis: activation or pca, it does, and distill follows"
        )
        cross = why_not(anatomy, repairs=self.repair != "none") or (
            "what a block loses is repaired in its attention and MLP alone, not in what its decoder reads of "
            "the encoder, and channels by activation alone were held against the model: with repair: none, "
            "basis: activation, and a head that stays tied, it does, and distill follows"
        )
        if self.repair != "none" or self.basis == "reconstruction":
            found[EXPERTS] = experts
        if (self.repair, self.tied, self.basis) != ("none", "keep", "activation"):
            found[CROSS] = cross
        return found

    def kept(self, anatomy: Anatomy) -> int:
        """The hidden size that is left."""
        hidden = anatomy.hidden_size
        if self.keep == 1:
            return hidden
        room = self.keep * self.budget.total(anatomy)
        fits = (
            size
            for size in range(hidden // self.multiple * self.multiple, 0, -self.multiple)
            if self.budget.total(narrower(anatomy, size)) <= room and hidden_fits(anatomy, size)
        )
        kept = next(fits, 0)
        if kept == 0:
            raise RecipeError(
                f"keeping {self.keep:.0%} of {hidden} hidden channels leaves no multiple of {self.multiple}",
                fix="keep more, or set a smaller multiple",
            )
        return kept

    def anatomy_after(self, anatomy: Anatomy) -> Anatomy:
        return narrower(anatomy, self.kept(anatomy))

    def separates(self, anatomy: Anatomy) -> bool:
        """Whether a head that was the embedding becomes a matrix of its own."""
        return anatomy.tied and self.tied == "separate"

    def added_bytes(self, anatomy: Anatomy) -> int:
        return 4 * anatomy.vocab_size * self.kept(anatomy) if self.separates(anatomy) else 0

    def working_bytes(self, weights: int) -> int:
        """Blocks come one at a time: see :meth:`sweep_bytes`."""
        return 0

    def sweep_bytes(self, source: WeightSource, tokens: int, scales: int) -> int:
        """The largest of three: the basis; a block in three copies, and the refit of its down; the embedding
        and the head, and the last states of all tokens, which the final norm and the head are fitted to.
        """
        anatomy, kept = source.anatomy, self.kept(source.anatomy)
        hidden = anatomy.hidden_size
        blocks = [
            3 * sum(map(float_bytes, block.linears())) + refit_bytes(block.mlp.down)
            for block in anatomy.blocks
        ]
        ends = 4 * (anatomy.vocab_size * 2 * (hidden + kept) + tokens * (2 * hidden + kept))
        return max(*blocks, ends, 40 * hidden**2)

    def work(self, load: Workload) -> Work:
        """The original, and where both are run beside each other again with the narrower model, and Grams."""
        return Work((4 if self._follows(load.anatomy) else 1) * load.blocks * load.tokens)

    def apply(self, stage: Stage) -> StageResult:
        """Find the basis, cut and repair block after block."""
        self._check(stage)
        runner = BlockRunner(Skeleton(stage.source, stage.device), BatchSplitter(stage.progress.note))
        folder, batches = stage.directory / "activations", stage.text("width").batches
        inputs = Stream.capture(folder / "inputs", runner.skeleton, batches)
        found, basis = self._basis(stage, runner, inputs)
        if not self._follows(stage.source.anatomy):
            return self._cut_plainly(stage, basis, lost(found, basis))
        return self._cut(stage, runner, inputs, basis)

    def _check(self, stage: Stage) -> None:
        anatomy = stage.source.anatomy
        reason = why_not(anatomy, repairs=self.repair != "none")
        if reason is not None:
            raise InputError(
                f"the hidden size of a {anatomy.model_type} model cannot shrink",
                why=reason,
                fix="prune its heads, channels or layers: passes narrow and layers",
            )
        done = "quantized" if stage.source.schemes else "pruned" if stage.masks.names else None
        if done is not None:
            raise InputError(
                f"the model is {done} already, and another hidden size would undo it",
                fix="put width before passes that quantize or set weights to zero",
            )

    def _follows(self, anatomy: Anatomy) -> bool:
        """Whether the narrower model is run beside the original, which says what each block loses: blocks of
        one MLP, whose sums are as :class:`.residual_repair.NarrowBlock` makes them.
        """
        scaled = any(block.residual_scale != 1.0 for block in anatomy.blocks)
        return anatomy.kind != "encoder_decoder" and not anatomy.has_experts and not scaled

    def _basis(self, stage: Stage, runner: BlockRunner, inputs: Stream) -> tuple[NormInputs, Tensor]:
        """What the norms receive, and the basis ``[hidden, kept]``; channels by activation where another
        cannot be found.
        """
        anatomy = stage.source.anatomy
        found = measure_norm_inputs(
            runner, stage.source, inputs, stage.progress, readers_too=self.basis == "reconstruction"
        )
        apart = None
        if anatomy.tied and not self.separates(anatomy):
            assert anatomy.final_norm is not None
            weight = stage.source.tensor(f"{anatomy.final_norm.name}.weight")
            apart = unusual(anatomy.final_norm.offset + weight).to(stage.device)
        basis = basis_of(found, self.basis, self.kept(anatomy), apart)
        if basis is None:
            stage.progress.note("the Gram of the states is not positive definite: channels go by activation")
            basis = basis_of(found, "activation", self.kept(anatomy), apart)
        assert basis is not None
        return found, basis

    def _cut_plainly(self, stage: Stage, basis: Tensor, error: float) -> StageResult:
        """All blocks in ``basis``, those of both stacks of an encoder–decoder, and nothing repaired; the
        basis leaves out the fraction ``error``.
        """
        source, anatomy = stage.source, stage.source.anatomy
        writer, norm = BlockWriter(source, {}, stage.directory), anatomy.encoder_norm
        memory = None if norm is None else scales_of(norm, source.tensor).to(stage.device)
        parts = []
        for block in anatomy.blocks:
            tensors = FusedTensors(
                lambda name: source.tensor(name).to(stage.device), source.names(f"{block.prefix}.")
            )
            cut_block(tensors, block, basis, memory)
            parts.append(writer.part(block, {}, tensors.changed, {}))
        ends = Ends(source, basis, separate=not anatomy.tied or self.separates(anatomy))
        label = f"width {len(basis)} → {basis.shape[1]}"
        status = LayerStatus(ends.norm.name, "width", label, "ok", error, "output")
        return self._result(writer, ends, parts, [status], basis)

    def _cut(self, stage: Stage, runner: BlockRunner, inputs: Stream, basis: Tensor) -> StageResult:
        source, anatomy = stage.source, stage.source.anatomy
        writer = BlockWriter(source, {}, stage.directory)
        options: dict[str, Any] = {"repairs": self.repair != "none", "damping": self.damping}
        wide, narrow = inputs, inputs.empty("narrow")
        for number, batch in enumerate(inputs.raw(0)):
            narrow.write(0, number, batch.hidden @ basis.to(torch.float32))
        parts, statuses = [], list[LayerStatus]()
        with stage.progress.task("narrowing blocks", len(anatomy.blocks)) as task:
            for block in anatomy.blocks:
                tensors = FusedTensors(
                    lambda name: source.tensor(name).to(stage.device), source.names(f"{block.prefix}.")
                )
                cut_block(tensors, block, basis)
                with runner.loaded(block.index) as module:
                    cut = NarrowBlock(block, module, tensors, basis, **options)
                    cut.run(wide, narrow)
                parts.append(writer.part(block, {}, tensors.changed, {}))
                statuses += cut.statuses
                task.advance(1)
        ends = Ends(source, basis, separate=not anatomy.tied or self.separates(anatomy))
        statuses.append(ends.fit(wide, narrow, **options))
        return self._result(writer, ends, parts, statuses, basis)

    def _result(
        self, writer: BlockWriter, ends: Ends, parts: list[Path], statuses: list[LayerStatus], basis: Tensor
    ) -> StageResult:
        details = {"hidden": basis.shape[1], "of": len(basis), "weights": basis.shape[1] / len(basis)}
        outside = writer.outer(*ends.tensors())
        return StageResult(
            [*parts, outside], statuses, {}, writer.forms, config=ends.config(), details=details
        )


PASS = Width
