"""``SeparateExperts``: the experts of a block as linears of their own, in the place of transformers' module,
in which all of them are two tensors.

So passes, statistics and writers see the layers that a checkpoint stores. The sums are those of transformers'
plain loop over the experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .block_anatomy import Experts, Linear

if TYPE_CHECKING:
    from .block_anatomy import BlockAnatomy


class RoutedLinear(nn.Linear):
    """A linear of an expert, whose input rows are those of some tokens of a batch alone.

    Attributes:
        tokens: one tensor, of the places in the batch that the rows of the last input came from; the linears
            of an expert share the list.
    """

    def __init__(self, linear: Linear, tokens: list[Tensor]) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.tokens = tokens


class SeparateExperts(nn.Module):
    """The experts by index, each with its ``parts``: gate, up and down under their stored names."""

    def __init__(self, parts: tuple[str, str, str], linears: Sequence[Linear], activation: nn.Module) -> None:
        super().__init__()
        self.parts, self.act_fn, self.count = parts, activation, len(linears) // 3
        for index in range(self.count):
            tokens: list[Tensor] = []
            mine = linears[3 * index : 3 * index + 3]
            made = {part: RoutedLinear(one, tokens) for part, one in zip(parts, mine, strict=True)}
            self.add_module(str(index), nn.ModuleDict(made))
        self.requires_grad_(False)

    def linears(self, expert: int) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Gate, up and down of ``expert``."""
        found = self.get_submodule(str(expert))
        gate, up, down = (found.get_submodule(part) for part in self.parts)
        return gate, up, down

    def output(self, expert: int, rows: Tensor) -> Tensor:
        """What ``expert`` makes of ``rows [tokens, hidden]``."""
        gate, up, down = self.linears(expert)
        return down(self.act_fn(gate(rows)) * up(rows))  # type: ignore[no-any-return]

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """``[tokens, hidden]`` of ``hidden_states [tokens, hidden]``, which go to the experts ``top_k_index
        [tokens, chosen]`` with the factors ``top_k_weights``.
        """
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


def separated(built: nn.Module, block: BlockAnatomy, experts: Experts) -> SeparateExperts:
    """The experts of ``block`` in the place of ``built``, transformers' own, without weights."""
    activation = built.act_fn
    assert isinstance(activation, nn.Module)
    return SeparateExperts(experts.parts, list(block.expert_linears()), activation)


def rows_of(module: nn.Module, mask: Tensor) -> Tensor:
    """``mask [batch, tokens]`` for the rows of the last input of ``module``, ``[rows]``."""
    flat = mask.reshape(-1)
    return flat[module.tokens[0]] if isinstance(module, RoutedLinear) else flat
