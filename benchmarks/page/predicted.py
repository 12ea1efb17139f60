"""Predictions beside measurements: what ``edgepress predict --json`` printed of the versions of a page.

They have columns, a table and plots of their own, and never stand in one column with what was measured. A
file of predictions is read as a stranger's text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...errors import InputError
from ...files.storage import canonical_json, read_json
from ..records import conditions
from ..records.conditions import clip
from . import results_table as table
from .account_table import AccountTable
from .result_groups import ResultGroup

MOST_BYTES = 4 << 20
_TOGETHER = ",\N{NO-BREAK SPACE}"
_SHOWN = {
    "decode_tps": ("decoding, tokens/s", 1.0),
    "prefill_tps": ("prompt, tokens/s", 1.0),
    "sentences_per_second": ("texts/s", 1.0),
    "images_per_second": ("images/s", 1.0),
    "rtfx": ("seconds of sound in one", 1.0),
    "ttft_ms": ("first token, ms", 1.0),
    "latency_ms": ("one text or image, ms", 1.0),
    "rss_peak_bytes": ("memory, MB", 1e-6),
    "disk_bytes": ("disk, MB", 1e-6),
    "decode_j_per_token": ("J/token, modelled", 1.0),
    "batch_j_per_sentence": ("J/text, modelled", 1.0),
    "batch_j_per_image": ("J/image, modelled", 1.0),
}


# Of the work what a model of each kind does not do.
_UNUSED = {"decoder": "batch", "encoder": "new_tokens", "classifier": "new_tokens"}


class Expected(BaseModel):
    """A quantity within its band; where ``value`` is None, ``high`` is the most that is possible."""

    model_config = ConfigDict(frozen=True)

    value: float | None = Field(ge=0, allow_inf_nan=False)
    low: float | None = Field(allow_inf_nan=False)
    high: float | None = Field(allow_inf_nan=False)


class Predicted(BaseModel):
    """Of one artifact on one target."""

    model_config = ConfigDict(frozen=True)

    artifact: str
    target: str
    basis: str
    source: str
    threads: int | None
    provider: str = Field("cpu", max_length=40)
    workload: dict[str, Any]
    quantities: dict[str, Expected] = Field(max_length=64)
    check: str
    notes: list[str] = Field(default_factory=list, max_length=64)


@dataclass(frozen=True)
class PredictedDevice:
    """What is predicted on one target, of the versions of one model by their identity."""

    name: str
    predictions: dict[str, Predicted]

    def quantity(self, identity: str, name: str) -> Expected | None:
        """Of the version ``identity``; None where neither it nor a bound is predicted."""
        found = self.predictions.get(identity)
        known = found.quantities.get(name) if found else None
        return None if known is None or (known.value is None and known.high is None) else known


def read_predictions(paths: Sequence[Path]) -> list[Predicted]:
    """What stands in files that ``edgepress predict --json`` wrote, but for plans: they have no artifact."""
    found = []
    for path in paths:
        data = read_json(path, limit=MOST_BYTES)
        try:
            listed = data["predictions"]
            found += [Predicted.model_validate(one) for one in listed if one.get("artifact")]
        except (KeyError, TypeError, AttributeError, ValidationError) as error:
            raise InputError(
                f"{path} holds no predictions",
                why=str(error)[:300],
                fix=f"make it: edgepress predict BUNDLE --on NAMES --json > {path.name}",
            ) from None
    return found


def devices(group: ResultGroup, predictions: Sequence[Predicted]) -> list[PredictedDevice]:
    """By target, threads, provider and work: the newest of each version of the model."""
    known = {row.subject.manifest_sha256 for row in group.rows}
    found: dict[str, list[Predicted]] = {}
    for one in predictions:
        if one.artifact in known:
            key = canonical_json([one.target, one.threads, one.provider, one.workload])
            found.setdefault(key, []).append(one)
    return [PredictedDevice(_name(of[0]), {one.artifact: one for one in of}) for of in found.values()]


def _name(one: Predicted) -> str:
    provider = "" if one.provider == "cpu" else f", {one.provider}"
    threads = f", {one.threads} thread{'s' * (one.threads != 1)}" if one.threads else ""
    return clip(one.target + threads + provider)


def banded(found: Expected | None, scale: float = 1.0) -> str:
    """``12 [9, 15]``, which breaks at most before its band; ``12`` without one; or ``≤ 15``."""
    if found is None or (found.value is None and found.high is None):
        return "–"
    if found.value is None:
        return f"≤ {conditions.significant(scale * (found.high or 0.0))}"
    value, *band = (
        conditions.significant(scale * one) for one in (found.value, found.low, found.high) if one is not None
    )
    return value if set(band) == {value} else f"{value} [{_TOGETHER.join(band)}]"


def tables(group: ResultGroup, predicted: Sequence[PredictedDevice]) -> list[AccountTable]:
    """One for each device: every quantity of every version with its band."""
    found = []
    for device in predicted:
        shown = [name for name in _SHOWN if any(device.quantity(key, name) for key in device.predictions)]
        rows = [
            (label, *(banded(device.quantity(identity, name), _SHOWN[name][1]) for name in shown))
            for identity, label in labelled(group)
            if identity in device.predictions
        ]
        of = list(device.predictions.values())
        first = of[0]
        notes = [clip(note) for note in first.notes if all(note in one.notes for one in of)]
        work = ", ".join(
            f"{name.replace('_', ' ')} {value}"
            for name, value in first.workload.items()
            if name != _UNUSED[group.kind]
        )
        sentences = [f"From a {first.basis}: {clip(first.source)}", clip(work), *notes]
        said = "".join(f"{one[:1].upper()}{one[1:]}. " for one in sentences)
        note = f"{said}Measure it: {clip(first.check)}"
        columns = ("version", *(_SHOWN[name][0] for name in shown))
        found.append(AccountTable(device.name, note, columns, tuple(rows)))
    return found


def labelled(group: ResultGroup) -> list[tuple[str, str]]:
    """Identity and label of every version."""
    names = table.short_labels(group)
    return [(row.subject.manifest_sha256, name) for row, name in zip(group.rows, names, strict=True)]
