"""``Block``: one transformer block on the device, the unit of streaming, memory, resume and progress.

It carries what passes read (weights, statistics of the inputs, the batches themselves) and what they leave
(masks, quantized weights, a status per layer). A mask travels with the block: later passes keep pruned
weights at exactly zero. What is set is rounded at once to the precision it will be stored in, so that all
that follows sees the model as it will be read back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import EdgepressError
from ...terminal.progress import Tick, unseen
from ..model.anatomy import module_name, replaced
from ..model.block_anatomy import Attention, BlockAnatomy, Linear
from ..model.checkpoint.tensor_check import all_finite
from ..model.kv_scheme import KVScales, tap
from ..model.skeleton import Skeleton
from ..numbers.fake_quant import rounding_of, unwrap, wrap
from ..numbers.qtensor import QTensor, row_tiles
from .advance import Work
from .forward import Batch
from .statistics import mean_square_of_outputs

FALLBACK = "fallback"
_PRODUCT_WEIGHTS = 1 << 21  # of a matrix that is multiplied at once: enough to keep the product busy

Statistics = Mapping[str, Mapping[str, Tensor]]


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
    place: int = 0  # of its step: in a sweep at first, then in the recipe

    @property
    def degraded(self) -> bool:
        """Whether the pass could not do what was asked of it."""
        return self.status.startswith(FALLBACK)

    def as_dict(self) -> dict[str, Any]:
        """JSON for the manifest."""
        return {key: value for key, value in self.__dict__.items() if value != "" and key != "place"}


def _no_batches() -> Iterator[Batch]:
    return iter(())


@dataclass
class Block:
    """The state of one block during the sweep. Keys of all mappings are full stored names.

    Attributes:
        module: transformers' own block; ``linears`` its linears.
        statistics: of the inputs of linears, by linear and statistic name.
        tokens: of a mixture, how many the statistics of each linear were collected with, in this step.
        batches: the calibration batches as inputs of the block, in the partly compressed model.
        original, references, targets: where a pass compares, the block as it was, and the original model's
            batches before it and behind it.
        stored_types: precision on disk of the block's parameters; float32 for those not named.
        masks: bool ``[out, in]``, True keeps. quantized: the layers that are quantized by now.
        changed: parameters that passes replaced.
        cached: the attentions whose keys and values are cached; kv: by their module, how those are rounded.
        renamed: of the model, what stored names begin with and modules in its place.
        prepared: what passes found of it ahead of the sweep (:meth:`.algorithm.BlockPass.prepare`).
        tick: receives the multiply-adds that are done.
    """

    anatomy: BlockAnatomy
    module: nn.Module
    linears: Mapping[str, nn.Linear]
    statistics: Statistics = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    batches: Callable[[], Iterator[Batch]] = _no_batches
    original: nn.Module | None = None
    references: Callable[[], Iterator[Batch]] = _no_batches
    targets: Callable[[], Iterator[Batch]] = _no_batches
    collector: Callable[[Block, Mapping[str, tuple[str, ...]]], Statistics] | None = None
    stored_types: Mapping[str, torch.dtype] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)
    quantized: dict[str, QTensor] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    cached: tuple[Attention, ...] = ()
    kv: dict[str, KVScales] = field(default_factory=dict)
    renamed: tuple[tuple[str, str], ...] = ()
    prepared: Mapping[str, Tensor] = field(default_factory=dict)
    statuses: list[LayerStatus] = field(default_factory=list)
    tick: Tick = unseen

    def tick_rounded(self, roundings: float) -> None:
        """Say that so many weights have been rounded, times the grids they were rounded to."""
        self.tick(Work(roundings=roundings).multiplications)

    def weight(self, linear: Linear) -> Tensor:
        """The current weight ``[out, in]`` float32 of a linear."""
        return self.linears[linear.name].weight.detach().to(torch.float32)

    def statistic(self, linear: Linear, name: str) -> Tensor:
        """The statistic called ``name`` of the inputs of ``linear``."""
        return self.statistics[linear.name][name]

    def collect(self, layers: Sequence[Linear], needs: tuple[str, ...]) -> Statistics:
        """Statistics of the inputs of ``layers`` as the block is now: a run of the batches through it."""
        if self.collector is None:
            raise EdgepressError(f"{self.anatomy.prefix} has no calibration batches to collect from")
        return self.collector(self, {linear.name: needs for linear in layers})

    def parameter(self, name: str) -> Tensor:
        """The parameter with the stored name ``name``, such as ``….input_layernorm.weight``, float32."""
        linear = self.linears.get(name.removesuffix(".weight"))
        found = linear.weight if linear is not None else self.module.get_parameter(self.local(name))
        return found.detach().to(torch.float32)

    def set_parameter(self, name: str, value: Tensor) -> Tensor:
        """Replace a parameter; returns what it is after rounding to its stored precision, float32."""
        local = self.local(name)
        owner_name, _, leaf = local.rpartition(".")
        owner = self.module.get_submodule(owner_name)
        before = getattr(owner, leaf)
        rounded = value.detach().to(self.stored_types.get(name, torch.float32)).to(before.dtype)
        setattr(owner, leaf, nn.Parameter(rounded, requires_grad=False))
        self.changed.add(name)
        return rounded.to(torch.float32)

    def set_weight(self, linear: Linear, weight: Tensor) -> None:
        """Replace the weight of a linear by a dense one; what codes it had are dropped."""
        self.quantized.pop(linear.name, None)
        self._assign(linear, weight.to(self.stored_types.get(f"{linear.name}.weight", torch.float32)))
        self.changed.add(f"{linear.name}.weight")

    def set_quantized(self, linear: Linear, tensor: QTensor) -> None:
        """Store a quantized weight; the block computes with what its codes stand for from now on."""
        self.quantized[linear.name] = tensor
        self._assign(linear, tensor.dequantize())

    def quantize(
        self,
        linear: Linear,
        tensor: QTensor,
        step: str,
        status: str = "ok",
        detail: str = "",
        *,
        wanted: Tensor | None = None,
        gram: Tensor | None = None,
        damage: float | None = None,
    ) -> None:
        """Store a quantized weight and how it fared in the pass ``step``.

        The error is against ``wanted [out, in]``, the present weight where it is None: of the outputs under
        ``gram [in, in]``, or of the weights without one. ``damage`` is ``E‖ΔW x‖²`` where it is known.
        """
        kind = "weight" if gram is None else "output"
        weight = self.linears[linear.name].weight.detach()
        error = rounded_into(weight, tensor, wanted, gram, damage, self.tick)
        self.quantized[linear.name] = tensor
        self.statuses.append(LayerStatus(linear.name, step, tensor.scheme.name, status, error, kind, detail))

    def _assign(self, linear: Linear, weight: Tensor) -> None:
        module = self.linears[linear.name]
        module.weight = nn.Parameter(weight.to(module.weight.dtype), requires_grad=False)

    def local(self, name: str) -> str:
        """The path below the block's module of what has the stored ``name``."""
        name, prefix = (replaced(part, self.renamed) for part in (name, self.anatomy.prefix))
        return name.removeprefix(f"{prefix}.")

    @contextmanager
    def simulated(self, skeleton: Skeleton) -> Iterator[None]:
        """The block with the activations of its layers, and its cache, rounded as their schemes say."""
        names = {
            module_name(skeleton.anatomy, name): rounding_of(tensor.scheme, tensor.input_scale)
            for name, tensor in self.quantized.items()
            if tensor.scheme.activations
        }
        for name, rounding in names.items():
            wrap(skeleton.model, name, rounding)
        caches = [tap(skeleton.submodule(module), scales.round) for module, scales in self.kv.items()]
        try:
            yield
        finally:
            for cache in caches:
                cache.remove()
            for name in names:
                unwrap(skeleton.model, name)

    def check(self, step: str) -> None:
        """The checks made after every pass: shapes, finite values, masks respected."""
        for linear in self.anatomy.linears():
            weight = self.linears[linear.name].weight
            if tuple(weight.shape) != (linear.out_features, linear.in_features):
                raise EdgepressError(
                    f"pass {step} changed the shape of {linear.name} to {tuple(weight.shape)}"
                )
            if not all_finite(weight):
                raise EdgepressError(f"pass {step} left a non-finite weight in {linear.name}")
            mask = self.masks.get(linear.name)
            if mask is not None and bool((weight[~mask] != 0).any()):
                raise EdgepressError(f"pass {step} revived pruned weights of {linear.name}")


def rounded_into(
    weight: Tensor,
    tensor: QTensor,
    wanted: Tensor | None = None,
    gram: Tensor | None = None,
    damage: float | None = None,
    tick: Tick = unseen,
) -> float:
    """Make ``weight [out, in]`` what the codes of ``tensor`` stand for, a few rows at a time.

    Returns :func:`output_error` against ``wanted [out, in]``, or without a Gram :func:`weight_error`; against
    what ``weight`` was where ``wanted`` is None. ``damage`` is ``E‖ΔW x‖²`` where it is known.
    """
    found = power = 0.0
    for rows in row_tiles(weight) if gram is None else row_tiles(weight, _PRODUCT_WEIGHTS):
        rounded, before = tensor.dequantize(rows=rows), weight if wanted is None else wanted
        part = before[rows].to(torch.float32)
        if gram is None:
            found += float((rounded - part).square_().sum())
            power += float(part.square().sum())
        else:
            found += 0.0 if damage is not None else mean_square_of_outputs(rounded - part, gram)
            power += mean_square_of_outputs(part, gram)
            tick((1.0 if damage is None else 0.5) * part.numel() * len(gram))
        weight[rows] = rounded
    return max(found if damage is None else damage, 0.0) / power if power > 0 else 0.0


def output_error(change: Tensor, weight: Tensor, gram: Tensor) -> float:
    """``E‖ΔW x‖² / E‖W x‖²`` for ``change``, ``weight [out, in]``, ``gram [in, in]``; 0 when dead."""
    power = mean_square_of_outputs(weight, gram)
    return max(mean_square_of_outputs(change, gram), 0.0) / power if power > 0 else 0.0


def weight_error(change: Tensor, weight: Tensor) -> float:
    """``‖ΔW‖² / ‖W‖²``; 0 for an all-zero layer."""
    power = float(weight.square().sum())
    return float(change.square().sum()) / power if power > 0 else 0.0
