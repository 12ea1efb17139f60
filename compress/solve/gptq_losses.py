"""What each linear of a model costs it at each scheme when GPTQ (Frantar et al. 2022, arXiv 2210.17323) finds
the codes, by one backward sweep.

Rounding to nearest, which :mod:`.scheme_costs` measures, tells little of 2 and 3 bits: GPTQ takes back the
more the fewer there are, and not of every layer as much. Of SmolLM2 the losses so measured of a choice of 3
and 4 bits add up to 0.184 nats a token where 0.171 were measured. The Gram of a linear's inputs comes from
other text than the gradients, which codes that fit it would flatter. What the pass may do beyond the
recursion (a correction, refinements) is not in them.

What a linear loses by GPTQ behind ``awq``, which folds factors into what feeds it
(:mod:`edgepress.compress.passes.awq`; Lin et al. 2023, arXiv 2306.00978).

Without the factors the loss says little of a choice that will be rounded with them: what gains most by more
bits is often what they help most. Here each linear has the factors of its own Gram, searched for one scheme;
the pass searches them for all readers of a link together.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...terminal.progress import Tick, unseen
from ..measure.fisher import Measure, Observer, TakeGradient
from ..measure.sensitivity import BatchChangeLosses, ChangeLosses
from ..model.block_anatomy import BlockAnatomy, Linear
from ..numbers.grid import fit_grid, grids_tried, quantize
from ..numbers.qtensor import QTensor
from ..numbers.scheme import Scheme
from ..pipeline.advance import Work, weights_of
from ..pipeline.algorithm import float_bytes
from ..pipeline.stage import Stage
from .allocation import Costs
from .column_recursion import quantize_in_order
from .damped_cholesky import factorize
from .folding import SAMPLED_ROWS, folded_loss, powers, search
from .group_solving import DAMPING
from .links import Link, links
from .scheme_costs import by_group, fitting, grouped_costs, named, scheme_costs

# Of text for the Grams: what packaged recipes have for GPTQ.
LOOKED_TOKENS = 8192
_BITS = 4  # of the scheme that factors are searched for, where it is among the schemes


class GptqChangeLosses(ChangeLosses):
    """:class:`ChangeLosses` of the ``weight [out, in]`` by GPTQ in each of ``schemes``; where ``mask [out,
    in]`` is False the codes are zero.
    """

    def __init__(
        self,
        module: str,
        weight: Tensor,
        schemes: Sequence[Scheme],
        damping: float = DAMPING,
        mask: Tensor | None = None,
    ) -> None:
        super().__init__(module, weight, ())
        self.schemes, self.damping, self.mask = schemes, damping, mask
        self.tick: Tick = unseen
        self.gram = weight.new_zeros(weight.shape[1], weight.shape[1], dtype=torch.float32)

    def look(self, inputs: Tensor) -> None:
        """Add rows ``inputs [tokens, in]`` to the Gram."""
        rows = inputs.to(torch.float32)
        self.gram.addmm_(rows.T, rows)

    def end_of_looking(self) -> None:
        """Find the codes of each scheme; the Gram goes."""
        gram, self.gram = self.gram, self.gram.new_empty(0)
        self.others = self._by_gptq(gram)
        self.total = torch.zeros(len(self.others), device=self.weight.device)

    def _by_gptq(self, gram: Tensor) -> list[QTensor]:
        """In the order of decreasing diagonal, as the pass; to nearest where the Gram does not factor."""
        weight, mask = self.weight, self.mask
        order = torch.sort(gram.diagonal().nan_to_num(), descending=True, stable=True).indices
        factor = factorize(gram, self.damping, order)
        if factor is None:
            self.tick(1)
            return [quantize(weight, scheme, mask=mask) for scheme in self.schemes]
        power, found = gram.diagonal().clamp(min=0), []
        for scheme in self.schemes:
            ends = fit_grid(weight, scheme, "mse", power)
            found.append(quantize_in_order(weight, *ends, factor, order, scheme, mask=mask))
            self.tick(1 / len(self.schemes))
        return found


class GptqBatchLosses(GptqChangeLosses, BatchChangeLosses):
    """The same with micro-batches kept apart."""


# Of a block what makes the observer of a linear, of its name, weight, schemes, damping and mask.
ObserverOf = Callable[[BlockAnatomy], Callable[..., GptqChangeLosses]]


def as_it_is(_: BlockAnatomy) -> Callable[..., GptqChangeLosses]:
    """Each linear as it is."""
    return GptqChangeLosses


def by_batch(_: BlockAnatomy) -> Callable[..., GptqChangeLosses]:
    """With micro-batches kept apart."""
    return GptqBatchLosses


def gptq_costs(
    stage: Stage,
    who: str,
    schemes: Sequence[Scheme],
    linears: Iterable[Linear],
    damping: float = DAMPING,
    most_read: int = 1,
) -> Costs:
    """As :func:`.scheme_costs.scheme_costs`, with the codes that GPTQ finds with ``damping`` on other text;
    ``most_read`` as of :class:`~edgepress.compress.text.micro_batches.MeasuredText`.
    """
    return gptq_costs_beside(stage, who, schemes, linears, _nothing, as_it_is, damping, most_read)[0]


def gptq_costs_beside(
    stage: Stage,
    who: str,
    schemes: Sequence[Scheme],
    linears: Iterable[Linear],
    also: Measure,
    observer_of: ObserverOf,
    damping: float = DAMPING,
    most_read: int = 1,
) -> tuple[Costs, dict[str, Tensor]]:
    """As :func:`gptq_costs`, by what ``observer_of`` gives; and all that the sweep finds, what is
    measured ``also`` among it, whose names are others.
    """
    fits = fitting(schemes, linears)
    measured_on, other = stage.measured_text(who, most_read).apart(LOOKED_TOKENS)
    losses = _measure(stage, fits, observer_of, damping)

    def measure(block: BlockAnatomy, weight: Callable[[str], Tensor]) -> dict[str, Observer]:
        return {**losses(block, weight), **also(block, weight)}

    found = stage.measured_on(measured_on, who, measure, other)
    return named(fits, found), found


def _nothing(_: BlockAnatomy, __: Callable[[str], Tensor]) -> dict[str, Observer]:
    """Is measured also."""
    return {}


def costs_as_rounded(
    stage: Stage, who: str, schemes: Sequence[Scheme], linears: Sequence[Linear], damping: float | None
) -> dict[str, Costs]:
    """As :func:`.scheme_costs.grouped_costs`, where there are protected groups and where there are none; with
    the codes that GPTQ finds with ``damping`` on ordinary text, or to nearest without one, and where there is
    no other text than what is measured on: codes that fit few tokens seem to lose nothing on them.
    """
    protected = stage.calibration is not None and stage.calibration.protected
    if damping is None or not stage.measured_text(who).has_others:
        if protected:
            return grouped_costs(stage, who, schemes, linears)
        return {"": scheme_costs(stage, who, schemes, linears)}
    if not protected:
        return {"": gptq_costs(stage, who, schemes, linears, damping)}
    fits = fitting(schemes, linears)
    return by_group(stage, who, fits, _measure(stage, fits, by_batch, damping), LOOKED_TOKENS)


def _measure(
    stage: Stage, fits: Mapping[str, Sequence[Scheme]], observer_of: ObserverOf, damping: float
) -> Measure:
    def measure(block: BlockAnatomy, weight: Callable[[str], Tensor]) -> dict[str, GptqChangeLosses]:
        names = [linear.name for linear in block.linears() if linear.name in fits]
        masks, kind = stage.masks.of(block, stage.device), observer_of(block)
        return {name: kind(name, weight(name), fits[name], damping, masks.get(name)) for name in names}

    return measure


def gptq_observers_bytes(linears: Sequence[Linear], schemes: int) -> int:
    """Of the observers of a block with ``linears``, in so many ``schemes``: the Grams of all, the codes, a
    mask; of the largest its factor, and its weight in the order of work with errors and codes.
    """
    squares = [4 * linear.in_features**2 for linear in linears]
    weights = [float_bytes(linear) for linear in linears]
    return sum(squares) + (schemes + 1) * sum(weights) // 4 + max(squares) + 3 * max(weights)


def gptq_codes_work(linears: Iterable[Linear], schemes: Sequence[Scheme]) -> Work:
    """What it takes to find them behind the Grams: a factor of each, and a recursion for each scheme."""
    total = Work()
    for linear in linears:
        wide, weights = linear.in_features, weights_of(linear)
        total += Work(factors=wide**3)
        recursions = Work(1.6 * weights * wide, columns=wide, entries=weights)
        for scheme in fitting(schemes, [linear])[linear.name]:
            total += recursions + Work(roundings=weights * grids_tried(scheme))
    return total


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
