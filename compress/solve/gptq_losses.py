"""What each linear of a model costs it at each scheme when GPTQ (Frantar et al. 2022, arXiv 2210.17323) finds
the codes, by one backward sweep.

Rounding to nearest, which :mod:`.scheme_costs` measures, tells little of 2 and 3 bits: GPTQ takes back the
more the fewer there are, and not of every layer as much. Of SmolLM2 the losses so measured of a choice of 3
and 4 bits add up to 0.184 nats a token where 0.171 were measured. The Gram of a linear's inputs comes from
other text than the gradients, which codes that fit it would flatter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ..measure.sensitivity import ChangeLosses
from ..model.block_anatomy import BlockAnatomy, Linear
from ..numbers.grid import fit_grid, quantize
from ..numbers.qtensor import QTensor
from ..numbers.scheme import Scheme
from ..pipeline.stage import Stage
from .allocation import Costs
from .column_recursion import quantize_in_order
from .damped_cholesky import factorize
from .group_solving import DAMPING
from .scheme_costs import fitting, named

# Of text for the Grams: what packaged recipes have for GPTQ.
LOOKED_TOKENS = 8192


class GptqChangeLosses(ChangeLosses):
    """:class:`ChangeLosses` of the ``weight [out, in]`` by GPTQ in each of ``schemes``."""

    def __init__(self, module: str, weight: Tensor, schemes: Sequence[Scheme]) -> None:
        super().__init__(module, weight, ())
        self.schemes = schemes
        self.gram = weight.new_zeros(weight.shape[1], weight.shape[1], dtype=torch.float32)

    def look(self, inputs: Tensor) -> None:
        """Add rows ``inputs [tokens, in]`` to the Gram."""
        rows = inputs.to(torch.float32)
        self.gram.addmm_(rows.T, rows)

    def end_of_looking(self) -> None:
        """Find the codes of each scheme; the Gram goes."""
        gram, self.gram = self.gram, self.gram.new_empty(0)
        self.others = _by_gptq(self.weight, gram, self.schemes)
        self.total = torch.zeros(len(self.others), device=self.weight.device)


def gptq_costs(stage: Stage, who: str, schemes: Sequence[Scheme], linears: Iterable[Linear]) -> Costs:
    """As :func:`.scheme_costs.scheme_costs`, nats of KL a token of a decoder, with the codes of GPTQ."""
    fits = fitting(schemes, linears)

    def measure(block: BlockAnatomy, weight: Callable[[str], Tensor]) -> dict[str, GptqChangeLosses]:
        names = [linear.name for linear in block.linears() if linear.name in fits]
        return {name: GptqChangeLosses(name, weight(name), fits[name]) for name in names}

    return named(fits, stage.measured(who, measure, LOOKED_TOKENS))


def _by_gptq(weight: Tensor, gram: Tensor, schemes: Sequence[Scheme]) -> list[QTensor]:
    """In the order of decreasing diagonal, as the pass; to nearest where the Gram does not factor."""
    order = torch.sort(gram.diagonal().nan_to_num(), descending=True, stable=True).indices
    factor = factorize(gram, DAMPING, order)
    if factor is None:
        return [quantize(weight, scheme) for scheme in schemes]
    power, found = gram.diagonal().clamp(min=0), []
    for scheme in schemes:
        ends = fit_grid(weight, scheme, "mse", power)
        found.append(quantize_in_order(weight, *ends, factor, order, scheme))
    return found
