"""What each linear of a model costs it at each scheme: measured by one backward sweep for all of them
(:mod:`edgepress.compress.measure.sensitivity`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from ..measure.sensitivity import ChangeLosses
from ..model.block_anatomy import BlockAnatomy, Linear
from ..numbers.grid import quantize
from ..numbers.scheme import Scheme
from ..pipeline.stage import Stage
from .allocation import Costs


def divides(scheme: Scheme, linear: Linear) -> bool:
    """Whether the scheme's groups divide the inputs of ``linear``."""
    return scheme.group_size is None or linear.in_features % scheme.group_size == 0


def scheme_costs(stage: Stage, who: str, schemes: Sequence[Scheme], linears: Iterable[Linear]) -> Costs:
    """The damage a token of each of ``linears`` rounded by each of ``schemes`` that divides it, for ``who``.
    Raises what :meth:`~edgepress.compress.pipeline.stage.Stage.measured` does.
    """
    fitting = {one.name: [scheme for scheme in schemes if divides(scheme, one)] for one in linears}

    def measure(block: BlockAnatomy, weight: Callable[[str], Tensor]) -> dict[str, ChangeLosses]:
        names = [linear.name for linear in block.linears() if linear.name in fitting]
        others = {name: [quantize(weight(name), scheme) for scheme in fitting[name]] for name in names}
        return {name: ChangeLosses(name, weight(name), others[name]) for name in names}

    found = stage.measured(who, measure)
    return {
        name: {scheme.name: cost for scheme, cost in zip(fits, found[name].tolist(), strict=True)}
        for name, fits in fitting.items()
    }
