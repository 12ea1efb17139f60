"""``Trial``: a recipe that is compressed, exported with its proof, and measured, in a directory whose name is
the hash of all that decides on it. Each step of it is whole or not there: a killed trial goes on after the
last one, and none runs twice.
"""

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from ..benchmarks.quality.validate import validate_bundle
from ..benchmarks.records.record import Measurement
from ..benchmarks.speed.elsewhere import Request
from ..benchmarks.speed.protocol import Protocol
from ..benchmarks.speed.side_by_side import SideBySide
from ..compress.api import compress_model
from ..compress.pipeline.journal import read_sealed, write_sealed
from ..devices.own_devices import HERE, own_device
from ..export.api import export_bundle
from ..files.storage import write_atomic
from ..runtime.bundle.bundle import Bundle
from ..terminal.progress import Progress
from .budgets import Budget
from .figures import of_device, originals, qualities
from .methods import Method
from .quantities import DISK
from .setting import RECIPE, Setting
from .speed.products import BATCH, NEW_TOKENS, timed_lengths

BUNDLE, CHOICE = "bundle", "choice.json"
_SENTENCES = 256  # of a text, or rows with labels
_FILE = "seconds.json"


@dataclass(frozen=True)
class Trial:
    """The ``recipe`` and what came of it: ``predicted`` and ``measured`` by :attr:`.budgets.Budget.key`, the
    ``originals`` of each figure of quality, the ``lines`` that say so, and the ``seconds`` that it took.
    """

    key: str
    directory: Path
    method: Method
    options: tuple[int, ...]
    recipe: dict[str, Any]
    predicted: dict[str, float] = field(default_factory=dict)
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
    predicted: Mapping[str, float],
    folder: Path,
    progress: Progress,
) -> Trial:
    """Build and measure ``recipe``, of which so much is ``predicted``, in a directory below ``folder``, or
    read what an earlier run found there.
    """
    key = setting.key_of(recipe)
    directory = directory_of(key, folder)
    directory.mkdir(parents=True, exist_ok=True)
    trial = Trial(key, directory, method, tuple(options), recipe, dict(predicted))
    write_atomic(directory / RECIPE, recipe_text(recipe).encode())
    choice = {"method": asdict(method), "options": trial.options, "predicted": trial.predicted}
    write_sealed(directory / CHOICE, choice)
    clock = TrialClock(directory)
    with nullcontext() if is_made(setting, directory) else clock.running():
        _measure(setting, trial, progress)
    return replace(trial, seconds=clock.seconds)


def directory_of(key: str, folder: Path) -> Path:
    """That of the trial with this ``key`` below ``folder``."""
    return folder / key[:16]


def is_made(setting: Setting, directory: Path) -> bool:
    """Whether all of the trial in ``directory`` is there: its bundle, and what the budgets have measured."""
    files = [setting.quality_file(setting.texts.development), *map(setting.device_file, setting.devices)]
    made = (directory / BUNDLE).exists()
    return made and all(read_sealed(directory / one) is not None for one in files)


def _measure(setting: Setting, trial: Trial, progress: Progress) -> None:
    """What is not there yet is made."""
    _build(setting, trial, progress)
    trial.measured[DISK.name] = float(Bundle.open(trial.bundle).disk_bytes)
    quality = quality_of(setting, trial, setting.texts.development, progress)
    trial.lines.append(quality)
    trial.measured.update(qualities(quality, setting.budgets))
    trial.originals.update(originals(quality, setting.budgets))
    for name, line in _on_devices(setting, trial, progress).items():
        trial.lines.append(line)
        trial.measured.update(of_device(name, line, setting.budgets))


def recipe_text(recipe: Mapping[str, Any]) -> str:
    """As a file."""
    return yaml.safe_dump(dict(recipe), sort_keys=False)


def quality_of(setting: Setting, trial: Trial, text: Path, progress: Progress) -> Measurement:
    """The bundle against the original on ``text``, measured once; its replies are not. Of slices one half is
    for the development text, the other for the held-out text.
    """
    kept = trial.directory / setting.quality_file(text)
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
    for name in setting.devices:
        known = read_sealed(trial.directory / setting.device_file(name))
        if known is None:
            left.append(name)
        else:
            found[name] = Measurement.model_validate(known)
    if left:
        options = {"threads": setting.threads, "provider": "cpu", "per_op": False, "batch": BATCH}
        options |= {**_workload(trial, progress), "energy": setting.counts_energy}
        # Memory does not depend on whether the machine is cool and quiet.
        request = Request((trial.bundle,), Protocol.quick(), options, "edgepress fit", settle_s=0.0)
        places = SideBySide(request, trial.directory / "profile.jsonl", progress)
        places.run([None if name in HERE else own_device(name) for name in left])
        if (failure := places.failure()) is not None:
            raise failure
        for name, line in places.lines.items():
            write_sealed(
                trial.directory / setting.device_file(name), line.model_dump(by_alias=True, mode="json")
            )
            found[name] = line
    return found


class TrialClock:
    """Of the trial in ``directory``.

    Attributes:
        seconds: so far; of a run that was killed until the last file that it wrote.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / _FILE
        known = read_sealed(self._file) or {}
        self.seconds = float(known.get("seconds", 0.0))
        if "begun" in known:
            self.seconds += max(0.0, _newest(directory) - float(known["begun"]))

    @contextmanager
    def running(self) -> Iterator[None]:
        """What is done meanwhile counts, whatever ends it."""
        write_sealed(self._file, {"seconds": self.seconds, "begun": time.time()})
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - begun
            write_sealed(self._file, {"seconds": self.seconds})


def _newest(directory: Path) -> float:
    """When the last file below ``directory`` was written; another process may remove files meanwhile."""
    times = [0.0]
    for folder, _, names in os.walk(directory):  # which passes over what is not there any more
        for name in names:
            with suppress(FileNotFoundError):
                times.append(Path(folder, name).stat().st_mtime)
    return max(times)
