"""The front that ``fit --trials`` finds, beside that of random search with as many trials.

    python -m edgepress.benchmarks.lab.programs.fit_search MODEL TEXT WORK --max-disk BYTES [--trials N]

Both sample the same space, and the exact solver chooses the parts of the model for either; random search has
no first trials that are given, neither packaged recipes nor the usual ways. Bundles are kept by their content
in WORK: a recipe that another seed or the other search has tried is read, not built again, and a further run
goes on. With ``--sentences N`` so many short ones, spread over TEXT, are the text: these are soon measured.
"""

import argparse
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ....compress.pipeline.journal import read_sealed, write_sealed
from ....compress.text.corpus import paragraphs, read_corpus
from ....errors import InputError
from ....files.storage import write_atomic
from ....fit.asked.wish import Wish
from ....fit.budgets import Budget
from ....fit.job import Job
from ....fit.outer.method_space import PRESETS
from ....fit.outer.outer_search import OuterSearch, by_parzen
from ....fit.quantities import DISK, Quantity
from ....terminal.progress import Silent
from ..study.page import write_table

COMMAND = "python -m edgepress.benchmarks.lab.programs.fit_search MODEL TEXT WORK"
Points = list[tuple[float, float]]
Known = dict[str, Any]
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def at_random(seed: int) -> Any:
    """The sampler of random search."""
    import optuna

    return optuna.samplers.RandomSampler(seed=seed)


SEARCHES = {"Optuna": (by_parzen, PRESETS), "random": (at_random, ())}


def sentences(source: str, count: int, folder: Path) -> str:
    """A file in ``folder`` with ``count`` sentences of 8 to 24 words of the text, a paragraph each."""
    whole = [part for text in read_corpus(source).texts() for part in paragraphs(text)]
    single = [one for part in whole for one in _SENTENCE.split(part) if 8 <= len(one.split()) <= 24]
    distinct = list(dict.fromkeys(single))
    if len(distinct) < count:
        raise InputError(f"{source} has {len(distinct)} short sentences", fix=f"--sentences {len(distinct)}")
    chosen = [distinct[index * len(distinct) // count] for index in range(count)]
    path = folder / "sentences.txt"
    write_atomic(path, "\n\n".join(chosen).encode())
    return str(path)


def searched(job: Job, name: str, seed: int, trials: int) -> Known:
    """What a search found: ``points``, bytes and loss of the trials that keep the budget; and ``seconds`` of
    all of its trials, by their keys.
    """
    kept = job.directory / f"{name}-{seed}-{trials}.json"
    if (known := read_sealed(kept)) is None:
        sampler, presets = SEARCHES[name]
        search = job.search(math.inf)
        journal = job.directory / f"{name}-{seed}-{trials}.journal"
        OuterSearch(search, journal, trials, seed, sampler, presets).work(leads=True)
        judged = search.space.judged
        found = [trial.measured for trial in search.trials if not trial.broken(job.wish.budgets)]
        known = {
            "points": [[one[DISK.name], judged.lost(one[judged.name])] for one in found],
            "seconds": {trial.key: trial.seconds for trial in search.trials},
        }
        write_sealed(kept, known)
    return known


def points(known: Known) -> Points:
    """Bytes and the logarithm of the loss."""
    return [(size, math.log(loss)) for size, loss in known["points"]]


def hypervolume(found: Sequence[tuple[float, float]], worst: tuple[float, float]) -> float:
    """The area between the front of ``found``, both coordinates the less the better, and ``worst``."""
    area, roof = 0.0, worst[1]
    for size, damage in sorted(found):
        if size < worst[0] and damage < roof:
            area += (worst[0] - size) * (roof - damage)
            roof = damage
    return area


def rows(found: Mapping[tuple[str, int], Points], judged: Quantity) -> list[list[str]]:
    """By seed the hypervolume of either search, as a fraction of the box of all points, and its best."""
    sizes, losses = zip(*(point for one in found.values() for point in one), strict=True)
    worst = (max(sizes), max(losses))
    box = (worst[0] - min(sizes)) * (worst[1] - min(losses))
    lines = []
    for seed in sorted({seed for _, seed in found}):
        areas = [hypervolume(found[name, seed], worst) / box for name in SEARCHES]
        best = [judged.after(math.exp(min(loss for _, loss in found[name, seed]))) for name in SEARCHES]
        lines.append([str(seed), *(f"{value:.3f}" for value in areas), *(f"{value:.4f}" for value in best)])
    return lines


def cost(known: Iterable[Known]) -> str:
    """How many trials were built for how many that the searches took, and how long that was."""
    taken = [one["seconds"] for one in known]
    built = {key: seconds for one in taken for key, seconds in one.items()}
    return (
        f"{sum(map(len, taken))} trials of all searches, {len(built)} of them built: one that another seed "
        f"or the other search had tried was read. {sum(built.values()) / 60:.0f} minutes."
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("work", type=Path)
    parser.add_argument("--max-disk", type=float, required=True, metavar="BYTES")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--sentences", type=int)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/lab/results"))
    return parser.parse_args()


def job_of(given: argparse.Namespace) -> Job:
    """What both searches share."""
    given.work.mkdir(parents=True, exist_ok=True)
    text = sentences(given.text, given.sentences, given.work) if given.sentences else given.text
    budgets = (Budget(DISK, given.max_disk),)
    sizes = {"samples": given.samples, "length": given.length}
    wish = Wish(given.model, budgets, text, threads=1, trials=1, **sizes)
    wish.check()
    return Job(wish, given.work, Silent())


def options_of(given: argparse.Namespace) -> str:
    """As they were given, but for paths."""
    names = ("max_disk", "trials", "seeds", "samples", "length", "sentences")
    found = {name: getattr(given, name) for name in names}
    shown = {name: f"{value:.0f}" for name, value in found.items() if value is not None}
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in shown.items())


def main() -> None:
    given = arguments()
    job = job_of(given)
    tried = [(name, seed) for seed in range(given.seeds) for name in SEARCHES]
    known = {(name, seed): searched(job, name, seed, given.trials) for name, seed in tried}
    judged = job.spaces().of().judged
    write_table(
        given.results / "fit.md",
        f"Optuna beside random search: {job.resolved.name}",
        f"{COMMAND} {options_of(given)}",
        [
            "seed",
            *(f"{what}, {name}" for what in ("hypervolume", f"best {judged.name}") for name in SEARCHES),
        ],
        rows({key: points(one) for key, one in known.items()}, judged),
        [
            f"{given.trials} trials each within {DISK.shown(given.max_disk)}; two thirds round alone. "
            "Samples that give a recipe which was tried cost neither search a trial.",
            f"Hypervolume of bytes and the logarithm of what is lost of {judged.name}, as a fraction of the "
            "box of all points, on development text.",
            cost(known.values()),
        ],
        page="Budgets",
    )


if __name__ == "__main__":
    main()
