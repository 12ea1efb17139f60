"""What is cut from a model under the budgets: chosen exactly beside the bits, then corrected by measuring.

Losses of cuts are measured one by one, and do not quite add up: a chosen profile is cut, the model that is
left is measured, and with what that says of all losses of cuts the programme is solved again, a few times.
The best of the profiles that were measured is taken, where it is better than bits alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from ..candidates import Space
from ..solve import Infeasible, Limit, Table
from .cut_space import CutSpace
from .profile import Profile

CORRECTED = 3
_WORTH = 0.02  # of the objective: what a cut must promise

# From candidates to what is made least of them, and the sets of limits of which one is kept.
Asked = Callable[[Space], tuple[Table, Sequence[Sequence[Limit]]]]


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
