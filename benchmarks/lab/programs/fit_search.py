"""The front that ``fit --trials`` finds, beside that of random search with as many trials.

    python -m edgepress.benchmarks.lab.programs.fit_search MODEL TEXT WORK --max-disk BYTES [--trials N]

Both sample the same space for a decoder, and the exact solver chooses its parts for either; random search has
no presets. Bundles are kept by their content in WORK, so that a further run goes on.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ....compress.pipeline.sealed import read_sealed, write_sealed
from ....fit.asked.wish import Wish
from ....fit.budgets import Budget
from ....fit.job import Job
from ....fit.method_space import PRESETS
from ....fit.outer_search import OuterSearch, by_parzen
from ....fit.quantities import DISK, KL
from ....terminal import Silent
from ..study.page import write_table

COMMAND = "python -m edgepress.benchmarks.lab.programs.fit_search MODEL TEXT WORK --max-disk BYTES"
Points = list[tuple[float, float]]


def at_random(seed: int) -> Any:
    """The sampler of random search."""
    import optuna

    return optuna.samplers.RandomSampler(seed=seed)


SEARCHES = {"Optuna": (by_parzen, PRESETS), "random": (at_random, ())}


def points(job: Job, name: str, seed: int, trials: int) -> Points:
    """Bytes and the logarithm of KL of the trials of a search that keep the budget."""
    kept = job.directory / f"{name}-{seed}-{trials}.json"
    if (known := read_sealed(kept)) is None:
        sampler, presets = SEARCHES[name]
        search = job.search(math.inf)
        journal = job.directory / f"{name}-{seed}-{trials}.journal"
        OuterSearch(search, journal, trials, seed, sampler, presets).work(leads=True)
        found = [trial.measured for trial in search.trials if not trial.broken(job.wish.budgets)]
        known = {"points": [[one[DISK.name], math.log(one[KL.name])] for one in found]}
        write_sealed(kept, known)
    return [(size, damage) for size, damage in known["points"]]


def hypervolume(found: Sequence[tuple[float, float]], worst: tuple[float, float]) -> float:
    """The area between the front of ``found``, both coordinates the less the better, and ``worst``."""
    area, roof = 0.0, worst[1]
    for size, damage in sorted(found):
        if size < worst[0] and damage < roof:
            area += (worst[0] - size) * (roof - damage)
            roof = damage
    return area


def rows(job: Job, trials: int, seeds: int) -> list[list[str]]:
    """By seed the hypervolume of either search, as a fraction of the box of all points."""
    found = {(name, seed): points(job, name, seed, trials) for seed in range(seeds) for name in SEARCHES}
    sizes, damages = zip(*(point for one in found.values() for point in one), strict=True)
    worst = (max(sizes), max(damages))
    box = (worst[0] - min(sizes)) * (worst[1] - min(damages))
    lines = []
    for seed in range(seeds):
        areas = [hypervolume(found[name, seed], worst) / box for name in SEARCHES]
        best = [math.exp(min(damage for _, damage in found[name, seed])) for name in SEARCHES]
        shown = [f"{value:.3f}" for value in areas] + [f"{value:.4f}" for value in best]
        lines.append([str(seed), *shown])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("work", type=Path)
    parser.add_argument("--max-disk", type=float, required=True, metavar="BYTES")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/lab/results"))
    given = parser.parse_args()
    budgets = (Budget(DISK, given.max_disk),)
    wish = Wish(
        given.model, budgets, given.text, samples=given.samples, length=given.length, threads=1, trials=1
    )
    wish.check()
    given.work.mkdir(parents=True, exist_ok=True)
    job = Job(wish, given.work, Silent())
    write_table(
        given.results / "fit.md",
        "Optuna beside random search",
        COMMAND,
        ["seed", "hypervolume, Optuna", "hypervolume, random", "least KL, Optuna", "least KL, random"],
        rows(job, given.trials, given.seeds),
        [
            f"{given.trials} trials each of {job.resolved.name} within {DISK.shown(given.max_disk)}; two "
            "thirds round alone. Samples that give a recipe which was tried cost neither search a trial.",
            "Hypervolume of bytes and log KL as a fraction of the box of all points; KL on development text.",
        ],
        page="Budgets",
    )


if __name__ == "__main__":
    main()
