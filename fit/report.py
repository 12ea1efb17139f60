"""What is delivered: the bundle, its recipe, the measured lines, and the report of every trial."""

from __future__ import annotations

import shutil
from typing import Any

from .. import __version__
from ..benchmarks.records import record as records
from ..compress.text.corpus import CORPORA
from ..staging import Staging
from ..storage import hash_tree, write_atomic, write_json
from .budgets import KL
from .explain import prices, strips, units_of
from .job import Job
from .search import Search, excess
from .trials import BUNDLE, RECIPE, Trial, recipe_text

REPORT, RUNS, SCHEMA = "fit.json", "runs.jsonl", "edgepress.fit/1"


def deliver(job: Job, search: Search, trial: Trial, stage: Staging) -> dict[str, Any]:
    """Publish the trial with the report."""
    shutil.rmtree(stage.result, ignore_errors=True)
    stage.result.mkdir()
    shutil.copytree(trial.bundle, stage.result / BUNDLE)
    write_atomic(stage.result / RECIPE, recipe_text(trial.recipe).encode())
    if job.texts.calibration not in CORPORA:
        shutil.copyfile(job.texts.calibration, stage.result / "calibration.jsonl")
    for line in trial.lines:
        records.append(stage.result / RUNS, line)
    found = _report(job, search, trial)
    write_json(stage.result / REPORT, {**found, "files": hash_tree(stage.result)})
    stage.publish()
    return found


def _report(job: Job, search: Search, trial: Trial) -> dict[str, Any]:
    wish, budgets = job.wish, job.wish.budgets
    own = [] if job.texts.calibration in CORPORA else ["--text", "calibration.jsonl"]
    held_out = [
        line.metrics[KL.metric].value for line in trial.lines if line.workload.get("text") == "held-out.jsonl"
    ]
    return {
        "schema": SCHEMA,
        "version": __version__,
        "model": job.resolved.described,
        "budgets": [one.shown() for one in budgets],
        "measured": trial.measured,
        "held_out": {KL.name: held_out[0]} if held_out else {},
        "objective": search.objective,
        "gap": search.gap,
        "repeat": ["edgepress", "compress", wish.model, "-r", RECIPE, *own, "-o", "checkpoint"],
        "trials": [_described(search, number) for number in range(len(search.trials))],
        "chosen": search.trials.index(trial) + 1,
        "why_no_more": search.refusals,
        "bits": strips(job.source, search.space, trial.options),
        "units": units_of(search.space, trial.options),
        "prices": [one.shown() for one in prices(search.space, search.corrections, trial.method, budgets)],
    }


def _described(search: Search, number: int) -> dict[str, Any]:
    trial = search.trials[number]
    return {
        "number": number + 1,
        "key": trial.key,
        "method": trial.method,
        "predicted": search.predictions[number],
        "measured": trial.measured,
        "excess": excess(trial, search.budgets),
        "seconds": trial.seconds,
    }
