"""Sharding: a model whose blocks are spread over processes, so that none holds more than a part of each.

Fully sharded data parallelism (Zhao et al. 2023, arXiv 2304.11277; ZeRO, Rajbhandari et al. 2020, arXiv
1910.02054) by torch's ``fully_shard`` (FSDP2). Of every tensor of a block each process keeps some rows. A
block is gathered when it runs, and again for the way back; its gradient is summed, and only the own rows of
it are kept. Optimizer, averages and snapshots work on the rows alone. What is outside the blocks stays whole
in every process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...model.anatomy import Anatomy, module_name
from ...model.torch_model import load_model
from ...model.weights import WeightSource
from ...pipeline.processes import Processes


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
