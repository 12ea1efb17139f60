"""What is delivered: the bundle, its recipe, the lines of it, and all trials in a report and on a page.

Why the choice is what it is: which unit got what, and what more or less of each budget would bring.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..benchmarks.page.report import render_report
from ..benchmarks.page.result_groups import Delivered
from ..benchmarks.quality.measured_card import write_measured_card
from ..benchmarks.records import record as records
from ..benchmarks.records.record import Measurement
from ..compress.model.family import read_by
from ..compress.model.weights import WeightSource
from ..compress.model_card import CARD
from ..compress.solve.allocation import strip
from ..compress.text.corpus import CORPORA
from ..files.hashed_tree import hash_tree
from ..files.staging import Staging
from ..files.storage import write_atomic, write_json
from .asked.wish import OPTIONS
from .budgets import Budget
from .candidates import Space
from .corrections import Corrections, damages_by
from .corrections import before as damage_before
from .figures import qualities
from .job import Job
from .methods import SOLVED_CUTS, Method
from .quantities import DISK, Quantity, quantity_of
from .search import Search, excess
from .setting import RECIPE
from .solve import Infeasible, solve_any
from .trials import BUNDLE, Trial, recipe_text

REPORT, RUNS, FRONT, SCHEMA = "fit.json", "runs.jsonl", "front.html", "edgepress.fit/1"
_HELD_OUT = "held-out"  # a file of text, or a folder of images or sounds
# What the held-out text was to the delivered trial: no choice was made on it; it refused trials that were
# chosen first, so that it had a part in the choice; or it was not read, since the search was interrupted.
APART, CHOSEN_BY, NOT_READ = "apart", "chosen-by", "not-read"
_ON_PAGE = 40  # trials, of more the best: a page has its most bytes
# By how much a budget is moved to see its price.
_STEP = 0.1


def deliver(job: Job, search: Search, trial: Trial, stage: Staging) -> dict[str, Any]:
    """Publish the trial with the report."""
    shutil.rmtree(stage.result, ignore_errors=True)
    stage.result.mkdir()
    shutil.copytree(trial.bundle, stage.result / BUNDLE)
    write_atomic(stage.result / RECIPE, recipe_text(trial.recipe).encode())
    _copy_calibration(job.texts.calibration, stage.result)
    for line in trial.lines:
        records.append(stage.result / RUNS, line)
    sliced = [line for line in trial.lines if "slices" in (line.compare or {})]
    if sliced:  # the last is of the text that no choice was made on
        write_measured_card(sliced[-1], stage.result / BUNDLE, stage.result / CARD)
    found = _report(job, search, trial)
    chosen = Delivered(trial.lines[0].subject.manifest_sha256, why_delivered(found))
    write_atomic(stage.result / FRONT, render_report(_front(search), chosen=chosen).encode())
    write_json(stage.result / REPORT, {**found, "files": hash_tree(stage.result)})
    stage.publish()
    return found


def why_delivered(found: dict[str, Any]) -> str:
    """The budgets that the delivered trial keeps, and its figures of what is held out, for the page."""
    kind = "smallest" if found["objective"] == DISK.name else "best"
    shown = [f"{name} {quantity_of(name).shown(value)}" for name, value in found["held_out"].items()]
    judged = {
        APART: f"{', '.join(shown)} where no choice was made",
        CHOSEN_BY: f"{', '.join(shown)} where better trials were refused",
        NOT_READ: "not judged on what is held out",
    }[found["held_out_status"]]
    return f"delivered: the {kind} of those that keep {', '.join(found['budgets'])}, as measured; {judged}"


def _copy_calibration(source: str, result: Path) -> None:
    """What the recipe is repeated with, unless everyone has it."""
    if Path(source).is_dir():
        shutil.copytree(source, result / Path(source).name)
    elif source not in CORPORA:
        shutil.copyfile(source, result / Path(source).name)


def _front(search: Search) -> list[Measurement]:
    """The lines of the trials by which was searched, under their numbers."""
    numbered = list(enumerate(search.trials, 1))
    numbered.sort(key=lambda one: (excess(one[1], search.budgets), search.choices.cost(one[1].measured)))
    found = []
    for number, trial in sorted(numbered[:_ON_PAGE], key=lambda one: one[0]):
        name = f"trial {number}: {trial.method.name}"
        if (cut := trial.method.cut) in SOLVED_CUTS:
            name += f" ({search.choices.spaces.profile(cut).line(search.choices.spaces.cuts)})"
        # The page names versions by their scheme, which is alike of all trials.
        named: dict[str, Any] = {"name": name, "scheme": name, "layers": [], "recipe": None}
        for line in trial.lines:
            if not _is_held_out(line):
                subject = line.subject.model_copy(update=named)
                found.append(line.model_copy(update={"subject": subject}))
    return found


def _is_held_out(line: Measurement) -> bool:
    return Path(str(line.workload.get("text"))).stem == _HELD_OUT


def _report(job: Job, search: Search, trial: Trial) -> dict[str, Any]:
    wish, budgets, space = job.wish, job.wish.budgets, search.choices.spaces.of(trial.method.space)
    # What another budget would bring, of all candidates: a packaged recipe has none.
    whole = search.choices.spaces.of(trial.method.behind)
    given, option = job.texts.calibration, OPTIONS[read_by(job.source.anatomy)]
    own = [] if given in CORPORA else [option, Path(given).name]
    own += [word for one in search.setting.protected(trial.recipe) for word in ("--protect", one.name)]
    held_out = [qualities(line, budgets) for line in trial.lines if _is_held_out(line)]
    judged = [number for number, one in enumerate(search.trials, 1) if any(map(_is_held_out, one.lines))]
    return {
        "schema": SCHEMA,
        "version": __version__,
        "model": job.resolved.described,
        "budgets": [one.shown() for one in budgets],
        "measured": trial.measured,
        "judged": space.judged.name,
        "held_out": held_out[0] if held_out else {},
        "held_out_status": CHOSEN_BY if len(judged) > 1 else APART if judged else NOT_READ,
        "held_out_trials": judged,
        "documents": {**job.texts.documents, "repeated": job.texts.repeated},
        "objective": search.choices.objective,
        "gap": search.gap,
        "repeat": ["edgepress", "compress", wish.model, "-r", RECIPE, *own, "-o", "checkpoint"],
        "trials": [_described(search, number) for number in range(len(search.trials))],
        "chosen": search.trials.index(trial) + 1,
        "why_no_more": reasons(search.refusals),
        "bits": strips(search.choices.spaces.source_of(trial.method.space), space, trial.options),
        "cut": search.choices.spaces.said(trial.method.cut),
        "units": units_of(space, trial.options),
        "prices": [one.shown() for one in prices(whole, search.choices.corrections, trial.method, budgets)],
    }


def reasons(refusals: Sequence[str]) -> list[str]:
    """``METHOD: why`` of each, where methods with the same reason share a line."""
    methods: dict[str, list[str]] = {}
    for one in refusals:
        method, _, why = one.partition(": ")
        methods.setdefault(why or one, []).append(method)
    return [why if why in refusals else f"{'; '.join(them)}: {why}" for why, them in methods.items()]


def _described(search: Search, number: int) -> dict[str, Any]:
    trial = search.trials[number]
    return {
        "number": number + 1,
        "key": trial.key,
        "method": trial.method.name,
        "predicted": trial.predicted,
        "measured": trial.measured,
        "excess": excess(trial, search.budgets),
        "misses": [one.shown() for one in trial.broken(search.budgets)],
        "seconds": trial.seconds,
    }


@dataclass(frozen=True)
class Price:
    """What is ``judged`` would be ``then`` and not as ``now``, as predicted, were the bound of ``budget``
    another ``bound``; None where no choice keeps it.
    """

    judged: Quantity
    budget: Budget
    bound: float
    now: float
    then: float | None

    def shown(self) -> str:
        """In a line."""
        quantity = self.budget.quantity
        moved = (
            f"{quantity.name} {quantity.shown(self.bound)} in place of {quantity.shown(self.budget.bound)}"
        )
        if self.then is None:
            return f"{moved}: no choice keeps that"
        judged = self.judged
        return f"{moved} would take {judged.name} from {judged.shown(self.now)} to {judged.shown(self.then)}"


def prices(space: Space, corrections: Corrections, method: Method, budgets: Sequence[Budget]) -> list[Price]:
    """A tenth more and less of each budget but those of quality, as shadow prices: by solving again."""
    judged, found = space.judged, []
    others = [one for one in budgets if not one.quantity.of_quality]
    lost = damages_by(space, method)
    now = solve_any(lost, corrections.limits(space, others, method))
    if isinstance(now, Infeasible):
        return []
    for index, budget in enumerate(others):
        for step in (1 + _STEP, 1 - _STEP):
            moved = replace(budget, bound=step * budget.bound)
            sets = corrections.limits(space, [*others[:index], moved, *others[index + 1 :]], method)
            then = solve_any(lost, sets)
            first = damage_before(space, method)
            before = corrections.value(judged.name, method, first + now.damage)
            after = None
            if not isinstance(then, Infeasible):
                after = corrections.value(judged.name, method, first + then.damage)
            found.append(Price(judged, budget, moved.bound, before, after))
    return found


def units_of(space: Space, options: Sequence[int]) -> list[dict[str, Any]]:
    """By unit: its scheme, bytes, and the share of the predicted damage that it has."""
    chosen = space.chosen(options)
    total = sum(option.damage for _, option in chosen) or 1.0
    return [
        {
            "unit": unit.name,
            "scheme": option.name,
            "bytes": round(option.size),
            "share_of_damage": option.damage / total,
        }
        for unit, option in chosen
    ]


def strips(source: WeightSource, space: Space, options: Sequence[int]) -> list[str]:
    """The bits of linears, a line a kind, a digit a block; and the tables, if there are any."""
    chosen = space.chosen(options)
    schemes = {
        name: option.scheme
        for unit, option in chosen
        if not unit.is_table and option.scheme is not None
        for name in unit.modules
    }
    tables = [f"{unit.name} {option.name}" for unit, option in chosen if unit.is_table]
    return [*strip(source.anatomy, schemes), *([", ".join(tables)] if tables else [])]
