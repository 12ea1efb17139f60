"""Rotation: hidden states and value heads rotated by orthogonal matrices, fused into the weights.

Ashkboos et al. 2024, "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", arXiv 2404.00456, its offline
part. The model computes the same function; what changes is that no channel of the hidden states stands out,
so that activations, a cache and low-bit weights lose less when they are rounded. Nothing is added to the
graph: the rotations that QuaRot makes at run time (in front of down, and of queries and keys) are not made.

With ``learn`` the rotations are no longer left to chance: they start random and move on the Cayley manifold
to where the rounding of the scheme named there loses least (Liu et al. 2024, "SpinQuant: LLM Quantization
with LearnedRotation Rotations", arXiv 2405.16406; the loss is that of
:mod:`edgepress.compress.rotate.learned_rotation`).

A head that shares the embedding's matrix gets one of its own, because the final norm's scales go into it:
the checkpoint grows by that matrix, and the details of the step say by how much. LayerNorm models are rotated
by matrices that keep the mean, both stacks of a T5 by one, since they share the embedding. Models whose norms
cannot give their scales away (BERT, Gemma 2, BART) are refused, save with ``residual: false``, which leaves
the value heads to rotate.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ...errors import InputError
from ..model.anatomy import Anatomy
from ..model.block_anatomy import BlockAnatomy
from ..model.weights import WeightSource
from ..numbers.scheme import AnySchemeOption, Scheme
from ..pipeline.advance import Work
from ..pipeline.algorithm import ATTENDING, Fixed, whole_model
from ..pipeline.block import LayerStatus
from ..pipeline.block_shards import BlockWriter
from ..pipeline.forward import BatchSplitter
from ..pipeline.model_pass import ModelPass, Workload
from ..pipeline.stage import Stage, StageResult
from ..rotate.learned_rotation import LearnedRotation, Reader, learn
from ..rotate.rotation import (
    FusedTensors,
    attentions_of,
    mean_preserving,
    random_rotation,
    rotate_heads,
    rotate_outside,
    rotate_residual,
    scales_of,
    why_not,
)
from ..rotate.rotation_readers import block_readers

_ANGLE = 0.1  # of the first step of learning, in radians
_SEED = 0

# Of one block: for each of its attentions a matrix a value head, ``[kv_heads, value_dim, value_dim]``.
HeadRotations = list[Tensor]


class Rotate(ModelPass):
    """Options of ``rotate``."""

    works_on: ClassVar[frozenset[str]] = ATTENDING
    text: ClassVar[str] = "to learn"
    fixed: ClassVar[Mapping[str, Fixed]] = whole_model("a rotation takes in all layers") | {
        "seed": Fixed(_SEED, "`learn` is the way to a better rotation than another draw"),
        "angle": Fixed(_ANGLE, "of the first step in radians; later ones fall linearly to zero"),
    }
    residual: bool = Field(True, description="whether the residual stream is rotated")
    heads: bool = Field(True, description="whether the channels of each value head are rotated")
    learn: AnySchemeOption | None = Field(
        None,
        description="scheme whose rounding error learned rotations reduce; null: random ones",
    )
    steps: int = Field(100, ge=1, le=10_000, description="steps that learned rotations take")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not (self.residual or self.heads):
            raise ValueError("nothing to rotate: residual and heads are both false")
        return self

    @property
    def label(self) -> str:
        return "rotated"

    @property
    def calibrated(self) -> bool:
        return self.learn is not None

    def working_bytes(self, weights: int) -> int:
        """Next to nothing beside the embedding and the head: a block at a time."""
        return 0

    def work(self, load: Workload) -> Work:
        """Products with a matrix as wide as the hidden states."""
        return Work(load.blocks * load.anatomy.hidden_size)

    def added_bytes(self, anatomy: Anatomy) -> int:
        return 4 * anatomy.vocab_size * anatomy.hidden_size if self.residual and anatomy.tied else 0

    def anatomy_after(self, anatomy: Anatomy) -> Anatomy:
        """As it was."""
        self._require(anatomy)
        return anatomy

    def apply(self, stage: Stage) -> StageResult:
        """Rotate a block at a time."""
        source, anatomy = stage.source, stage.source.anatomy
        self._check(stage)
        writer = BlockWriter(source, {}, stage.directory)
        rotation = self._residual(anatomy) if self.residual else None
        heads = [_head_rotations(block) for block in anatomy.blocks] if self.heads else []
        learned: dict[str, Any] = {}
        if self.learn is not None:
            rotation, heads, learned = self._learned(stage, self.learn, rotation, heads)
        parts, statuses = [], []
        with stage.progress.task("rotating blocks", len(anatomy.blocks)) as task:
            for block, own in zip_longest(anatomy.blocks, heads):
                parts.append(_rotated(source, writer, block, rotation, own))
                names = [linear.name for linear in block.linears()]
                statuses += [LayerStatus(name, "rotate", "rotated", "ok", 0.0, "weight") for name in names]
                task.advance(1)
        if rotation is None:
            return StageResult([*parts, writer.outer()], statuses, {}, writer.forms, details=learned)
        outside, details = self._outside(source, writer, rotation)
        config = {"tie_word_embeddings": False}
        if anatomy.kind == "encoder_decoder" and anatomy.logit_form is not None:
            config["scale_decoder_outputs"] = False  # the head has T5's factor in it
        return StageResult(
            [*parts, outside], statuses, {}, writer.forms, config=config, details=details | learned
        )

    def _require(self, anatomy: Anatomy) -> None:
        reason = why_not(anatomy) if self.residual else None
        if reason is not None:
            raise InputError(
                f"the hidden states of a {anatomy.model_type} model cannot be rotated",
                why=reason,
                fix="rotate the value heads only: {pass: rotate, residual: false}",
            )
        if self.heads and any(block.normed_inside for block in anatomy.blocks):
            raise InputError(
                f"the value heads of a {anatomy.model_type} model cannot be rotated",
                why="a norm stands between them and what reads them",
                fix="rotate the hidden states only: {pass: rotate, heads: false}",
            )

    def _check(self, stage: Stage) -> None:
        self._require(stage.source.anatomy)
        done = "quantized" if stage.source.schemes else "pruned" if stage.masks.names else None
        if done is not None:
            raise InputError(
                f"the model is {done} already, and a rotation would undo it",
                fix="make rotate the first pass of the recipe, on the original model",
            )

    def _learned(
        self, stage: Stage, scheme: Scheme, rotation: Tensor | None, heads: list[HeadRotations]
    ) -> tuple[Tensor | None, list[HeadRotations], dict[str, Any]]:
        """Both kinds of rotations as they are learned from those given, and their errors."""
        residual: list[Reader] = []
        found: list[list[LearnedRotation]] = []
        smaller = BatchSplitter(stage.progress.note)
        folder, wanted = stage.directory / "activations" / "inputs", rotation is not None
        text = stage.text("learning a rotation")
        blocks = block_readers(stage.source, text, stage.device, folder, smaller, residual=wanted)
        with stage.progress.task("learning rotations", len(stage.source.anatomy.blocks)) as task:
            for block, own in zip_longest(blocks, heads):
                residual += block.residual
                if own is not None:
                    both = zip(block.heads, own, strict=True)
                    found.append([learn([one], start, scheme, self.steps, _ANGLE) for one, start in both])
                task.advance(1)
            errors = _errors("heads", [one for block in found for one in block])
            if rotation is not None:
                fixed = self._fixed(stage.source.anatomy)
                whole = learn(residual, rotation.unsqueeze(0), scheme, self.steps, _ANGLE, fixed)
                rotation, errors = whole.rotation.squeeze(0), errors | _errors("residual", [whole])
        return rotation, [[one.rotation for one in block] for block in found], {"learned": errors}

    def _outside(
        self, source: WeightSource, writer: BlockWriter, rotation: Tensor
    ) -> tuple[Path, dict[str, Any]]:
        """Write embeddings, final norm and head; a tied head becomes a matrix of its own."""
        anatomy = source.anatomy
        tensors = FusedTensors(source.tensor, source.names())
        rotate_outside(tensors, anatomy, rotation)
        if not anatomy.tied:
            return writer.outer(tensors.changed), {"untied": False}
        name = f"{anatomy.head}.weight"
        head = tensors.changed.pop(name).to(source.stored_type(f"{anatomy.embedding}.weight"))
        added = head.numel() * head.element_size()
        return writer.outer(tensors.changed, {name: head}), {"untied": True, "bytes_added": added}

    def _residual(self, anatomy: Anatomy) -> Tensor:
        """The rotation ``[hidden, hidden]`` of the hidden states."""
        generator = torch.Generator().manual_seed(_SEED)
        if self._fixed(anatomy) is not None:
            return mean_preserving(anatomy.hidden_size, generator)
        return random_rotation(anatomy.hidden_size, generator)

    @staticmethod
    def _fixed(anatomy: Anatomy) -> Tensor | None:
        """The unit vector ``[hidden]`` along which LayerNorms take out the mean; None where there is none."""
        norms = [norm for block in anatomy.blocks for norm in (block.norm1, block.norm2)]
        size = anatomy.hidden_size
        return torch.full((size,), size**-0.5) if any(norm.kind == "layer" for norm in norms) else None


def _head_rotations(block: BlockAnatomy) -> HeadRotations:
    generator = torch.Generator().manual_seed(1_000_003 * (_SEED + 1) + block.index)
    return [
        torch.stack([random_rotation(attention.value_dim, generator) for _ in range(attention.kv_heads)])
        for attention in attentions_of(block)
    ]


def _rotated(
    source: WeightSource,
    writer: BlockWriter,
    block: BlockAnatomy,
    rotation: Tensor | None,
    heads: HeadRotations | None,
) -> Path:
    """Write a block whose residual states and value heads are rotated."""
    tensors = FusedTensors(source.tensor, source.names(f"{block.prefix}."))
    if rotation is not None:
        norm = source.anatomy.encoder_norm
        memory = None if block.cross is None or norm is None else scales_of(norm, source.tensor)
        rotate_residual(tensors, block, rotation, memory)
    for attention, own in zip(attentions_of(block), heads or [], strict=False):
        rotate_heads(tensors, attention, own)
    return writer.part(block, {}, tensors.changed, {})


def _errors(name: str, found: Sequence[LearnedRotation]) -> dict[str, list[float]]:
    """The mean relative error on held-out rows before and after learning."""
    if not found:
        return {}
    return {name: [sum(getattr(one, end) for one in found) / len(found) for end in ("first", "best")]}


PASS = Rotate
