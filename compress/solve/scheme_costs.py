"""What each linear of a model costs it at each scheme: measured by one backward sweep for all of them
(:mod:`edgepress.compress.measure.sensitivity`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import Tensor

from ...errors import CalibrationError
from ..measure.fisher import Measure
from ..measure.sensitivity import BatchChangeLosses, ChangeLosses
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
    fits = fitting(schemes, linears)
    return named(fits, stage.measured(who, _measure(fits, ChangeLosses)))


def grouped_costs(
    stage: Stage, who: str, schemes: Sequence[Scheme], linears: Iterable[Linear]
) -> dict[str, Costs]:
    """:func:`scheme_costs` of ordinary text, under "", and of each protected group: a byte of a decoder's
    text, a token of others'.
    """
    fits = fitting(schemes, linears)
    return by_group(stage, who, fits, _measure(fits, BatchChangeLosses))


def by_group(
    stage: Stage, who: str, fits: Mapping[str, Sequence[Scheme]], measure: Measure, looked_at: int = 0
) -> dict[str, Costs]:
    """:func:`grouped_costs` of the schemes ``fits`` of each linear, as ``measure`` finds them, a row a
    micro-batch; its observers are shown ``looked_at`` tokens of ordinary text first.
    """
    text = stage.measured_text(who)
    micro_batches, names = text.grouped()
    found = stage.measured_on(micro_batches, who, measure, text.others(looked_at))
    if any(len(each) != len(names) for each in found.values()):
        raise CalibrationError(
            "the model turns text of a protected group into NaN or infinity",
            fix="check the model with `edgepress inspect`, or leave that text out",
        )
    every = sum(batch.tokens for batch in micro_batches)
    units = {"": 1.0} | {
        group.name: group.tokens / group.size if stage.source.anatomy.kind == "decoder" else 1.0
        for group in stage.text(who).protected
    }
    costs = {}
    for name, unit in units.items():
        mine = [place for place, one in enumerate(names) if one == name]
        scale = every / sum(micro_batches[place].tokens for place in mine) * unit
        costs[name] = named(fits, {linear: each[mine].sum(0) * scale for linear, each in found.items()})
    return costs


def fitting(schemes: Sequence[Scheme], linears: Iterable[Linear]) -> dict[str, list[Scheme]]:
    """By the name of each linear the schemes that divide it."""
    return {one.name: [scheme for scheme in schemes if divides(scheme, one)] for one in linears}


def _measure(fits: Mapping[str, Sequence[Scheme]], kind: type[ChangeLosses]) -> Measure:
    def measure(block: BlockAnatomy, weight: Callable[[str], Tensor]) -> dict[str, ChangeLosses]:
        names = [linear.name for linear in block.linears() if linear.name in fits]
        others = {name: [quantize(weight(name), scheme) for scheme in fits[name]] for name in names}
        return {name: kind(name, weight(name), others[name]) for name in names}

    return measure


def named(fits: Mapping[str, Sequence[Scheme]], found: Mapping[str, Tensor]) -> Costs:
    """What was ``found [schemes]`` of each linear, by the names of the schemes that fit it."""
    return {
        name: {scheme.name: cost for scheme, cost in zip(schemes, found[name].tolist(), strict=True)}
        for name, schemes in fits.items()
    }
