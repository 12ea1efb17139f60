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

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ...model.block_anatomy import Experts
from ...model.separate_experts import SeparateExperts
from ...model.skeleton import Skeleton
from ...pipeline.forward import Batch, run_block

ExpertCriterion = Literal["routed", "frequency"]

_SAMPLE = 256


# What an expert gives for rows ``[tokens, hidden]``.
Output = Callable[[int, Tensor], Tensor]


class ExpertUse:
    """Sums over tokens, for each of ``count`` experts: how often it is chosen, and its routed outputs."""

    def __init__(self, count: int, output: Output) -> None:
        self.output = output
        self.chosen, self.routed = torch.zeros(count), torch.zeros(count)
        self.sample: Tensor | None = None

    def add(self, rows: Tensor, scores: Tensor, indices: Tensor) -> None:
        """``rows [tokens, hidden]`` that the router sent to ``indices [tokens, chosen]`` with the weights
        ``scores``.
        """
        for expert in range(len(self.chosen)):
            tokens, places = (indices == expert).nonzero(as_tuple=True)
            norms = self.output(expert, rows[tokens]).norm(dim=-1)
            self.chosen[expert] += len(tokens)
            self.routed[expert] += float((scores[tokens, places] * norms).sum())
        sample = rows[:0] if self.sample is None else self.sample
        room = min(_SAMPLE - len(sample), len(rows))
        if room > 0:
            spread = torch.arange(room, device=rows.device) * len(rows) // room
            self.sample = torch.cat([sample, rows[spread]])

    def saliency(self, criterion: ExpertCriterion) -> Tensor:
        """How much each expert matters ``[count]``; those that are never chosen do not."""
        return self.chosen if criterion == "frequency" else self.routed / self.chosen.clamp_min(1)

    def kept(self, criterion: ExpertCriterion, count: int, groups: int = 1) -> list[int]:
        """The experts that stay, ascending; of equals the first. Of so many ``groups``, runs of equally many
        experts, each keeps as many.
        """
        saliency = self.saliency(criterion).view(groups, -1)
        order = saliency.sort(dim=1, descending=True, stable=True).indices[:, : count // groups]
        first = torch.arange(groups).unsqueeze(1) * saliency.shape[1]
        return sorted((order + first).flatten().tolist())

    def merging(self, kept: Sequence[int]) -> list[dict[int, float]]:
        """For each of the experts ``kept`` what it becomes a mean of: itself and those that are most like it,
        by frequency. The outputs of those that stay are held, and of one at a time that goes.
        """
        assert self.sample is not None
        outputs = {expert: self.output(expert, self.sample).flatten() for expert in kept}
        groups: dict[int, list[int]] = {expert: [expert] for expert in kept}
        for expert in sorted(set(range(len(self.chosen))) - set(kept)):
            mine = self.output(expert, self.sample).flatten()
            likeness = [float(nn.functional.cosine_similarity(mine, outputs[one], 0)) for one in kept]
            groups[kept[likeness.index(max(likeness))]].append(expert)
        return [self._fractions(groups[expert]) for expert in kept]

    def _fractions(self, group: Sequence[int]) -> dict[int, float]:
        part = self.chosen[list(group)]
        part = part / part.sum() if float(part.sum()) else torch.full_like(part, 1 / len(group))
        part[0] += 1 - part.sum()  # so that an expert by itself stays what it is
        return dict(zip(group, part.tolist(), strict=True))


def used(skeleton: Skeleton, experts: Experts, module: nn.Module, batches: Iterable[Batch]) -> ExpertUse:
    """The use of a block's experts by ``batches``."""
    held = _held(skeleton, experts)
    use = ExpertUse(held.count, held.output)
    for batch in batches:
        real = None if batch.mask is None else batch.mask.flatten()

        def look(_: nn.Module, inputs: tuple[Tensor, ...], real: Tensor | None = real) -> None:
            rows, indices, scores = inputs
            if real is not None:
                rows, scores, indices = rows[real], scores[real], indices[real]
            use.add(rows, scores, indices)

        handle = held.register_forward_pre_hook(look)
        try:
            run_block(module, batch)
        finally:
            handle.remove()
    return use


def _held(skeleton: Skeleton, experts: Experts) -> SeparateExperts:
    held = skeleton.submodule(experts.prefix)
    assert isinstance(held, SeparateExperts)
    return held


@torch.no_grad()
def merge_experts(skeleton: Skeleton, experts: Experts, means: Mapping[int, Mapping[int, float]]) -> None:
    """Make each expert that ``means`` names what it says: a sum of experts, times a fraction each."""
    held = _held(skeleton, experts)
    for expert, fractions in means.items():
        for place, linear in enumerate(held.linears(expert)):
            for name, parameter in list(linear.named_parameters()):
                parts = (f * held.linears(one)[place].get_parameter(name) for one, f in fractions.items())
                skeleton.assign(linear, name, sum(parts, torch.zeros_like(parameter)))


def keep_experts(skeleton: Skeleton, experts: Experts, kept: Sequence[int]) -> None:
    """Leave the experts ``kept`` alone in transformers' modules, and their rows of the router's vectors."""
    _held(skeleton, experts).keep(kept)
    router = skeleton.submodule(experts.router)
    for name, parameter in list(router.named_parameters()):
        skeleton.assign(router, name, parameter.detach()[list(kept)])
    for name, buffer in list(router.named_buffers()):
        setattr(router, name, buffer[list(kept)])
    router.num_experts = len(kept)  # type: ignore[assignment]


def with_experts(tensors: Mapping[str, Tensor], experts: Experts, kept: Sequence[int]) -> dict[str, Tensor]:
    """The stored ``tensors`` of a block with the experts ``kept`` alone, numbered again."""
    places, start = {str(expert): place for place, expert in enumerate(kept)}, f"{experts.prefix}."
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        number, _, part = name.removeprefix(start).partition(".")
        if not name.startswith(start):
            rows = name.startswith(f"{experts.router}.")
            found[name] = tensor[list(kept)] if rows else tensor
        elif number in places:
            found[f"{start}{places[number]}.{part}"] = tensor
    return found


def renumbered(name: str, experts: Experts, kept: Sequence[int]) -> str | None:
    """What the linear ``name`` of a block is called afterwards; None where it is of an expert that goes."""
    return next(iter(with_experts({name: torch.empty(0)}, experts, kept)), None)
