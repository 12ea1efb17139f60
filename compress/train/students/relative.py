"""``Relative``: a parameter learned as a change in units of its own size, and rounded as it is stored.

One learning rate then suits scales of 1e-3 and norms of 10 alike, and what the model computes with in
training is, to the bit, what will be read back from disk.

``LowRank`` is a weight that learns as the product of two thin matrices, and is one matrix afterwards: LoRA,
Hu et al. 2021, arXiv 2106.09685. The optimizer holds ``rank · (out + in)`` numbers in the place of ``out ·
in``. The weight is merged in every forward pass: masked, and rounded as it is stored.

Sharding: a model whose blocks are spread over processes, so that none holds more than a part of each.

Fully sharded data parallelism (Zhao et al. 2023, arXiv 2304.11277; ZeRO, Rajbhandari et al. 2020, arXiv
1910.02054) by torch's ``fully_shard`` (FSDP2). Of every tensor of a block each process keeps some rows. A
block is gathered when it runs, and again for the way back; its gradient is summed, and only the own rows of
it are kept. Optimizer, averages and snapshots work on the rows alone. What is outside the blocks stays whole
in every process.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...model.anatomy import Anatomy, module_name
from ...model.torch_model import load_model
from ...model.weights import WeightSource
from ...numbers.fake_quant import straight_through
from ...pipeline.processes import Processes

Rounding = Callable[[Tensor], Tensor]


class Relative(nn.Module):
    """``rounded(start + unit · change)``; ``unit`` broadcasts against ``start``, whose magnitudes it is where
    it is None. Where ``mask`` is False the value is zero and nothing is learned. Keeps ``start`` itself.
    """

    start: Tensor
    own_unit: Tensor | None
    mask: Tensor | None

    def __init__(
        self, start: Tensor, unit: Tensor | None, rounded: Rounding, mask: Tensor | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("start", start.detach())
        self.register_buffer("own_unit", None if unit is None else unit.detach())
        self.register_buffer("mask", mask)
        self.rounded = rounded

    @property
    def unit(self) -> Tensor:
        """What a change of one is."""
        return self.start.abs() if self.own_unit is None else self.own_unit

    def forward(self, change: Tensor) -> Tensor:
        value = torch.addcmul(self.start, self.unit, change)
        if self.mask is not None:
            value = torch.where(self.mask, value, 0.0)
        return straight_through(value, self.rounded(value.detach()))

    def right_inverse(self, value: Tensor) -> Tensor:
        """The parameter begins as no change at all."""
        return torch.zeros_like(value)


@dataclass(frozen=True)
class Learned:
    """A parameter in training: ``name`` as stored, and where it is in the student; ``factors`` learn in
    its place, by their names in the module, where there are any.
    """

    name: str
    module: nn.Module
    attribute: str
    factors: tuple[str, ...] = ()

    @property
    def change(self) -> nn.Parameter:
        """What the optimizer moves."""
        return self.module.get_parameter(f"parametrizations.{self.attribute}.original")

    @property
    def changes(self) -> tuple[nn.Parameter, ...]:
        """All that the optimizer moves."""
        return tuple(map(self.module.get_parameter, self.factors)) or (self.change,)

    def decay(self, share: float) -> None:
        """Take so much of the value away; of one that learns by factors, of what it changed."""
        with torch.no_grad():
            if self.factors:
                own_rows(self.changes[0]).mul_(1 - share)
            else:
                relative = self.module.get_submodule(f"parametrizations.{self.attribute}.0")
                assert isinstance(relative, Relative)
                change, start, unit = map(own_rows, (self.change, relative.start, relative.unit))
                change.sub_(share * (change + start / unit))

    @property
    def value(self) -> Tensor:
        """The parameter as it will be stored, float32."""
        return getattr(self.module, self.attribute).detach()  # type: ignore[no-any-return]


def learn(
    name: str,
    module: nn.Module,
    attribute: str,
    unit: Tensor | None,
    rounded: Rounding,
    mask: Tensor | None = None,
) -> Learned:
    """Make ``module.attribute`` a parameter in training; for ``unit`` see :class:`Relative`."""
    start = getattr(module, attribute).detach()
    relative = Relative(start, unit, rounded, mask)
    parametrize.register_parametrization(module, attribute, relative, unsafe=True)
    learned = Learned(name, module, attribute)
    learned.change.requires_grad_(True)
    return learned


class LowRank(nn.Module):
    """``rounded(start + unit · up · down)`` with ``up [out, rank]``, zero at first, and ``down [rank, in]``.
    Where ``mask`` is False the value is zero.
    """

    unit: Tensor
    mask: Tensor | None

    def __init__(
        self, start: Tensor, unit: Tensor, rounded: Rounding, rank: int, seed: int, mask: Tensor | None
    ) -> None:
        super().__init__()
        out_features, in_features = start.shape
        generator = torch.Generator().manual_seed(seed)
        down = torch.randn(rank, in_features, generator=generator) * rank**-0.5
        self.down = nn.Parameter(down.to(start.device))
        self.up = nn.Parameter(torch.zeros(out_features, rank, device=start.device))
        self.register_buffer("unit", unit.detach())
        self.register_buffer("mask", mask)
        self.rounded = rounded

    def forward(self, start: Tensor) -> Tensor:
        value = torch.addcmul(start, self.unit, self.up @ self.down)
        if self.mask is not None:
            value = torch.where(self.mask, value, 0.0)
        return straight_through(value, self.rounded(value.detach()))


def learn_low_rank(
    name: str,
    module: nn.Module,
    unit: Tensor,
    rounded: Rounding,
    rank: int,
    seed: int,
    mask: Tensor | None = None,
) -> Learned:
    """Let the weight of the linear ``module`` learn as a product of rank at most ``rank``."""
    start = module.get_parameter("weight").detach()
    rank = min(rank, *start.shape)
    low_rank = LowRank(start, unit, rounded, rank, seed, mask)
    parametrize.register_parametrization(module, "weight", low_rank, unsafe=True)
    place = "parametrizations.weight.0"
    return Learned(name, module, "weight", (f"{place}.up", f"{place}.down"))


def block_modules(model: nn.Module, anatomy: Anatomy) -> nn.ModuleList:
    """The blocks of ``model`` in the order of its ``anatomy``, whatever lists hold them in the model."""
    return nn.ModuleList(model.get_submodule(module_name(anatomy, block.prefix)) for block in anatomy.blocks)


def spread(model: nn.Module, blocks: nn.ModuleList, device: torch.device, processes: Processes) -> None:
    """Keep of each of ``blocks`` this process's rows, and move what is kept to ``device``.

    Buffers are spread as parameters are: a model in training has weights, codes and masks there.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    inside = {parameter for block in blocks for parameter in _with_buffers(block)}
    outside = {parameter for parameter in model.parameters() if parameter not in inside}
    for tensor in (*outside, *model.buffers()):
        tensor.data = tensor.data.to(device)
    base: Any = model.base_model
    options: Any = {
        "mesh": init_device_mesh(device.type, (processes.count,)),
        "reshard_after_forward": processes.reshards,
    }
    for module in (*blocks, base):
        sharded: Any = fully_shard(module, **options, ignored_params=outside)
        sharded.set_force_sum_reduction_for_comms(True)  # and not their mean, which gloo has not
        sharded.set_gradient_divide_factor(1.0)


def _with_buffers(block: nn.Module) -> list[nn.Parameter]:
    """The parameters of ``block``, its buffers among them from now on; numbers that stand alone stay."""
    for module in block.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.ndim:
                delattr(module, name)
                module.register_parameter(name, nn.Parameter(buffer, requires_grad=False))
    return list(block.parameters())


def load_spread(path: Path, device: torch.device, processes: Processes) -> nn.Module:
    """The model at ``path``, whole or, where ``processes`` are sharded, spread over them."""
    if not processes.sharded:
        return load_model(path, device=device)
    model, anatomy = load_model(path), WeightSource.open(path).anatomy
    spread(model.requires_grad_(False), block_modules(model, anatomy), device, processes)
    return model


@contextmanager
def whole(block: nn.Module) -> Iterator[None]:
    """A block that may be spread is gathered, in all processes, for as long as the context lasts."""
    sharded: Any = block if hasattr(block, "unshard") else None
    if sharded is not None:
        sharded.unshard()
    try:
        yield
    finally:
        if sharded is not None:
            sharded.reshard()


def own_rows(tensor: Tensor) -> Tensor:
    """The rows of ``tensor`` that this process has, in the same memory; all of one that is not spread."""
    rows: Any = tensor.detach()
    return rows.to_local() if is_spread(tensor) else tensor


def is_spread(tensor: Tensor) -> bool:
    """Whether other processes have rows of ``tensor`` too."""
    return hasattr(tensor, "to_local")
