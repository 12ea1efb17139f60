"""``fit_model``: budgets in, the best artifact out, whole or not at all; ``plan_fit``: the plan of that."""

import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ..compress.pipeline.journal import read_sealed
from ..compress.text.corpus import text_paths
from ..errors import GateFailed, InputError, stopped
from ..files.output_paths import refuse_nesting
from ..files.staging import Staging
from ..terminal.progress import Progress, ProgressTask, Silent
from .asked.wish import Wish
from .candidates import Space, space_of
from .choices import recipe_of
from .corrections import Corrections, objective_of
from .cuts.possible import Profile
from .job import Job, refuse_impossible
from .losses import known_losses, losses_file
from .methods import METHODS, SOLVED, Method
from .outer.worker import RayWorkers, outer_search, refuse_budgets, share
from .planned_time import seconds_with_room
from .quantities import DISK
from .report import deliver, reasons
from .search import Search
from .solve import Infeasible, Limit, Solution, solve, solve_any
from .spaces import Spaces
from .trials import CHOICE, Trial, directory_of, is_made

Executor = Literal["local", "ray"]
_STEPS = 6  # of the front in a plan


def fit_model(
    wish: Wish,
    *,
    output: str | Path,
    overwrite: bool = False,
    executor: Executor = "local",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Find the artifact that keeps all budgets of ``wish`` with the least damage (with nothing bounded but
    the damage: the smallest), and write it into the directory ``output``: the bundle, its recipe, the
    measured lines, and a report of every trial, which is returned. ``executor``: where trials run beside this
    process, if ``wish`` has some of Optuna's.

    A killed run goes on with the same call; an interrupted one leaves the best that holds so far.
    """
    wish.check()
    target, progress = Path(output), progress or Silent()
    others = _others(wish, target, executor, progress)
    refuse_nesting(target, [wish.model, *text_paths(wish.text)])
    begun = time.monotonic()
    with Staging(target, overwrite=overwrite, keep=_worth_keeping) as stage:
        job = Job(wish, stage.directory, progress)
        search = job.search(begun + 3600 * wish.hours)
        try:
            if wish.trials:
                share(job)
                with others:
                    outer_search(job, search).work(leads=True)
            else:
                search.run()
            take_kept(search)
            return _judged(job, search, stage)
        except KeyboardInterrupt as error:
            take_kept(search)
            best = search.best()
            if best is None:
                raise
            deliver(job, search, best, stage)
            said = search.said(best.measured)
            raise stopped(
                error,
                why=f"{target} holds the best so far: {said}, on the text that it was chosen by",
                fix="--overwrite searches again",
            ) from None


def _judged(job: Job, search: Search, stage: Staging) -> dict[str, Any]:
    """Deliver the best trial that holds on held-out data too; where none does, search once with a margin."""
    for again in (False, True):
        if again and not search.tightened():
            break
        for trial, broken in search.judged():
            if not broken:
                return deliver(job, search, trial, stage)
            values = search.failed[trial.key]
            search.refusals += [
                f"trial {search.trials.index(trial) + 1} misses {one.shown()} on held-out data "
                f"({one.quantity.shown(values[one.key])}; the search measured "
                f"{one.quantity.shown(trial.measured[one.key])})"
                for one in broken
            ]
    raise _nothing_holds(search)


def _others(wish: Wish, target: Path, executor: Executor, progress: Progress) -> AbstractContextManager[None]:
    """The processes that take part, while it is open."""
    if executor == "local":
        return nullcontext()
    if not wish.trials:
        raise InputError("a cluster has trials of Optuna's to share alone", fix="add --trials 24")
    refuse_budgets(wish, platform.node())
    return RayWorkers(target, wish.trials - 1, progress)


def _worth_keeping(staging: Path) -> bool:
    """Whether a resumed run finds something: what the sweep of statistics or a trial left."""
    return any((staging / name).is_dir() and any((staging / name).iterdir()) for name in ("losses", "trials"))


def _nothing_holds(search: Search) -> GateFailed:
    nearest, lines = search.nearest(), reasons(search.refusals)
    if nearest is None:
        return GateFailed("no choice keeps the budgets", why="\n".join(lines), fix="give wider budgets")
    lines.insert(0, f"nearest: {search.said(nearest.measured)}, in {nearest.bundle}")
    budgets = ", ".join(one.shown() for one in search.budgets)
    return GateFailed(
        f"nothing keeps {budgets} {'on held-out data' if search.failed else 'as measured'}",
        why="\n".join(lines),
        fix="give a wider budget, or more --hours; trials are kept, and are not run again",
    )


def plan_fit(
    wish: Wish, *, output: str | Path | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """The space, and what is known of the result before anything is measured: sizes exactly; damage where an
    earlier run on the same model and text has measured it.
    """
    wish.check()
    if output is not None:
        refuse_nesting(Path(output), [wish.model, *text_paths(wish.text)])
    target = Path() if output is None else Path(output)
    with tempfile.TemporaryDirectory(prefix="edgepress-") as folder:
        job = Job(wish, Path(folder), progress or Silent())
        losses = known_losses(losses_file(job.fingerprint, job.source.anatomy, job.calibration))
        spaces = job.spaces()
        space = spaces.of() if losses is not None else space_of(job.source, None)
        cut = job.cut_space(space)
        refuse_impossible(cut, wish.budgets)
        document: dict[str, Any] = {
            "model": job.resolved.described,
            "budgets": [one.shown() for one in wish.budgets],
            "units": len(space.units),
            "options": sum(len(unit.options) for unit in space.units),
            "smallest": space.shipped + sum(min(row) for row in space.sizes),
            "largest": space.shipped + sum(max(row) for row in space.sizes),
            "cuts": cut.options,
            "smallest_cut": space.shipped + cut.smallest,
            "windows": job.windows,
            "judged": space.judged.name,
            "losses_known": losses is not None,
            "hours": wish.hours,
        }
        if losses is not None:
            return document | _predicted(job, space, target) | _cut(spaces)
        # Every part at its smallest: what a compression takes hardly depends on the bits.
        return document | {"compress_seconds": _compress_seconds(job, space, (0,) * len(space.units), target)}


def _predicted(job: Job, space: Space, output: Path) -> dict[str, Any]:
    """What a first trial is predicted to be, its KL before any factor was measured; the same of the front
    below its size; and the seconds that its compression takes by each method.
    """
    budgets, corrections, method = job.wish.budgets, job.corrections(), METHODS[0]
    objective = space.sizes if objective_of(space, budgets) == DISK.name else space.damages
    with job.progress.task("solving under the budgets", 1 + _STEPS) as task:
        found = solve_any(objective, corrections.limits(space, budgets, method))
        task.advance(1, "the first choice")
        if isinstance(found, Infeasible):
            return {"feasible": False}
        front = list(_front(space, found.options, task))
    return {
        "feasible": True,
        "gap": found.gap,
        "predicted": corrections.predicted(space, found.options, method, budgets),
        "front": [corrections.predicted(space, options, method, ()) for options in front],
        "compress_seconds": _compress_seconds(job, space, found.options, output),
    }


def _cut(spaces: Spaces) -> dict[str, Any]:
    """What heads, channels and blocks beside the bits are predicted to be, where that is better."""
    found = spaces.cut_space()
    objective, sets = spaces.asked(found.space)
    with_cut, alone = found.solve(objective, sets), found.solve(objective, sets, Profile())
    if isinstance(with_cut, Infeasible) or not (profile := found.profile(with_cut.options)):
        return {}
    if isinstance(alone, Solution) and alone.damage <= with_cut.damage:
        return {}
    predicted = Corrections.before(spaces.budgets).predicted(
        found.space, with_cut.options, METHODS[0], spaces.budgets
    )
    said = {"blocks": profile.lines(spaces.cuts), "line": profile.line(spaces.cuts)}
    return {"cut": {**said, "predicted": predicted}}


def _compress_seconds(job: Job, space: Space, options: tuple[int, ...], output: Path) -> dict[str, float]:
    """Estimates by method; empty where the budgets leave nothing to compress."""
    if all(unit.is_table or option.scheme is None for unit, option in space.chosen(options)):
        return {}
    found = {}
    with job.progress.task("planning each method", len(METHODS)) as task:
        for method in METHODS:
            if method.cut == SOLVED:  # what is cut is not measured yet
                task.advance(1)
                continue
            recipe = recipe_of(space, options, method, job.settings, job.calibration.tokens_of_a_sample)
            found[method.name] = seconds_with_room(job.source, recipe, output, job.wish.device)
            task.advance(1, method.name)
    return found


def _front(space: Space, options: Sequence[int], task: ProgressTask) -> Iterator[tuple[int, ...]]:
    """The best choices from the smallest size to that of ``options``."""
    size = Limit(DISK.name, space.sizes, 0.0)
    least = sum(min(row) for row in space.sizes)
    for step in range(_STEPS):
        room = least + step / (_STEPS - 1) * (size.used(options) - least)
        found = solve(space.damages, [replace(size, bound=room)])
        task.advance(1, "the front below its size")
        if not isinstance(found, Infeasible):
            yield found.options


def take_kept(search: Search) -> None:
    """Learn from them, where they are whole and choices of the candidates."""
    known = {trial.key for trial in search.trials}
    for directory in sorted(search.folder.iterdir()):
        trial = _kept(search, directory, known)
        if trial is not None:
            search.take(trial)


def _kept(search: Search, directory: Path, known: set[str]) -> Trial | None:
    choice = read_sealed(directory / CHOICE)
    if choice is None or not is_made(search.setting, directory):
        return None
    method, options = Method(**choice["method"]), tuple(choice["options"])
    spaces = search.choices.spaces
    if not spaces.is_ready(method.space) or not _is_choice(options, spaces.of(method.space)):
        return None
    key = search.key(options, method)
    if key in known or directory != directory_of(key, search.folder):
        return None
    return search.ran(options, method, choice["predicted"], Silent())


def _is_choice(options: Sequence[int], space: Space) -> bool:
    """Whether each unit has such an option."""
    if len(options) != len(space.units):
        return False
    return all(option < len(unit.options) for option, unit in zip(options, space.units, strict=True))
