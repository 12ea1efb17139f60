"""Run cases through the public API and record what they wrote, or with which error they were refused."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .... import compress_model, export_bundle, open_bundle
from ....runtime.api import TextModel
from ....runtime.engine.image_encoder import ImageModel
from ....runtime.engine.speech_to_text import SpeechToTextModel
from .cases import Case
from .commands import command_hashes, key_hashes, refusal
from .file_hashes import hashes_of, json_hash

Hashes = dict[str, str]


class Runner:
    """Runs cases in ``folder`` (which has the subjects) and records them in the file ``record``."""

    def __init__(self, folder: Path, record: Path) -> None:
        self.folder, self.record = folder, record
        self.place = folder / f"of-{record.stem}"
        self.known: dict[str, Hashes] = json.loads(record.read_text()) if record.exists() else {}
        self._saved = time.monotonic()
        text = folder / "text"
        self.paths = {
            "TEXT": str(text / "prose.txt"),
            "IMAGES": str(folder / "images"),
            "SOUNDS": str(folder / "sounds"),
            "LABELLED": str(text / "labelled.jsonl"),
            "CHATS": str(text / "chats.jsonl"),
            "MODELS": str(folder / "models"),
            "KEPT": str(self.place / "kept"),
        }
        os.environ["EDGEPRESS_CACHE"] = str(self.place / "cache")

    def run(self, cases: list[Case]) -> None:
        """All of them, but for those that are recorded."""
        for number, case in enumerate(cases, 1):
            if case.name not in self.known:
                started = time.monotonic()
                self.known[case.name] = found = self.hashes(case)
                summary = f"{len(found)} hashes, {time.monotonic() - started:.1f} s"
                print(f"{number}/{len(cases)} {case.name}: {found.get('compress', summary)}", flush=True)
                if time.monotonic() - self._saved > 5:
                    self.save()
        self.save()

    def run_keys(self) -> None:
        """Every option of every pass, in a recipe."""
        self._all("keys/", lambda: key_hashes(self.place, self.paths["MODELS"]))

    def run_commands(self) -> None:
        """Every verb of the command line; all again where one is missing, since they build on each other."""
        self._all("command/", lambda: command_hashes(self.place / "commands", self.paths))

    def _all(self, prefix: str, work: Callable[[], Iterator[tuple[str, Hashes]]]) -> None:
        if f"{prefix}end" in self.known:
            return
        for name, found in work():
            self.known[name] = found
            print(f"{name}: {found.get('exit', f'{len(found)} options')}", flush=True)
        self.known[f"{prefix}end"] = {}
        self.save()

    def save(self) -> None:
        """Write the record whole."""
        self.record.parent.mkdir(parents=True, exist_ok=True)
        new = self.record.with_suffix(".new")
        new.write_text(json.dumps(self.known, indent=0, sort_keys=True), encoding="utf-8")
        new.replace(self.record)
        self._saved = time.monotonic()

    def hashes(self, case: Case) -> Hashes:
        """Of what the case writes; ``{"compress": error}`` where it is refused."""
        out = self.place / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        options = self._options(case)
        model = self.folder / "models" / case.model
        subject = str(model) if model.is_dir() else case.model
        refused = refusal(lambda: compress_model(subject, output=out / "compressed", **options))
        if refused is not None:
            return {"compress": refused}
        found = hashes_of(out / "compressed")
        for number, export in enumerate(case.exports):
            found |= self._export(out, number, self._filled(export))
        if case.again is not None:
            found |= self._again(out, case.again)
        if "answers" in case.options:
            found |= hashes_of(self.place / "kept", "kept/")
        if not model.is_dir():  # a demo model, which is made once
            found |= hashes_of(self.place / "cache" / "gguf", "cache/")
        return found

    def _export(self, out: Path, number: int, options: dict[str, Any]) -> Hashes:
        place, name = out / f"export-{number}", f"export-{number}"
        refused = refusal(lambda: export_bundle(out / "compressed", output=place, **options))
        if refused is not None:
            return {name: refused}
        found = hashes_of(place, f"{name}/")
        if options["format"] == "onnx" and options.get("provider", "cpu") == "cpu":
            found |= {f"{name}#{key}": value for key, value in _answers(place).items()}
        return found

    def _again(self, out: Path, scheme: str) -> Hashes:
        (file,) = sorted(out.glob("export-*/*.gguf"))[:1]
        again, cache = out / "again", self.place / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        refused = refusal(
            lambda: compress_model(str(file), output=again, scheme=scheme.partition("-")[0], group_size=32)
        )
        return (
            {"again": refused}
            if refused is not None
            else hashes_of(again, "again/") | hashes_of(cache, "cache/")
        )

    def _options(self, case: Case) -> dict[str, Any]:
        options: dict[str, Any] = self._filled(case.options)
        if case.passes:
            path = self.place / "recipe.yaml"
            content = {
                "name": case.name.replace("/", "-"),
                "passes": self._filled(case.passes),
                **case.recipe,
            }
            path.write_text(yaml.safe_dump(content), encoding="utf-8")
            options["recipe"] = str(path)
        return options

    def _filled(self, value: Any) -> Any:
        """With paths in the place of their names."""
        if isinstance(value, dict):
            return {key: self._filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item) for item in value]
        if isinstance(value, str):
            head, slash, tail = value.partition("/")
            return self.paths.get(head, head) + slash + tail
        return value


def _answers(bundle: Path) -> Hashes:
    """What the bundle computes: a greedy continuation, or the numbers of two texts or images."""
    model: Any = open_bundle(bundle, threads=1)
    if isinstance(model, ImageModel):
        pixels = np.random.default_rng(2).normal(0, 1, (2, 3, 32, 32)).astype(np.float32)
        return {"rows": hashlib.sha256(model.answers(pixels).tobytes()).hexdigest()}
    if isinstance(model, SpeechToTextModel):
        sound = np.random.default_rng(2).normal(0, 0.1, 24_000).astype(np.float32)
        return {"continuation": json_hash(model.generate(sound, max_new_tokens=8).text)}
    texts = ["the river ran under old stone bridges", "boats drift slowly"]
    if hasattr(model, "generate"):
        plain = {"chat": False} if isinstance(model, TextModel) else {}
        return {"continuation": json_hash(model.generate(texts[0], max_new_tokens=8, **plain).text)}
    rows = model.logits(texts) if hasattr(model, "logits") else model.encode(texts)
    return {"rows": hashlib.sha256(rows.tobytes()).hexdigest()}
