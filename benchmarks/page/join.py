"""Measurement lines → rows of a table: one row per artifact, grouped by the model it was made from.

Lines are compared only when they were taken under the same conditions: quality on the same text, latency with
the same workload, threads and machine. A group shows the conditions that most of its rows share; what was
measured under others follows as groups of its own (``further``), never mixed in. Quality does not depend on
the device: each device, workload and number of threads has a group with the quality of what ran there. Within
the same conditions the newest line of a subject replaces the older ones whole, so that no table picks the
best number of several runs.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ...files.storage import canonical_json
from ..records.record import Measurement, Subject
from .result_groups import ASPECTS, Aspect, Delivered, ResultGroup, ResultRow, aspect_of

FLOAT_SCHEMES = ("fp32", "fp16", "bf16")


def conditions(line: Measurement) -> str:
    """What must be equal for two lines to stand in one table, as canonical text.

    The type of a cache is not: it is a part of what is compared, as the scheme of the weights is.
    """
    fixed: dict[str, Any] = {"workload": {**line.workload, "kv_dtype": None}}
    if aspect_of(line) == "latency":
        fixed["threads"] = line.runtime.get("threads")
        # Of two machines of one make each has the name that its owner gave it.
        fixed["device"] = [line.device.get("fingerprint") or line.device, line.device.get("name")]
    return canonical_json(fixed)


def join(lines: Sequence[Measurement], chosen: Delivered | None = None) -> list[ResultGroup]:
    """ResultGroup ``lines`` by model, decoders first; within a group baselines come first, then from large to
    small. ``chosen``: the version that was delivered.
    """
    groups = [_with_chosen(_group(members), chosen) for members in _by_model(lines)]
    return sorted(groups, key=lambda group: group.kind)


def _with_chosen(group: ResultGroup, chosen: Delivered | None) -> ResultGroup:
    return replace(group, chosen=chosen, further=tuple(_with_chosen(one, chosen) for one in group.further))


def _by_model(lines: Sequence[Measurement]) -> list[list[Measurement]]:
    """Lines connected by an artifact, a baseline or a source, in order of first appearance."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    for line in lines:
        for subject in _subjects(line):
            keys = [f"{subject.kind} artifact {subject.manifest_sha256}"]
            keys += [f"{subject.kind} source {subject.source}"] if subject.source else []
            for key in keys:
                parent[root(key)] = root(f"{line.subject.kind} artifact {line.subject.manifest_sha256}")
    found: dict[str, list[Measurement]] = defaultdict(list)
    for line in lines:
        found[root(f"{line.subject.kind} artifact {line.subject.manifest_sha256}")].append(line)
    return list(found.values())


def _subjects(line: Measurement) -> list[Subject]:
    return [line.subject] if line.baseline is None else [line.subject, line.baseline]


def _group(lines: list[Measurement]) -> ResultGroup:
    reference = _reference(lines)
    source = _source(lines, reference)
    kind, newest = lines[0].subject.kind, _newest(lines)
    quality, *other_texts = _by_conditions(newest, "quality") or [[]]
    latency, *elsewhere = _by_conditions(newest, "latency") or [[]]
    tables = [[*_quality_of(timed, quality, _baselines(lines)), *timed] for timed in elsewhere]
    further = [
        ResultGroup(source, kind, _rows(table, lines, False), reference) for table in [*tables, *other_texts]
    ]
    shown = _rows([*quality, *latency], lines, True)
    return ResultGroup(source, kind, shown, reference, tuple(further))


def _quality_of(
    timed: Sequence[Measurement], quality: Sequence[Measurement], baselines: set[str]
) -> list[Measurement]:
    """The quality of what was timed, and of the originals."""
    shown = {line.subject.manifest_sha256 for line in timed} | baselines
    return [line for line in quality if line.subject.manifest_sha256 in shown]


def _newest(lines: Iterable[Measurement]) -> list[Measurement]:
    """The newest line of each subject under each set of conditions; the later in the file wins a tie."""
    kept: dict[tuple[str, str], Measurement] = {}
    for line in lines:
        key = (line.subject.manifest_sha256, conditions(line))
        if key not in kept or line.created_utc >= kept[key].created_utc:
            kept[key] = line
    return list(kept.values())


def _by_conditions(lines: list[Measurement], aspect: Aspect) -> list[list[Measurement]]:
    """The lines under each set of conditions, first those that most subjects share; the newer win a tie."""
    found: dict[str, list[Measurement]] = defaultdict(list)
    for line in lines:
        if aspect_of(line) == aspect:
            found[conditions(line)].append(line)
    return sorted(
        found.values(), key=lambda alike: (len(alike), max(line.created_utc for line in alike)), reverse=True
    )


def _rows(shown: list[Measurement], every: list[Measurement], with_unmeasured: bool) -> tuple[ResultRow, ...]:
    subjects: dict[str, Subject] = {}
    for line in every:
        for subject in _subjects(line):
            subjects[subject.manifest_sha256] = _merge(subjects.get(subject.manifest_sha256), subject)
    baselines = _baselines(every)
    rows = []
    for identity, subject in subjects.items():
        lines = tuple(line for line in shown if line.subject.manifest_sha256 == identity)
        if lines or with_unmeasured:
            rows.append(ResultRow(subject, identity in baselines, lines))
    return tuple(
        sorted(rows, key=lambda row: (not row.is_baseline, -row.subject.disk_bytes, row.subject.name))
    )


def _merge(older: Subject | None, newer: Subject) -> Subject:
    """The newer description of an artifact, with what it left out from the older."""
    if older is None:
        return newer
    changes = {
        "layers": newer.layers or older.layers,
        "recipe": newer.recipe or older.recipe,
        "source": newer.source or older.source,
    }
    return newer.model_copy(update=changes)


def _baselines(lines: Iterable[Measurement]) -> set[str]:
    """Uncompressed artifacts; where there are none, those that others were measured against."""
    lines = list(lines)
    floats = {s.manifest_sha256 for line in lines for s in _subjects(line) if s.scheme in FLOAT_SCHEMES}
    return floats or {line.baseline.manifest_sha256 for line in lines if line.baseline is not None}


def _reference(lines: list[Measurement]) -> Subject | None:
    """The original that sizes are compared with: the baseline of quality before the baseline of latency."""
    baselines = _baselines(lines)
    ordered = sorted(lines, key=lambda line: ASPECTS.index(aspect_of(line)))
    against = [line.baseline for line in ordered if line.baseline is not None]
    return next(
        (s for s in (*against, *(line.subject for line in ordered)) if s.manifest_sha256 in baselines), None
    )


def _source(lines: list[Measurement], reference: Subject | None) -> str:
    named = Counter(line.subject.source for line in lines if line.subject.source)
    if named:
        return named.most_common(1)[0][0]
    return (reference or lines[0].subject).name
