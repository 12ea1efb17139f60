"""A residual stream in fewer directions: the blocks' inputs and outputs, the norms between, and the two ends.

With ``B [hidden, kept]`` of orthonormal columns, states ``x`` become ``y = x B``. A norm's scales go into its
readers, whose inputs then come through ``B``; the norm itself keeps one factor. Where ``‖y‖ = ‖x‖``,

    x / √(‖x‖²/d + ε)  restricted to B  =  √(d/k) · y / √(‖y‖²/k + ε d/k),

so the norms' scale is ``√(d/k)`` and their epsilon ``ε d/k``; with ``‖y‖ < ‖x‖`` the readers get states that
are longer by as much, for which the refit compensates. At the ends are the embedding, where the stream
begins, and the final norm and the head.
"""

from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from ...model.anatomy import Anatomy
from ...model.block_anatomy import Attention, BlockAnatomy, Linear, Mlp, Norm
from ...model.checkpoint.block_sizes import with_hidden_size
from ...model.weights import WeightSource
from ...pipeline.block import LayerStatus
from ...pipeline.block_inputs import Stream
from ...rotate.rotation import FusedTensors, rotate_residual
from ...rotate.rotation import why_not as why_not_rotated
from ...solve.damped_cholesky import DAMPINGS
from .residual_basis import normalized
from .residual_fit import UNREPAIRED, NormOutputs, fit_norm_outputs, fitted_scales

Tensors = dict[str, Tensor]


def scale_of(basis: Tensor) -> float:
    """The scale ``√(d/k)`` of every norm."""
    return float((len(basis) / basis.shape[1]) ** 0.5)


def cut_block(
    tensors: FusedTensors, block: BlockAnatomy, basis: Tensor, memory: Tensor | None = None
) -> None:
    """Make ``block`` read and write states in ``basis [hidden, kept]``, and read those of an encoder, whose
    norm had the scales ``memory [hidden]``.
    """
    rotate_residual(tensors, block, basis, memory)
    norms = (block.norm1, block.norm2, *([] if block.cross_norm is None else [block.cross_norm]))
    for norm in norms:
        tensors.changed[f"{norm.name}.weight"] = norm_weight(norm, basis)


def norm_weight(norm: Norm, basis: Tensor) -> Tensor:
    """The stored weight ``[kept]`` of a norm whose scales are in its readers."""
    return torch.full((basis.shape[1],), scale_of(basis) - norm.offset, device=basis.device)


def tied_scales(scales: Tensor, basis: Tensor) -> Tensor:
    """The final norm's scales ``[kept]`` nearest to ``scales [hidden]`` where the head is the embedding, so
    that nothing can take them in: the diagonal of ``Bᵀ diag(scales) B``; exact where ``B`` selects channels.
    """
    return (scale_of(basis) * (basis.square().T @ scales.to(basis.dtype))).to(torch.float32)


def why_not(anatomy: Anatomy, *, repairs: bool) -> str | None:
    """Why the hidden states of a model cannot lose directions, which a repair follows; None when they can."""
    reason = why_not_rotated(anatomy)
    if reason is not None:
        return reason
    norms = [norm for block in anatomy.blocks for norm in (block.norm1, block.norm2)]
    if any(norm.kind == "layer" for norm in norms):
        return "its LayerNorms take off the mean of channels that would be removed"
    if any(block.order != "pre" for block in anatomy.blocks):
        return "its attention and MLP read the same states"
    if any(block.normed_inside for block in anatomy.blocks):
        return "its norms inside attention are as wide as the hidden states"
    if any(block.attention.normed_over_heads for block in anatomy.blocks):
        return "transformers makes its norms of q and k as wide as the hidden states"
    if anatomy.embedding_scale == sqrt(anatomy.hidden_size):
        return "it scales its embeddings by the root of the hidden size"
    if repairs and any(block.residual_scale != 1.0 for block in anatomy.blocks):
        return "it scales what attention and MLP add, which no repair counts in: repair: none needs none"
    return None


def narrower(anatomy: Anatomy, kept: int) -> Anatomy:
    """``anatomy`` with hidden states of ``kept`` channels."""

    def reading(linear: Linear) -> Linear:
        return replace(linear, in_features=kept)

    def writing(linear: Linear) -> Linear:
        return replace(linear, out_features=kept)

    def attending(attention: Attention) -> Attention:
        o, latent = writing(attention.o), attention.latent
        if latent is not None and latent.q_a is not None:
            latent = replace(latent, q_a=reading(latent.q_a), kv_a=reading(latent.kv_a))
            return replace(attention, o=o, latent=latent)
        if latent is not None:
            latent = replace(latent, kv_a=reading(latent.kv_a))
            return replace(attention, q=reading(attention.q), o=o, latent=latent)
        return replace(
            attention,
            q=reading(attention.q),
            k=reading(attention.k),
            v=reading(attention.v),
            qkv=attention.qkv and reading(attention.qkv),
            o=o,
        )

    def fed(mlp: Mlp) -> Mlp:
        gate, both = mlp.gate and reading(mlp.gate), mlp.gate_up and reading(mlp.gate_up)
        return replace(mlp, gate=gate, up=reading(mlp.up), gate_up=both, down=writing(mlp.down))

    def cut(block: BlockAnatomy) -> BlockAnatomy:
        experts, cross = block.experts, block.cross and attending(block.cross)
        if experts is not None and experts.shared is not None:
            experts = replace(experts, shared=fed(experts.shared))
        mixer, mlp = attending(block.attention), fed(block.mlp)
        return replace(block, mixer=mixer, feed_forward=mlp, cross=cross, experts=experts)

    return replace(anatomy, blocks=tuple(map(cut, anatomy.blocks)), hidden_size=kept)


class Ends:
    """Embedding, final norm and head of ``source`` in ``basis [hidden, kept]``, repaired by :meth:`fit`.

    ``separate``: the head is a matrix of its own, or becomes one, and takes in the final norm's scales; else
    it is the embedding, and the scales are all that can be fitted.
    """

    def __init__(self, source: WeightSource, basis: Tensor, *, separate: bool) -> None:
        anatomy = source.anatomy
        assert anatomy.final_norm is not None and anatomy.head is not None
        self.source, self.basis, self.separate = source, basis, separate
        self.norm: Norm = anatomy.final_norm
        self.eps = self.norm.eps * scale_of(basis) ** 2
        self.old_scales = self.norm.offset + self._read(f"{self.norm.name}.weight")
        self.embedding = self._read(f"{anatomy.embedding}.weight") @ basis.to(torch.float32)
        if separate:
            self.scales = norm_weight(self.norm, basis) + self.norm.offset
            self.head = self._folded_head() @ basis.to(torch.float32)
        else:
            self.scales, self.head = tied_scales(self.old_scales, basis), self.embedding
        if anatomy.encoder_norm is not None and anatomy.logit_form is not None:
            # T5 divides its logits by the root of the hidden size, which is another one now.
            self._rescale(1 / scale_of(basis))

    def _rescale(self, factor: float) -> None:
        if self.separate:
            self.head = self.head * factor
        else:
            self.scales = self.scales * factor

    def fit(self, wide: Stream, narrow: Stream, *, repairs: bool, damping: float | None) -> LayerStatus:
        """Repair what reads the last states of the stream ``narrow [tokens, kept]``, which are those of
        ``wide [tokens, hidden]`` in the original; the error is that of what the head reads. ``damping`` as in
        :class:`.residual_repair.NarrowBlock`.

        All tokens are in memory at once, so that each half is one product whose order of sums is fixed.
        """
        end = len(self.source.anatomy.blocks)

        def before(rows: Tensor) -> Tensor:
            wide = normalized(rows, self.norm.eps)
            return wide if self.separate else wide * self.old_scales

        def after(rows: Tensor) -> Tensor:
            now = normalized(rows, self.eps)
            return now * self.scales if self.separate else now

        wanted, now = _stacked(wide, end, before), _stacked(narrow, end, after)
        halves = NormOutputs(self.basis), NormOutputs(self.basis)
        for number, half in enumerate(halves):
            half.add(wanted[number::2], now[number::2])
        both, other = halves
        if repairs and self.separate:
            fitted = self._fitted_head(halves, damping)
        else:
            both.include(other)
            fitted = self._fitted_scales(both, damping) if repairs else None
        status, detail = UNREPAIRED if fitted is None and repairs else ("ok", "")
        label = f"width {len(self.basis)} → {self.basis.shape[1]}"
        unfitted = both.start if self.separate else both.start * self.scales
        error = both.error(unfitted if fitted is None else fitted)
        return LayerStatus(self.norm.name, "width", label, status, error, "output", detail)

    def _fitted_head(self, halves: tuple[NormOutputs, NormOutputs], damping: float | None) -> Tensor | None:
        found = fit_norm_outputs(halves, damping)
        if found is not None:
            self.head = self._folded_head() @ found
        return found

    def _fitted_scales(self, reading: NormOutputs, damping: float | None) -> Tensor | None:
        table = self._read(f"{self.source.anatomy.embedding}.weight")
        table = table - table.mean(0)
        used = DAMPINGS[0] if damping is None else damping
        scales = fitted_scales(reading, self.scales, table.T @ table, self.basis, used)
        if scales is None:
            return None
        self.scales = scales
        return reading.start * scales

    def tensors(self) -> tuple[Tensors, Tensors]:
        """Parameters outside the blocks that changed, and those that the model did not have."""
        anatomy, head = self.source.anatomy, f"{self.source.anatomy.head}.weight"
        changed = {
            f"{anatomy.embedding}.weight": self.embedding,
            f"{self.norm.name}.weight": self.scales - self.norm.offset,
        }
        if anatomy.encoder_norm is not None:
            weight = norm_weight(anatomy.encoder_norm, self.basis)
            changed[f"{anatomy.encoder_norm.name}.weight"] = weight
        if not self.separate:
            return changed, {}
        if anatomy.tied:
            stored = self.source.stored_type(f"{anatomy.embedding}.weight")
            return changed, {head: self.head.to(stored)}
        return changed | {head: self.head}, {}

    def config(self) -> dict[str, Any]:
        """Entries of ``config.json`` that change. The epsilon is that of all norms of the model."""
        anatomy = self.source.anatomy
        changes = with_hidden_size(self.source.reader.config, anatomy, self.basis.shape[1])
        changes["rms_norm_eps" if anatomy.encoder_norm is None else "layer_norm_epsilon"] = self.eps
        return changes | ({"tie_word_embeddings": False} if anatomy.tied and self.separate else {})

    def _folded_head(self) -> Tensor:
        """The head ``[vocab, hidden]`` with the final norm's scales in it."""
        anatomy = self.source.anatomy
        return self._read(f"{anatomy.embedding if anatomy.tied else anatomy.head}.weight") * self.old_scales

    def _read(self, name: str) -> Tensor:
        return self.source.tensor(name).to(self.basis.device)


def _stacked(stream: Stream, block: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The states of all real tokens at ``block`` ``[tokens, channels]``, after ``change``, in one copy."""
    first, tokens = next(stream.rows(block)), sum(map(len, stream.rows(block)))
    table, start = first.new_empty(tokens, first.shape[1]), 0
    for rows in stream.rows(block):
        table[start : start + len(rows)] = change(rows)
        start += len(rows)
    return table
