"""``CutSpace``: the candidates of a model with heads, channels and blocks among them.

A linear of a block that keeps fewer units is smaller, and its rounding costs as much less. The linears of a
part keep as many units as each other, and a block goes with all that it has: these are ties of the programme,
so that no option is a product of the schemes of several linears.

What is cut from a model under the budgets: chosen exactly beside the bits, then corrected by measuring.

Losses of cuts are measured one by one, and do not quite add up: a chosen profile is cut, the model that is
left is measured, and with what that says of all losses of cuts the programme is solved again, a few times.
The best of the profiles that were measured is taken, where it is better than bits alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from ...compress.model.block_anatomy import Linear
from ...compress.model.weights import WeightSource
from ...compress.numbers.scheme import Scheme
from ...compress.prune.structured.budget import BlockPart
from ...compress.solve.scheme_costs import divides
from ..candidates import Option, Space, linear_options, useful
from ..losses import Losses, linear_schemes
from ..solve import Infeasible, Limit, Solution, Table, Tie, solve_any
from .cut_losses import part_name
from .possible import BLOCK, Cuts, Profile

CORRECTED = 3
_WORTH = 0.02  # of the objective: what a cut must promise
# From candidates to what is made least of them, and the sets of limits of which one is kept.
Asked = Callable[[Space], tuple[Table, Sequence[Sequence[Limit]]]]


@dataclass(frozen=True)
class CutSpace:
    """The ``space`` with the ``ties`` of its units. ``places``: the block and the part of each unit of
    linears, by its number; ``drops``: how many blocks go by each option, and how many may.
    """

    space: Space
    ties: tuple[Tie, ...]
    places: Mapping[int, tuple[int, str]]
    drops: Limit

    @property
    def options(self) -> int:
        """How many there are that cut something."""
        return sum(option.kept is not None for unit in self.space.units for option in unit.options)

    @property
    def smallest(self) -> float:
        """Bytes of the units at their smallest."""
        found = self.solve(self.space.sizes, [[]])
        assert isinstance(found, Solution)
        return found.damage

    def solve(
        self, objective: Table, sets: Sequence[Sequence[Limit]], only: Profile | None = None
    ) -> Solution | Infeasible:
        """As :func:`..solve.solve_any`; ``only`` with what a profile cuts."""
        always = [self.drops] if only is None else [self.drops, self._others(only)]
        return solve_any(objective, [[*limits, *always] for limits in sets], self.ties)

    def _others(self, profile: Profile) -> Limit:
        """None of the options that cut something else."""
        uses = [
            [
                float(number in self.places and option.kept != profile.of(*self.places[number]))
                for option in row
            ]
            for number, row in enumerate(unit.options for unit in self.space.units)
        ]
        return Limit("other cuts", uses, 0.0)

    def profile(self, options: Sequence[int]) -> Profile:
        """What a choice cuts."""
        chosen = [option.kept for _, option in self.space.chosen(options)]
        kept = {place: chosen[number] for number, place in self.places.items()}
        removed = tuple(sorted({block for (block, _), count in kept.items() if count == 0}))
        return Profile(tuple((*place, count) for place, count in sorted(kept.items()) if count), removed)


def with_cuts(
    whole: Space, source: WeightSource, losses: Losses | None, cuts: Cuts, factor: float = 1.0
) -> CutSpace:
    """The candidates ``whole`` of a model and those of ``cuts``, which lose ``factor`` times what was
    measured of each; without ``losses`` none.
    """
    schemes = linear_schemes(source.anatomy)
    numbers = {unit.modules[0]: number for number, unit in enumerate(whole.units)}
    units, places, ties = list(whole.units), dict[int, tuple[int, str]](), list[Tie]()
    for block in source.anatomy.blocks:
        mine: dict[int, tuple[Option, ...]] = {}
        gone = _measured(losses, block.index, BLOCK, [0] if block.index in cuts.drops else [], factor)
        for group in block.inputs():
            number, item = numbers[group[0].name], cuts.item_of(group[0])
            place = block.index, "" if item is None else item.part.name
            added = [Option(None, 0.0 if mine else loss, 0.0, 0, (0, 0)) for loss in gone.values()]
            if item is not None:
                # The first unit of a part costs what the part loses.
                times = 0.0 if place in places.values() else factor
                costs = _measured(losses, *place, cuts.levels(item), times)
                added += _narrower(group, item, schemes, losses, costs)
            mine[number], places[number] = (*units[number].options, *added), place
            units[number] = replace(units[number], options=mine[number])
        ties += _ties(mine, places)
    # Of each block its first unit counts.
    first = {block: number for number, (block, _) in reversed(list(places.items()))}
    goes = [
        [float(option.kept == 0 and number in first.values()) for option in unit.options]
        for number, unit in enumerate(units)
    ]
    limit = Limit("blocks gone", goes, float(cuts.most))
    return CutSpace(replace(whole, units=tuple(units)), tuple(ties), places, limit)


def lost(losses: Losses, profile: Profile) -> float:
    """What a profile costs as measured of each of its cuts."""
    kept = sum(losses.cuts[part_name(block, part)][str(count)] for block, part, count in profile.kept)
    return kept + sum(losses.cuts[part_name(block, BLOCK)]["0"] for block in profile.removed)


def _measured(
    losses: Losses | None, block: int, part: str, counts: Sequence[int], factor: float
) -> dict[int, float]:
    """``factor`` times the losses of those of ``counts`` that have some."""
    if losses is None:
        return dict.fromkeys(counts, 0.0)
    known = losses.cuts.get(part_name(block, part), {})
    return {count: factor * known[str(count)] for count in counts if str(count) in known}


def _narrower(
    group: Sequence[Linear],
    item: BlockPart,
    schemes: Sequence[Scheme],
    losses: Losses | None,
    costs: Mapping[int, float],
) -> list[Option]:
    """Of linears with the same inputs, for each count of units that their part keeps: by that what is lost
    with it. In those of ``schemes`` that fit what they read whole, too, of which losses were measured.
    """
    found: list[Option] = []
    measured = [one for one in schemes if all(divides(one, linear) for linear in group)]
    for count, loss in costs.items():
        linears = {one.name: one for one in item.part.narrowed(item.block, count).linears()}
        left, share = [linears[one.name] for one in group], count / item.counts[-1]
        shape = left[0].in_features, sum(one.out_features for one in left)
        found += [
            replace(option, damage=share * option.damage + loss, kept=count, shape=shape)
            for option in useful(linear_options(left, measured, losses))
        ]
    return found


def _ties(mine: Mapping[int, Sequence[Option]], places: Mapping[int, tuple[int, str]]) -> list[Tie]:
    """Of the units of a block: those of a part keep as many, and all of them none or some."""

    def having(numbers: Sequence[int], kept: int) -> Tie:
        return {n: [i for i, option in enumerate(mine[n]) if option.kept == kept] for n in numbers}

    found = []
    for part in sorted({places[number] for number in mine}):
        numbers = [number for number in mine if places[number] == part]
        counts = sorted({option.kept for option in mine[numbers[0]] if option.kept})
        found += [having(numbers, count) for count in counts]
    return [*found, having(list(mine), 0)]


def solved_profile(
    at: Callable[[float], CutSpace],
    asked: Asked,
    predicted: Callable[[Profile], float],
    measured: Callable[[Profile], float],
) -> Profile:
    """The profile; empty where no cut is worth it. ``at``: the candidates, where cuts cost so many times what
    was measured one by one; ``predicted`` and ``measured``: the damage of a profile, added up and as it is.
    """
    best, factor, tried = Profile(), 1.0, set[Profile]()
    least = alone = _least(at(factor), asked, best)
    for _ in range(CORRECTED):
        space = at(factor)
        found = space.solve(*asked(space.space))
        if isinstance(found, Infeasible) or found.damage > (1 - _WORTH) * alone:
            break
        profile = space.profile(found.options)
        if not profile or profile in tried:
            break
        tried.add(profile)
        added = predicted(profile)
        factor = measured(profile) / added if added > 0 else 1.0
        cost = _least(at(factor), asked, profile)
        if cost < min(least, (1 - _WORTH) * alone):
            least, best = cost, profile
    return best


def _least(space: CutSpace, asked: Asked, profile: Profile) -> float:
    """What is made least, with what ``profile`` cuts."""
    found = space.solve(*asked(space.space), only=profile)
    return inf if isinstance(found, Infeasible) else found.damage
