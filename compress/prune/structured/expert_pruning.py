"""How much each expert of a mixture is used, which can go or be merged, and putting others in their place.

- ``routed``: the mean over the tokens that an expert is chosen for of its routing weight times the norm of
  its output (Lasby et al. 2025, "REAP the Experts: Why Pruning Prevails for One-Shot MoE Compression", arXiv
  2510.13999).
- ``frequency``: how many tokens it is chosen for.

An expert that goes may be merged into the one that stays whose outputs on a sample of the tokens are most
like its own, the weights averaged by frequency (after Chen et al. 2024, "Retraining-Free Merging of Sparse
Mixture-of-Experts via Hierarchical Clustering", arXiv 2410.08589, whose router keeps its rows; here those of
experts that were removed leave it, so that the result is a plain model).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...model.block_anatomy import Experts
from ...model.separate_experts import SeparateExperts
from ...model.skeleton import Skeleton
from ...pipeline.forward import Batch

ExpertCriterion = Literal["routed", "frequency"]

_SAMPLE = 256


@dataclass(frozen=True)
class ExpertWeights:
    """All experts of a block: ``gate_up [count, 2 width, hidden]``, ``down [count, hidden, width]``, and the
    router ``[count, hidden]``.
    """

    gate_up: Tensor
    down: Tensor
    router: Tensor

    def output(self, expert: int, rows: Tensor, activation: nn.Module) -> Tensor:
        """The output of an expert for ``rows [tokens, hidden]``."""
        gate, up = nn.functional.linear(rows, self.gate_up[expert]).chunk(2, dim=-1)
        return nn.functional.linear(activation(gate) * up, self.down[expert])


class ExpertUse:
    """Sums over tokens, for each expert: how often it is chosen, and its routed outputs."""

    def __init__(self, weights: ExpertWeights, activation: nn.Module) -> None:
        self.weights, self.activation = weights, activation
        count = len(weights.router)
        self.chosen = torch.zeros(count, device=weights.router.device)
        self.routed = torch.zeros_like(self.chosen)
        self.sample = torch.zeros(0, weights.router.shape[1], device=weights.router.device)

    def add(self, rows: Tensor, scores: Tensor, indices: Tensor) -> None:
        """``rows [tokens, hidden]`` that the router sent to ``indices [tokens, chosen]`` with the weights
        ``scores``.
        """
        for expert in range(len(self.chosen)):
            tokens, places = (indices == expert).nonzero(as_tuple=True)
            norms = self.weights.output(expert, rows[tokens], self.activation).norm(dim=-1)
            self.chosen[expert] += len(tokens)
            self.routed[expert] += (scores[tokens, places] * norms).sum()
        room = _SAMPLE - len(self.sample)
        if room > 0 and len(rows):
            spread = (
                torch.arange(min(room, len(rows)), device=rows.device) * len(rows) // min(room, len(rows))
            )
            self.sample = torch.cat([self.sample, rows[spread]])

    def saliency(self, criterion: ExpertCriterion) -> Tensor:
        """How much each expert matters ``[count]``; those that are never chosen do not."""
        return self.chosen if criterion == "frequency" else self.routed / self.chosen.clamp_min(1)

    def kept(self, criterion: ExpertCriterion, count: int) -> Tensor:
        """The experts that stay, ascending; of equals the first."""
        order = self.saliency(criterion).sort(descending=True, stable=True).indices
        return order[:count].sort().values

    def merged(self, kept: Sequence[int]) -> ExpertWeights:
        """The experts ``kept``, each the average of itself and of those that are most like it."""
        count, alike = len(self.chosen), nn.functional.cosine_similarity
        outputs = [self.weights.output(one, self.sample, self.activation).flatten() for one in range(count)]
        groups: dict[int, list[int]] = {expert: [expert] for expert in kept}
        for expert in sorted(set(range(count)) - set(kept)):
            likeness = [float(alike(outputs[expert], outputs[one], 0)) for one in kept]
            groups[kept[likeness.index(max(likeness))]].append(expert)
        return ExpertWeights(
            torch.stack([self._mean(self.weights.gate_up, groups[expert]) for expert in kept]),
            torch.stack([self._mean(self.weights.down, groups[expert]) for expert in kept]),
            self.weights.router[list(kept)],
        )

    def _mean(self, tensor: Tensor, group: Sequence[int]) -> Tensor:
        part = self.chosen[list(group)]
        part = part / part.sum() if float(part.sum()) else torch.full_like(part, 1 / len(group))
        part[0] += 1 - part.sum()  # so that an expert by itself stays what it is
        return (part.view(-1, 1, 1) * tensor[list(group)]).sum(0)

    def left(self, kept: Sequence[int]) -> ExpertWeights:
        """The experts ``kept`` as they are."""
        chosen = list(kept)
        return ExpertWeights(
            self.weights.gate_up[chosen], self.weights.down[chosen], self.weights.router[chosen]
        )


def used(skeleton: Skeleton, experts: Experts, module: nn.Module, batches: Iterable[Batch]) -> ExpertUse:
    """The use of a block's experts by ``batches``."""
    held, router = _modules(skeleton, experts)
    linears = [[part.get_parameter("weight") for part in held.linears(one)] for one in range(held.count)]
    weights = ExpertWeights(
        torch.stack([torch.cat([gate, up]) for gate, up, _ in linears]),
        torch.stack([down for _, _, down in linears]),
        router.get_parameter("weight").detach(),
    )
    use = ExpertUse(weights, held.act_fn)
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


def _modules(skeleton: Skeleton, experts: Experts) -> tuple[SeparateExperts, nn.Module]:
    held = skeleton.submodule(experts.prefix)
    assert isinstance(held, SeparateExperts)
    return held, skeleton.submodule(experts.router)


def replace_experts(skeleton: Skeleton, experts: Experts, weights: ExpertWeights) -> None:
    """Make transformers' modules those of the experts that are left."""
    held, router = _modules(skeleton, experts)
    held.keep(range(len(weights.router)))
    for index in range(held.count):
        tensors = (*weights.gate_up[index].chunk(2), weights.down[index])
        for linear, tensor in zip(held.linears(index), tensors, strict=True):
            skeleton.assign(linear, "weight", tensor)
    skeleton.assign(router, "weight", weights.router)
    router.num_experts = len(weights.router)  # type: ignore[assignment]


def with_experts(
    tensors: Mapping[str, Tensor], experts: Experts, weights: ExpertWeights
) -> dict[str, Tensor]:
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
