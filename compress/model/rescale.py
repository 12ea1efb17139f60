"""Function-preserving rescale: other weights, the same model.

Wherever a channel passes from one linear (or norm) to the next with nothing but linear maps between, the
first may be multiplied by a factor and the second divided by it (the equivalence that SmoothQuant migrates
difficulty with: Xiao et al., 2022, arXiv 2211.10438). Random factors in [0.8, 1.25] take weights that were
dequantized off their old grid, where a quantizer of the same kind would reproduce them without error and
every measurement would be a fiction.
"""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
from torch import Tensor

from ...errors import InputError
from .anatomy import Anatomy
from .block_anatomy import Attention, BlockAnatomy, Linear, Mlp, Norm

LOW, HIGH = 0.8, 1.25


def rescale(tensors: MutableMapping[str, Tensor], anatomy: Anatomy, *, seed: int) -> None:
    """Multiply and divide channels of ``tensors`` in place; the model computes the same function.

    Per block: input norm → q k v, v → o, second norm → gate up, up → down. Query heads that share a
    key/value head share its factors. The embedding, the head and the final norm are left alone.

    Args:
        tensors: floating-point tensors by full name (``model.layers.0.mlp.up_proj.weight``), all of every
        block.
    """
    generator = torch.Generator().manual_seed(seed)
    for block in anatomy.blocks:
        packed = block.attention.qkv is not None or block.mlp.gate_up is not None
        if block.order != "pre" or block.mlp.gate is None or packed:
            raise InputError(
                f"a {anatomy.model_type} model cannot be rescaled: it needs pre-norm blocks, a gated MLP and "
                "linears of their own"
            )
        _rescale_norms(tensors, block, anatomy.hidden_size, generator)
        _rescale_values(tensors, block.attention, generator)
        _rescale_mlp(tensors, block.mlp, generator)


def _factors(count: int, generator: torch.Generator) -> Tensor:
    return torch.empty(count).uniform_(LOW, HIGH, generator=generator)


def _rescale_norms(
    tensors: MutableMapping[str, Tensor], block: BlockAnatomy, hidden: int, generator: torch.Generator
) -> None:
    after_first, _, after_second, _ = block.inputs()
    for norm, readers in ((block.norm1, after_first), (block.norm2, after_second)):
        factors = _factors(hidden, generator)
        _multiply_rows(tensors, norm, factors)
        for reader in readers:
            _divide_columns(tensors, reader, factors)


def _rescale_values(
    tensors: MutableMapping[str, Tensor], attention: Attention, generator: torch.Generator
) -> None:
    if attention.inner_norm is not None:
        _rescale_inner(tensors, attention.inner_norm, attention.o, generator)
        return
    factors = _factors(attention.v.out_features, generator)
    _multiply_rows(tensors, attention.v, factors)
    per_head = factors.view(attention.kv_heads, attention.head_dim)
    shared = per_head.repeat_interleave(attention.heads // attention.kv_heads, dim=0)
    _divide_columns(tensors, attention.o, shared.flatten())


def _rescale_mlp(tensors: MutableMapping[str, Tensor], mlp: Mlp, generator: torch.Generator) -> None:
    if mlp.inner_norm is not None:
        _rescale_inner(tensors, mlp.inner_norm, mlp.down, generator)
        return
    factors = _factors(mlp.up.out_features, generator)
    _multiply_rows(tensors, mlp.up, factors)
    _divide_columns(tensors, mlp.down, factors)


def _rescale_inner(
    tensors: MutableMapping[str, Tensor], norm: Norm, reader: Linear, generator: torch.Generator
) -> None:
    factors = _factors(reader.in_features, generator)
    _multiply_rows(tensors, norm, factors)
    _divide_columns(tensors, reader, factors)


def _multiply_rows(tensors: MutableMapping[str, Tensor], part: Linear | Norm, factors: Tensor) -> None:
    weight = tensors[f"{part.name}.weight"]
    offset = part.offset if isinstance(part, Norm) else 0.0
    weight.add_(offset).mul_(factors.view(-1, *[1] * (weight.ndim - 1))).sub_(offset)
    if f"{part.name}.bias" in tensors:
        tensors[f"{part.name}.bias"].mul_(factors)


def _divide_columns(tensors: MutableMapping[str, Tensor], part: Linear, factors: Tensor) -> None:
    tensors[f"{part.name}.weight"].div_(factors)
