"""``SeparateExperts``: the experts of a block as linears of their own, in the place of transformers' module,
in which all of them are two tensors.

So passes, statistics and writers see the layers that a checkpoint stores. The sums are those of transformers'
plain loop over the experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..numbers.fake_quant import TokenQuantLinear
from .block_anatomy import Experts, Linear, Mlp

if TYPE_CHECKING:
    from .block_anatomy import BlockAnatomy


class RoutedLinear(nn.Linear):
    """A linear of an expert, whose input rows are those of some tokens of a batch alone.

    Attributes:
        tokens: one tensor, of the places in the batch that the rows of the last input came from; the linears
            of an expert share the list.
    """

    def __init__(self, linear: Linear, tokens: list[Tensor]) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias, device="meta")
        self.tokens = tokens


class SeparateExperts(nn.Module):
    """The experts by index, each with its ``parts``, gate, up and down or both as one and down, under their
    stored names. ``form`` is the first of them; ``chosen`` the experts ``[tokens, chosen]`` of the last
    batch, and ``forced`` those that tokens go to whatever the router says, if not None.
    """

    chosen: Tensor | None = None
    forced: Tensor | None = None

    def __init__(self, parts: tuple[str, ...], mlps: Sequence[Mlp], activation: nn.Module) -> None:
        super().__init__()
        self.parts, self.act_fn, self.count, self.form = parts, activation, len(mlps), mlps[0]
        for index, mlp in enumerate(mlps):
            tokens: list[Tensor] = []
            mine = (*mlp.projections, mlp.down)
            made = {part: RoutedLinear(one, tokens) for part, one in zip(parts, mine, strict=True)}
            self.add_module(str(index), nn.ModuleDict(made))
        self.requires_grad_(False)

    def linears(self, expert: int) -> tuple[nn.Module, ...]:
        """The parts of ``expert``."""
        found = self.get_submodule(str(expert))
        return tuple(found.get_submodule(part) for part in self.parts)

    def output(self, expert: int, rows: Tensor) -> Tensor:
        """What ``expert`` makes of ``rows [tokens, hidden]``."""
        *first, down = self.linears(expert)
        if len(first) == 1:
            both = first[0](rows)
            gate, up = both[..., ::2], both[..., 1::2]
        else:
            gate, up = (part(rows) for part in first)
        limit = self.form.limit
        if limit is not None:
            gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
        return down(self.act_fn(gate) * (up + self.form.up_offset))  # type: ignore[no-any-return]

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """``[tokens, hidden]`` of ``hidden_states [tokens, hidden]``, which go to the experts ``top_k_index
        [tokens, chosen]`` with the factors ``top_k_weights``.
        """
        top_k_index = top_k_index if self.forced is None else self.forced
        self.chosen = top_k_index
        total = torch.zeros_like(hidden_states)
        for index in range(self.count):
            tokens, places = torch.where(top_k_index == index)
            if not len(tokens):
                continue
            self._came_from(index, tokens)
            found = self.output(index, hidden_states[tokens]) * top_k_weights[tokens, places, None]
            total.index_add_(0, tokens, found.to(total.dtype))
        return total

    def _came_from(self, expert: int, tokens: Tensor) -> None:
        for part in self.get_submodule(str(expert)).modules():
            if isinstance(part, RoutedLinear):
                part.tokens[:] = [tokens]
                return

    def keep(self, experts: Sequence[int]) -> None:
        """Leave ``experts`` alone, renumbered in this order."""
        kept = [self.get_submodule(str(expert)) for expert in experts]
        for index in range(self.count):
            del self._modules[str(index)]
        for index, expert in enumerate(kept):
            self.add_module(str(index), expert)
        self.count = len(kept)


def separated(block: BlockAnatomy, experts: Experts) -> SeparateExperts:
    """The experts of ``block`` in the place of transformers' own, without weights."""
    from transformers.activations import ACT2FN

    return SeparateExperts(experts.parts, list(block.expert_mlps()), ACT2FN[block.mlp.activation])


@contextmanager
def routed_alike(module: nn.Module, other: nn.Module) -> Iterator[None]:
    """The experts below ``other`` are shown the tokens that those below ``module`` saw last, for as long as
    the context lasts. What the router weighs them by is another's then: the output means nothing.
    """
    parts = [[one for one in side.modules() if isinstance(one, SeparateExperts)] for side in (module, other)]
    for leads, follows in zip(*parts, strict=True):
        follows.forced = leads.chosen
    try:
        yield
    finally:
        for follows in parts[1]:
            follows.forced = None


def rows_of(module: nn.Module, mask: Tensor) -> Tensor:
    """``mask [batch, tokens]`` for the rows of the last input of ``module``, ``[rows]``."""
    flat = mask.reshape(-1)
    module = module.linear if isinstance(module, TokenQuantLinear) else module
    return flat[module.tokens[0]] if isinstance(module, RoutedLinear) else flat
