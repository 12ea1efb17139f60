"""The report's sections as plain data, worked out before the template runs, and what they do not say."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...files.storage import sha256_json
from ..records.conditions import Facts, clip, conduct, describe, environments, megabytes
from ..records.record import Measurement
from . import predicted
from . import results_table as table
from .account_table import AccountTable, Grid, energy_tables, why_uncounted
from .breakdowns import (
    accounts,
    curve_figures,
    damage_figures,
    time_figures,
    width_figures,
)
from .conclusion import sentences
from .device_table import DeviceTable, device_names, device_table, views
from .headline import headline
from .plots import plots, predicted_plots
from .result_groups import ENERGY, OF_IMAGES, ResultGroup, aspect_of
from .slice_chart import slice_figures
from .svg import Figure
from .tiles import Tile, tiles

LONGEST_COMMAND = 2000
MOST_ANSWERS, LONGEST_REPLY = 3, 600


@dataclass(frozen=True)
class Evidence:
    """Where one line of measurement comes from: the artifact, when, how, and whether it may be used."""

    subject: str
    aspect: str
    created: str
    status: str
    reasons: tuple[str, ...]
    conditions: str


@dataclass(frozen=True)
class Artifact:
    """The identity of one row."""

    label: str
    name: str
    sha256: str
    facts: str


@dataclass(frozen=True)
class Answers:
    """The replies to one prompt: whose, and the text."""

    prompt: str
    replies: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Section:
    """One model, from the verdict down to the hashes."""

    anchor: str
    source: str
    kind: str
    heading: str
    verdict: tuple[str, ...]
    tiles: tuple[Tile, ...]
    headline: str
    devices: DeviceTable
    answers: tuple[Answers, ...]
    tables: tuple[tuple[str, str, table.Table], ...]
    plots: tuple[Figure, ...]
    predicted: tuple[AccountTable, ...]
    slices: tuple[Figure, ...]
    damage: tuple[Figure, ...]
    widths: tuple[Figure, ...]
    learning: tuple[Figure, ...]
    time: tuple[Figure, ...]
    accounts: tuple[tuple[str, list[AccountTable]], ...]
    energy: tuple[AccountTable, ...]
    gaps: str
    environments: tuple[Facts, ...]
    evidence: tuple[Evidence, ...]
    commands: tuple[str, ...]
    artifacts: tuple[Artifact, ...]


_HEADINGS = {
    "decoder": "Text generation",
    "encoder": "Sentence embeddings",
    "classifier": "Labels of texts",
    f"encoder{OF_IMAGES}": "Embeddings of images",
    f"classifier{OF_IMAGES}": "Labels of images",
}


def section(
    group: ResultGroup, number: int, predictions: Sequence[predicted.Predicted] = (), grid: Grid | None = None
) -> Section:
    """Everything the page says about one model."""
    anchor = f"m{number}"
    lead, elsewhere = headline(group), predicted.devices(group, predictions)
    every = (group, *group.further)
    lines = [line for one in every for row in one.rows for line in row.lines]
    return Section(
        anchor,
        group.source,
        group.kind,
        _HEADINGS[group.shown],
        tuple(sentences(group)),
        tuple(tiles(group)),
        lead.subject.scheme if lead is not None else "",
        device_table(group, elsewhere),
        tuple(_answers(group)),
        tuple(_tables(group)),
        (*plots(group, anchor), *predicted_plots(group, elsewhere, anchor)),
        tuple(predicted.tables(group, elsewhere)),
        tuple(slice_figures(group, anchor)),
        tuple(damage_figures(group, anchor)),
        tuple(width_figures(group, anchor)),
        tuple(curve_figures(group, anchor)),
        tuple(time_figures(group, anchor)),
        tuple(accounts(group)),
        tuple(found for one in every for found in energy_tables(one, grid)),
        not_measured(group),
        tuple(environments(lines)),
        tuple(_evidence(lines)),
        _commands(lines),
        tuple(_artifacts(group)),
    )


def _answers(group: ResultGroup) -> list[Answers]:
    """What the original and each version reply to the same prompts."""
    replies: dict[str, dict[str, str]] = {}
    for row in group.compressed:
        line = row.line("quality")
        for answer in line.answers[:MOST_ANSWERS] if line is not None else []:
            found = replies.setdefault(answer.prompt, {"original": answer.original})
            found[row.subject.scheme] = answer.compressed
    return [
        Answers(clip(prompt), tuple((whose, clip(text, LONGEST_REPLY)) for whose, text in found.items()))
        for prompt, found in list(replies.items())[:MOST_ANSWERS]
    ]


def _tables(group: ResultGroup) -> list[tuple[str, str, table.Table]]:
    """A title, the conditions and the numbers: first of each device, then of other texts."""
    names = dict(zip(map(id, views(group)), device_names(group), strict=True))
    return [
        (
            f"Results on {names[id(one)]}" if id(one) in names else "Results",
            _conditions(one),
            table.build(one),
        )
        for one in (group, *group.further)
    ]


def _conditions(group: ResultGroup) -> str:
    examples = (group.example("quality"), group.example("latency"))
    return ". ".join(describe(line) for line in examples if line is not None)


def _evidence(lines: Iterable[Measurement]) -> list[Evidence]:
    return [
        Evidence(
            line.subject.scheme,
            aspect_of(line),
            line.created_utc,
            line.validity.status,
            tuple(clip(reason) for reason in line.validity.reasons),
            conduct(line),
        )
        for line in lines
    ]


def _commands(lines: Iterable[Measurement]) -> tuple[str, ...]:
    """Every command once, in the order of first use."""
    every = (command for line in lines for command in line.command.splitlines())
    return tuple(dict.fromkeys(clip(command, LONGEST_COMMAND) for command in every if command.strip()))


def _artifacts(group: ResultGroup) -> list[Artifact]:
    found = []
    for row in group.rows:
        subject = row.subject
        facts = [f"{megabytes(subject.disk_bytes)} MB", subject.format]
        facts += [f"{subject.params / 1e6:.1f} M parameters"] if subject.params else []
        facts += [f"recipe {sha256_json(subject.recipe)[:12]}"] if subject.recipe else []
        name, identity = clip(subject.name), clip(subject.manifest_sha256)
        found.append(Artifact(subject.scheme, name, identity, ", ".join(facts)))
    return found


_OF_VECTORS = (("cosine", "cosine to the original"), ("retrieval_at_1", "retrieval of passages"))
_OF_LABELS = (
    ("label_kl", "distance of the labels from the original's"),
    ("label_accuracy", "accuracy of the labels"),
)
_OF_TEXTS = (("sentences_per_second", "speed"), (ENERGY["encoder"].key, "energy"))
_OF_IMAGES = (("images_per_second", "speed"), (ENERGY[f"encoder{OF_IMAGES}"].key, "energy"))
EXPECTED: dict[str, tuple[tuple[str, str], ...]] = {
    "decoder": (
        ("perplexity", "perplexity"),
        ("kl", "KL to the original"),
        ("decode_tps", "decoding speed"),
        (ENERGY["decoder"].key, "energy"),
    ),
    "encoder": (*_OF_VECTORS, *_OF_TEXTS),
    "classifier": (*_OF_LABELS, *_OF_TEXTS),
    f"encoder{OF_IMAGES}": (*_OF_VECTORS, *_OF_IMAGES),
    f"classifier{OF_IMAGES}": (*_OF_LABELS, *_OF_IMAGES),
}

RELATIVE = ("kl", "cosine", "label_kl")


def not_measured(group: ResultGroup) -> str:
    """A sentence on what these numbers do not say."""
    gaps = []
    for metric, name in EXPECTED[group.shown]:
        lacking = [row.subject.scheme for row in group.compressed if row.reading(metric) is None]
        without_original = (
            metric not in RELATIVE
            and group.baselines
            and not any(row.reading(metric) for row in group.baselines)
        )
        lacking += ["the original"] if without_original else []
        if not any(row.reading(metric) for row in group.rows):
            gaps.append(name)
        elif lacking:
            gaps.append(f"{name} of {', '.join(dict.fromkeys(lacking))}")
    uncounted = "; ".join(why_uncounted(group))
    if uncounted and gaps and gaps[-1].startswith("energy"):
        gaps[-1] += f" ({uncounted})"
    always = ["downstream tasks", "any machine but those named above"]
    always += ["several sequences at once"] if group.kind == "decoder" else []
    return f"Not measured: {'; '.join([*gaps, *always])}."
