"""What a linear loses by GPTQ behind ``awq``, which folds factors into what feeds it
(:mod:`edgepress.compress.passes.awq`; Lin et al. 2023, arXiv 2306.00978).

Without the factors the loss says little of a choice that will be rounded with them: what gains most by more
bits is often what they help most. Here each linear has the factors of its own Gram, searched for one scheme;
the pass searches them for all readers of a link together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..measure.fisher import TakeGradient
from ..model.block_anatomy import BlockAnatomy
from .folding import SAMPLED_ROWS, folded_loss, powers, search
from .gptq_losses import GptqChangeLosses
from .links import Link, links

_BITS = 4  # of the scheme that factors are searched for, where it is among the schemes


class FoldedGptqLosses(GptqChangeLosses):
    """:class:`.gptq_losses.GptqChangeLosses`, ``given`` as there, of the weight times factors of its input
    channels ``[in]``, on inputs that are divided by them; ``link`` feeds the linear.
    """

    def __init__(self, *given: Any, link: Link) -> None:
        super().__init__(*given)
        self.link = link
        self.factors = self.weight.new_ones(self.weight.shape[1], dtype=torch.float32)

    def end_of_looking(self) -> None:
        power = self.gram.diagonal().clamp(min=0)
        if bool(torch.isfinite(power).all()) and bool((power > 0).any()):
            self.factors = self._factors(power)
            self.weight = self.weight * self.factors
            self.gram = self.gram / self.factors.unsqueeze(1) / self.factors
        super().end_of_looking()

    def observe(self, inputs: Tensor, outputs: Tensor, real: Tensor) -> TakeGradient:
        return super().observe(inputs / self.factors, outputs, real)

    def _factors(self, power: Tensor) -> Tensor:
        """``[in]``, for inputs of the mean square ``power [in]``."""
        scheme = next((one for one in self.schemes if one.bits == _BITS), self.schemes[0])
        link, sample = self.link, self.weight[:: -(-len(self.weight) // SAMPLED_ROWS)]
        heavy = self.weight.square().mean(0).sqrt()
        tried = powers(link.gathered(power).sqrt(), link.gathered(heavy))
        wide = ((label, link.spread(link.exact(factors))) for label, factors in tried)
        return search(wide, lambda factors: folded_loss(sample, scheme, power, factors)).factors


def folded(block: BlockAnatomy) -> Callable[..., GptqChangeLosses]:
    """What measures each linear of ``block``, with the link that feeds it where one does."""
    feeds = {reader.name: link for link in links(block) for reader in link.readers}

    def make(module: str, *rest: Any) -> GptqChangeLosses:
        link = feeds.get(module)
        return GptqChangeLosses(module, *rest) if link is None else FoldedGptqLosses(module, *rest, link=link)

    return make
