"""How much a unit of a block matters, by one of four measures, and which units stay by it.

- ``magnitude``: the product of the norms of its column of the reader and of the rows that make it (Li et al.
  2017, arXiv 1608.08710); no data.
- ``activation``: the norm of what it adds to the reader's output on the calibration tokens.
- ``taylor``: the squared first-order change of the loss without it, summed over tokens (Molchanov et al.
  2019, arXiv 1906.10771); measured by one backward pass (:mod:`edgepress.compress.measure.removal_loss`).
- ``reconstruction``: the error that is left when the other units make up for it (:mod:`.elimination`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from ...pipeline.block import Block
from ...solve.damped_cholesky import inverted
from .elimination import eliminate, in_rounds, least_of
from .part import Part

Importance = Literal["magnitude", "activation", "taylor", "reconstruction"]

_ROUNDS = 32


def kept_units(
    block: Block,
    part: Part,
    count: int,
    importance: Importance,
    inputs: Mapping[str, Tensor],
    losses: Mapping[str, Tensor],
    damping: float,
) -> Tensor | None:
    """The ``count`` units of ``part`` that stay, ascending; None where the Gram cannot be inverted.

    ``inputs`` are statistics of the reader's inputs, ``losses`` the measured ones of units by reader.
    """
    anatomy = block.anatomy
    reader, size, partitions = part.reader(anatomy), part.unit(anatomy), part.partitions(anatomy)
    weight = block.weight(reader)
    units = reader.in_features // size
    gone = (units - count) // partitions
    if importance == "reconstruction":
        inverse = inverted(inputs["gram"], damping)
        if inverse is None:
            return None
        return eliminate(weight.clone(), inverse, size, partitions, in_rounds(gone, _ROUNDS))[0]
    if importance == "taylor":
        scores = losses[reader.name].to(weight.device)
    elif importance == "activation":
        scores = added_power(weight, inputs["gram"], size)
    else:
        scores = magnitudes(block, part)
    stays = torch.ones(units, dtype=torch.bool, device=weight.device)
    stays[least_of(scores, partitions, gone)] = False
    return stays.nonzero().flatten()


def added_power(weight: Tensor, gram: Tensor, size: int) -> Tensor:
    """``E‖W_S x_S‖²`` of each unit ``[units]``."""
    if size == 1:
        return weight.square().sum(0) * gram.diagonal()
    units = weight.shape[1] // size
    blocks = gram.view(units, size, units, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    parts = weight.T.reshape(units, size, -1)
    return ((blocks @ parts) * parts).sum((1, 2))


def magnitudes(block: Block, part: Part) -> Tensor:
    """The product over the reader and the linears that feed it of the norms of each unit's weights."""
    anatomy = block.anatomy
    reader, size = part.reader(anatomy), part.unit(anatomy)
    total = block.weight(reader).square().sum(0).view(-1, size).sum(1).sqrt()
    for rows in part.makers(block):
        total = total * rows.square().sum(1).view(len(total), -1).sum(1).sqrt()
    return total
