"""The models and texts that a study names: packaged ones, files of the user's, and what makers make."""

import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ....compress.model.models import resolve
from ....compress.model.weights import WeightSource
from ....compress.text.calibration import calibration_from
from ....compress.text.corpus import texts_from
from ....compress.text.demo_corpora import Split
from ....errors import InputError
from ....files.storage import sha256_json, write_atomic, write_json
from ....plugins import load
from ....runtime.text.tokenizer import Tokenizer
from ..sealed import SEALED, write
from .child import Cost, run_module
from .schema import CalibrationText, Source

MAKERS = f"{__package__.rpartition('.')[0]}.makers"
CORPORA = ("wikipedia",)

# Runs the arguments of ``edgepress`` with so many threads; what that cost.
Call = Callable[[list[str], int], Cost]


def in_a_process(arguments: list[str], threads: int) -> Cost:
    """``python -m edgepress`` as a user starts it."""
    return run_module("edgepress", arguments, {"OMP_NUM_THREADS": str(threads)})


class MissingText(InputError):
    """A text that no package carries, and no file was given for."""

    way_out = "give it with --text NAME=FILE"


class Sources:
    """Finds them, and makes below ``work`` what is made, once.

    Attributes:
        models, texts: files that stand for names of a study.
        pico: makers make the smallest thing that serves.
    """

    def __init__(
        self,
        work: Path,
        models: Mapping[str, str] | None = None,
        texts: Mapping[str, Path] | None = None,
        *,
        pico: bool = False,
        call: Call = in_a_process,
    ) -> None:
        self.work, self.pico, self.call = work, pico, call
        self.models, self.texts = dict(models or {}), dict(texts or {})
        work.mkdir(parents=True, exist_ok=True)

    def model(self, source: Source) -> str:
        """What ``edgepress compress`` takes for it: a demo name or a directory."""
        if isinstance(source, str):
            return self.models.get(source, source)
        spec = {key: value for key, value in source.items() if key not in ("passes", "calibration")}
        made = self._made(spec)
        return str(self._trained(made, source)) if source.get("passes") else str(made)

    def text(self, source: Source | list[Source]) -> str:
        """What ``--calibration`` and ``--text`` take for it; several become files in a folder."""
        if isinstance(source, list):
            return str(self._folder(source))
        if isinstance(source, dict):
            return str(self._made(source))
        if source == SEALED and source not in self.texts:
            self.texts[SEALED] = write(self.work / "sealed.txt")
        if source in self.texts:
            return str(self.texts[source])
        if source not in CORPORA:
            raise MissingText(f"no file was given for the text {source!r}")
        return source

    def documents(self, source: Source, split: Split = "calibration") -> list[str]:
        """The documents of a text, for makers."""
        return texts_from(self.text(source), split=split)

    def calibrated(self, calibration: CalibrationText) -> list[str]:
        """The options of ``edgepress compress``."""
        given = calibration.text if isinstance(calibration.text, list) else [calibration.text]
        if SEALED in given:
            raise InputError(
                "a study calibrates with the sealed text",
                why="what was chosen by it says nothing of other text",
                fix="calibrate with another, and name sealed under held_out",
            )
        chosen = {"calibration": self.text(calibration.text)}
        chosen |= {"samples": str(calibration.samples), "length": str(calibration.length)}
        chosen |= {"seed": str(calibration.seed)} if calibration.seed else {}
        return [part for name, value in chosen.items() for part in (f"--{name}", value)]

    def sequences(self, calibration: CalibrationText, model: str) -> Path:
        """The token sequences of a calibration as a JSON file, for other tools."""
        path = resolve(model).path
        text, asked = self.text(calibration.text), calibration.model_dump(exclude={"text"})
        target = self.work / f"sequences-{sha256_json([text, asked, str(path)])[:8]}.json"
        if not target.exists():
            kind = WeightSource.open(path).anatomy.kind
            found = calibration_from(text, Tokenizer.open(path), kind=kind, **asked)
            write_json(target, [row for batch in found.batches for row in batch.input_ids.tolist()])
        return target

    def _made(self, spec: Mapping[str, Any]) -> Path:
        """What the maker ``spec["make"]`` makes of its other entries."""
        options = {key: value for key, value in spec.items() if key != "make"}
        module = load(MAKERS, str(spec["make"]), "maker")
        if self.pico:
            options |= module.PICO
        target = self.work / f"{spec['make']}-{sha256_json(dict(spec))[:8]}"
        if not target.exists():
            # Another name until it is whole: a run that was stopped begins it again.
            part = target.with_name(f"{target.name}.part")
            module.make(part, self, **options)
            part.rename(target)
        return target

    def _trained(self, made: Path, source: Mapping[str, Any]) -> Path:
        """The model ``made`` after the passes of ``source``."""
        target = made.with_name(f"{made.name}-{sha256_json(dict(source))[:8]}")
        if not target.exists():
            recipe = target.with_suffix(".yaml")
            content = {"name": made.name, "passes": source["passes"]}
            recipe.write_text(yaml.safe_dump(content), encoding="utf-8")
            options = self.calibrated(CalibrationText.model_validate(source.get("calibration", {})))
            cost = self.edgepress("compress", str(made), "-r", str(recipe), *options, "-o", str(target), "-q")
            write_json(target.with_suffix(".cost.json"), cost_record(cost))
        return target

    def _folder(self, sources: list[Source]) -> Path:
        named = [self.text(source) for source in sources]
        folder = self.work / f"texts-{sha256_json(named)[:8]}"
        folder.mkdir(exist_ok=True)
        for number, text in enumerate(named):
            joined = "\n\n".join(texts_from(text))
            stem = re.sub(r"\W+", "-", Path(text).stem)
            write_atomic(folder / f"{number}-{stem}.txt", joined.encode())
        return folder

    def edgepress(self, *arguments: str, threads: int = 1) -> Cost:
        """Run a command line; what it cost."""
        print(f"$ edgepress {shlex.join(arguments)}", file=sys.stderr, flush=True)
        return self.call(list(arguments), threads)


def cost_record(cost: Cost) -> dict[str, float]:
    """As it is kept beside a checkpoint."""
    return {"cpu_seconds": cost.cpu_seconds, "rss_mb": cost.peak_rss / 2**20}
