"""A residual stream in fewer directions: the parameters that read and write it, and the norms between.

With ``B [hidden, kept]`` of orthonormal columns, states ``x`` become ``y = x B``. A norm's scales go into its
readers, which then read through ``B``; the norm itself keeps one factor. Where ``‖y‖ = ‖x‖``,

    x / √(‖x‖²/d + ε)  restricted to B  =  √(d/k) · y / √(‖y‖²/k + ε d/k),

so the norms' scale is ``√(d/k)`` and their epsilon ``ε d/k``; with ``‖y‖ < ‖x‖`` the readers see states that
are longer by as much, which the repair makes up for.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ...model.anatomy import Anatomy
from ...model.block_anatomy import BlockAnatomy, Linear, Norm
from ...rotate.rotation import FusedTensors, rotate_residual
from ...rotate.rotation import why_not as why_not_rotated


def scale_of(basis: Tensor) -> float:
    """The scale ``√(d/k)`` of every norm."""
    return float((len(basis) / basis.shape[1]) ** 0.5)


def cut_block(tensors: FusedTensors, block: BlockAnatomy, basis: Tensor) -> None:
    """Make ``block`` read and write states in ``basis [hidden, kept]``."""
    rotate_residual(tensors, block, basis)
    for norm in (block.norm1, block.norm2):
        tensors.changed[f"{norm.name}.weight"] = norm_weight(norm, basis)


def norm_weight(norm: Norm, basis: Tensor) -> Tensor:
    """The stored weight ``[kept]`` of a norm whose scales are in its readers."""
    return torch.full((basis.shape[1],), scale_of(basis) - norm.offset, device=basis.device)


def tied_scales(scales: Tensor, basis: Tensor) -> Tensor:
    """The final norm's scales ``[kept]`` nearest to ``scales [hidden]`` where the head is the embedding, so
    that nothing can take them in: the diagonal of ``Bᵀ diag(scales) B``; exact where ``B`` selects channels.
    """
    return (scale_of(basis) * (basis.square().T @ scales.to(basis.dtype))).to(torch.float32)


def why_not(anatomy: Anatomy) -> str | None:
    """Why the hidden states of a model cannot lose directions; None when they can."""
    reason = why_not_rotated(anatomy)
    if reason is not None:
        return reason
    norms = [norm for block in anatomy.blocks for norm in (block.norm1, block.norm2)]
    if any(norm.kind == "layer" for norm in norms):
        return "its LayerNorms take off the mean of channels that would be gone"
    if any(block.order != "pre" for block in anatomy.blocks):
        return "its attention and MLP read the same states"
    if any(block.normed_inside for block in anatomy.blocks):
        return "its norms inside attention are as wide as the hidden states"
    if anatomy.embedding_scale != 1.0:
        return "it scales its embeddings by the root of the hidden size"
    return None


def narrower(anatomy: Anatomy, kept: int) -> Anatomy:
    """``anatomy`` with hidden states of ``kept`` channels."""

    def reading(linear: Linear) -> Linear:
        return replace(linear, in_features=kept)

    def writing(linear: Linear) -> Linear:
        return replace(linear, out_features=kept)

    def cut(block: BlockAnatomy) -> BlockAnatomy:
        attention, mlp = block.attention, block.mlp
        narrow = replace(
            attention,
            q=reading(attention.q),
            k=reading(attention.k),
            v=reading(attention.v),
            qkv=attention.qkv and reading(attention.qkv),
            o=writing(attention.o),
        )
        gate, both = mlp.gate and reading(mlp.gate), mlp.gate_up and reading(mlp.gate_up)
        mlp = replace(mlp, gate=gate, up=reading(mlp.up), gate_up=both, down=writing(mlp.down))
        return replace(block, attention=narrow, mlp=mlp)

    return replace(anatomy, blocks=tuple(map(cut, anatomy.blocks)), hidden_size=kept)
