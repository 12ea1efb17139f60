"""The experts of a block in transformers' modules and in a checkpoint: measuring their use, putting others in
their place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...model.block_anatomy import Experts
from ...model.skeleton import Skeleton
from ...pipeline.forward import Batch
from .expert_use import Use, Weights


def used(skeleton: Skeleton, experts: Experts, module: nn.Module, batches: Iterable[Batch]) -> Use:
    """The use of a block's experts by ``batches``."""
    held, router = _modules(skeleton, experts)
    weights = Weights(
        held.get_parameter("gate_up_proj").detach(),
        held.get_parameter("down_proj").detach(),
        router.get_parameter("weight").detach(),
    )
    use = Use(weights, held.act_fn)  # type: ignore[arg-type]
    for batch in batches:
        real = None if batch.mask is None else batch.mask.flatten()

        def look(_: nn.Module, inputs: tuple[Tensor, ...], output: Any, real: Tensor | None = real) -> None:
            rows, (_, scores, indices) = inputs[0].flatten(0, -2), output
            if real is not None:
                rows, scores, indices = rows[real], scores[real], indices[real]
            use.add(rows, scores, indices)

        handle = router.register_forward_hook(look)
        with torch.no_grad():
            module(batch.hidden, **batch.arguments)
        handle.remove()
    return use


def _modules(skeleton: Skeleton, experts: Experts) -> tuple[nn.Module, nn.Module]:
    return skeleton.submodule(f"{experts.built}.experts"), skeleton.submodule(f"{experts.built}.gate")


def replace_experts(skeleton: Skeleton, experts: Experts, weights: Weights) -> None:
    """Make transformers' modules those of the experts that are left."""
    held, router = _modules(skeleton, experts)
    skeleton.assign(held, "gate_up_proj", weights.gate_up)
    skeleton.assign(held, "down_proj", weights.down)
    skeleton.assign(router, "weight", weights.router)
    held.num_experts = router.num_experts = len(weights.router)  # type: ignore[assignment]


def with_experts(tensors: Mapping[str, Tensor], experts: Experts, weights: Weights) -> dict[str, Tensor]:
    """The stored ``tensors`` of a block with the experts ``weights`` in the place of its own."""
    left = {name: value for name, value in tensors.items() if not name.startswith(f"{experts.prefix}.")}
    router = f"{experts.router}.weight"
    left[router] = weights.router.to(tensors[router].dtype)
    width = weights.down.shape[2]
    for index in range(len(weights.router)):
        gate, up, down = experts.stored(index)
        kind = tensors[gate].dtype
        left[gate], left[up] = (part.to(kind) for part in torch.split(weights.gate_up[index], width))
        left[down] = weights.down[index].to(kind)
    return left
