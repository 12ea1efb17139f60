"""``Block``: one transformer block on the device, the unit of streaming, memory, resume and progress.

It carries what passes read (weights, statistics of the inputs) and what they leave (masks, quantized weights,
a status per layer). A mask travels with the block: later passes keep pruned weights at exactly zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import EdgepressError
from .anatomy import BlockAnatomy, Linear
from .qtensor import QTensor

FALLBACK = "fallback"


@dataclass
class LayerStatus:
    """How one layer fared in one pass.

    ``status`` is ``ok``, ``damped`` or ``fallback-…``; ``error`` is the relative squared output error on the
    calibration activations where a Gram was collected, else of the weights; ``detail`` says what happened.
    """

    name: str
    step: str
    scheme: str
    status: str
    error: float
    error_kind: str
    detail: str = ""

    @property
    def degraded(self) -> bool:
        """Whether the pass could not do what was asked of it."""
        return self.status.startswith(FALLBACK)

    def as_dict(self) -> dict[str, Any]:
        """JSON for the manifest."""
        return {key: value for key, value in self.__dict__.items() if value != ""}


@dataclass
class Block:
    """The state of one block during the sweep. Keys of all mappings are full linear names."""

    anatomy: BlockAnatomy
    module: nn.Module
    linears: Mapping[str, nn.Linear]
    statistics: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)
    quantized: dict[str, QTensor] = field(default_factory=dict)
    statuses: list[LayerStatus] = field(default_factory=list)

    def weight(self, linear: Linear) -> Tensor:
        """The current weight ``[out, in]`` float32 of a linear."""
        return self.linears[linear.name].weight.detach().to(torch.float32)

    def statistic(self, linear: Linear, name: str) -> Tensor:
        """The statistic called ``name`` of the inputs of ``linear``."""
        return self.statistics[linear.name][name]

    def set_weight(self, linear: Linear, weight: Tensor) -> None:
        """Replace a dense weight."""
        module = self.linears[linear.name]
        module.weight = nn.Parameter(weight.to(module.weight.dtype), requires_grad=False)

    def set_quantized(self, linear: Linear, tensor: QTensor) -> None:
        """Store a quantized weight; the block computes with what its codes stand for from now on."""
        self.quantized[linear.name] = tensor
        self.set_weight(linear, tensor.dequantize())

    def check(self, step: str) -> None:
        """The checks made after every pass: shapes, finite values, masks respected.

        Raises:
            EdgepressError: a pass broke one of them; names pass and layer (a bug, not bad input).
        """
        for linear in self.anatomy.linears():
            weight = self.linears[linear.name].weight
            if tuple(weight.shape) != (linear.out_features, linear.in_features):
                raise EdgepressError(
                    f"pass {step} changed the shape of {linear.name} to {tuple(weight.shape)}"
                )
            if not bool(torch.isfinite(weight).all()):
                raise EdgepressError(f"pass {step} left a non-finite weight in {linear.name}")
            mask = self.masks.get(linear.name)
            if mask is not None and bool((weight[~mask] != 0).any()):
                raise EdgepressError(f"pass {step} revived pruned weights of {linear.name}")


def output_error(change: Tensor, weight: Tensor, gram: Tensor) -> float:
    """``E‖ΔW x‖² / E‖W x‖²`` for ``change``, ``weight [out, in]``, ``gram [in, in]``; 0 when dead."""
    damage = float(((change @ gram) * change).sum())
    power = float(((weight @ gram) * weight).sum())
    return max(damage, 0.0) / power if power > 0 else 0.0


def weight_error(change: Tensor, weight: Tensor) -> float:
    """``‖ΔW‖² / ‖W‖²``; 0 for an all-zero layer."""
    power = float(weight.square().sum())
    return float(change.square().sum()) / power if power > 0 else 0.0
