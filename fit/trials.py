"""``Trial``: a recipe that is compressed, exported with its proof, and measured, in a directory whose name is
the hash of all that decides on it. Each step of it is whole or not there: a killed trial goes on after the
last one, and none runs twice.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .. import __version__
from ..benchmarks.quality.subgroups.items import kept_for_calibration
from ..benchmarks.quality.validate import validate_bundle
from ..benchmarks.records.record import Measurement
from ..benchmarks.speed.elsewhere import Request
from ..benchmarks.speed.protocol import Protocol
from ..benchmarks.speed.side_by_side import SideBySide
from ..compress.api import compress_model
from ..compress.pipeline.sealed import read_sealed, write_sealed
from ..compress.recipe import parse
from ..compress.text.protected_text import ProtectedText
from ..devices.own_devices import HERE, own_device
from ..export.api import export_bundle
from ..runtime.bundle.bundle import Bundle
from ..storage import sha256_json, write_atomic
from ..terminal import Progress
from .asked.texts import Texts
from .budgets import Budget
from .figures import of_device, originals, qualities
from .latency import BATCH, NEW_TOKENS, timed_lengths
from .methods import Method
from .quantities import DISK, ENERGY

RECIPE, BUNDLE = "recipe.yaml", "bundle"
_SENTENCES = 256  # of a text, or rows with labels


@dataclass(frozen=True)
class Setting:
    """What all trials of a run share.

    Attributes:
        model: as the user named it; ``fingerprint``: of its weights.
        calibration: samples, length and seed, as a recipe has them. windows: of text in a measurement of
            a decoder's quality, each as long.
        budgets: which decide on what is measured on which devices.
    """

    model: str
    fingerprint: str
    texts: Texts
    calibration: Mapping[str, int]
    windows: int
    budgets: Sequence[Budget]
    threads: int | None = None
    device: str = "auto"

    def key_of(self, recipe: Mapping[str, Any]) -> str:
        """The hash of all that decides on a trial."""
        how = [__version__, self.fingerprint, recipe, self.texts.hashes, self.windows, self.device]
        return sha256_json([*how, [one.sha256 for one in self.protected(recipe)]])

    def protected(self, recipe: Mapping[str, Any]) -> list[ProtectedText]:
        """What the slices of budgets keep for calibration, which is never measured, where ``recipe`` reads
        text.
        """
        if not parse(dict(recipe), RECIPE).calibrated:
            return []
        return [text for name in self.slices if (text := kept_for_calibration(name)) is not None]

    @property
    def devices(self) -> list[str]:
        """Those that something is measured on."""
        return list(dict.fromkeys(str(one.device) for one in self.budgets if one.quantity.on_device))

    @property
    def slices(self) -> list[str]:
        """Those whose worst group a budget is about."""
        return list(dict.fromkeys(one.slice for one in self.budgets if one.slice is not None))


@dataclass(frozen=True)
class Trial:
    """The ``recipe`` and what came of it: ``measured`` by :attr:`.budgets.Budget.key`, the ``originals`` of
    each figure of quality, the ``lines`` that say so, and the ``seconds`` that it took.
    """

    key: str
    directory: Path
    method: Method
    options: tuple[int, ...]
    recipe: dict[str, Any]
    measured: dict[str, float] = field(default_factory=dict)
    originals: dict[str, float] = field(default_factory=dict)
    lines: list[Measurement] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def bundle(self) -> Path:
        """The artifact."""
        return self.directory / BUNDLE

    def broken(self, budgets: Sequence[Budget]) -> list[Budget]:
        """The budgets that it does not keep as measured."""
        return [budget for budget in budgets if not budget.holds(self.measured[budget.key])]


def run_trial(
    setting: Setting,
    options: Sequence[int],
    method: Method,
    recipe: dict[str, Any],
    folder: Path,
    progress: Progress,
) -> Trial:
    """Build and measure ``recipe`` in a directory below ``folder``, or read what an earlier run found there.

    Raises:
        GateFailed: the export does not do what the checkpoint does.
        EdgepressError: as compress, export, validate and profile.
    """
    key = setting.key_of(recipe)
    directory = folder / key[:16]
    directory.mkdir(parents=True, exist_ok=True)
    trial = Trial(key, directory, method, tuple(options), recipe)
    write_atomic(directory / RECIPE, recipe_text(recipe).encode())
    begun, clock = time.monotonic(), directory / "seconds.json"
    before = float((read_sealed(clock) or {}).get("seconds", 0.0))
    _build(setting, trial, progress)
    trial.measured[DISK.name] = float(Bundle.open(trial.bundle).disk_bytes)
    quality = quality_of(setting, trial, setting.texts.development, progress)
    trial.lines.append(quality)
    trial.measured.update(qualities(quality, setting.budgets))
    trial.originals.update(originals(quality, setting.budgets))
    for name, line in _on_devices(setting, trial, progress).items():
        trial.lines.append(line)
        trial.measured.update(of_device(name, line, setting.budgets))
    seconds = before + time.monotonic() - begun
    if before == 0.0:
        write_sealed(clock, {"seconds": seconds})
    return Trial(**{**vars(trial), "seconds": before or seconds})


def recipe_text(recipe: Mapping[str, Any]) -> str:
    """As a file."""
    return yaml.safe_dump(dict(recipe), sort_keys=False)


def quality_of(setting: Setting, trial: Trial, text: Path, progress: Progress) -> Measurement:
    """The bundle against the original on ``text``, measured once; its replies are not. Of slices one half is
    for the development text, the other for the held-out text.
    """
    kept = trial.directory / f"{'-'.join([text.stem, *setting.slices])}.json"
    if (known := read_sealed(kept)) is not None:
        return Measurement.model_validate(known)
    line = validate_bundle(
        trial.bundle,
        setting.model,
        text=text,
        windows=setting.windows,
        length=setting.calibration["length"],
        sentences=_SENTENCES,
        replies=False,
        slices=setting.slices,
        half=int(text == setting.texts.held_out),
        threads=setting.threads,
        progress=progress,
    )
    write_sealed(kept, line.model_dump(by_alias=True, mode="json"))
    return line


def _build(setting: Setting, trial: Trial, progress: Progress) -> None:
    """The bundle; the checkpoint that it is made of goes once it is there."""
    checkpoint = trial.directory / "checkpoint"
    if not trial.bundle.exists():
        if not checkpoint.exists():
            compress_model(
                setting.model,
                output=checkpoint,
                recipe=str(trial.directory / RECIPE),
                calibration=setting.texts.calibration,
                protect=setting.protected(trial.recipe),
                device=setting.device,
                requantize=True,
                progress=progress,
            )
        export_bundle(checkpoint, output=trial.bundle, progress=progress)
    shutil.rmtree(checkpoint, ignore_errors=True)


def _workload(trial: Trial, progress: Progress) -> dict[str, int]:
    """Tokens of what is timed; a model that writes less is said to."""
    read, written = timed_lengths(Bundle.open(trial.bundle))
    if written < NEW_TOKENS:
        progress.note(f"timed with {written} new tokens, the most that fit the model")
    return {"prompt_tokens": read, "new_tokens": written}


def _on_devices(setting: Setting, trial: Trial, progress: Progress) -> dict[str, Measurement]:
    """The line of each device that a budget names, measured once."""
    found, left = {}, []
    counted = [one for one in setting.budgets if one.quantity is ENERGY and one.watts is None]
    kept = {name: f"device-{name}{'-energy' * bool(counted)}.json" for name in setting.devices}
    for name in setting.devices:
        known = read_sealed(trial.directory / kept[name])
        if known is None:
            left.append(name)
        else:
            found[name] = Measurement.model_validate(known)
    if left:
        options = {"energy": bool(counted), "threads": setting.threads, "provider": "cpu", "per_op": False}
        options |= {**_workload(trial, progress), "batch": BATCH}
        # Memory does not depend on whether the machine is cool and quiet.
        request = Request((trial.bundle,), Protocol.quick(), options, "edgepress fit", settle_s=0.0)
        places = SideBySide(request, trial.directory / "profile.jsonl", progress)
        places.run([None if name in HERE else own_device(name) for name in left])
        if (failure := places.failure()) is not None:
            raise failure
        for name, line in places.lines.items():
            write_sealed(trial.directory / kept[name], line.model_dump(by_alias=True, mode="json"))
            found[name] = line
    return found
