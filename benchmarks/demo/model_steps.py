"""The steps of one of the demo's models, from recipes to measurements; each call is the public API's."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...errors import InputError, RefusedByPolicy
from ...files.storage import sha256_file
from ...runtime.bundle.directory import CHECKPOINT_MANIFEST, MANIFEST
from ...runtime.bundle.verification import verify_directory
from ...terminal.progress import Progress
from ..page.result_groups import Aspect, aspect_of
from ..records import record
from .demo_plan import NEW_TOKENS, DemoModel, DemoSize, DemoVersion
from .resumable import ResumableStep


class ModelSteps:
    """The steps of one model: its original, its versions one after the other, and all timed side by side."""

    def __init__(self, model: DemoModel, size: DemoSize, root: Path, progress: Progress) -> None:
        self.model, self.size, self.progress = model, size, progress
        self.folder = root / model.name
        self.original, self.record = self.folder / "original-bundle", self.folder / "measurements.jsonl"

    def checkpoint(self, version: DemoVersion) -> Path:
        return self.folder / version.recipe / "checkpoint"

    def bundle(self, version: DemoVersion) -> Path:
        return self.folder / version.recipe / "bundle"

    def steps(self) -> list[ResumableStep]:
        """In order; measuring depends on the hashes of what was exported before."""
        versions, name, seconds = self.model.versions, self.model.name, self.model.seconds
        original = self._step(
            f"{name}/original",
            f"{self.model.described}: export the fp32 original",
            seconds["original"],
            self._export_original,
            dict,
            lambda: _is_whole(self.original),
        )
        timed = self._step(
            f"{name}/profile",
            f"{self.model.described}: time all versions side by side",
            seconds["profile"],
            self._profile,
            self._timing,
            self._has("latency", versions),
        )
        made = [step for version in versions for step in self._of_version(version)]
        return [original, *made, timed]

    def _of_version(self, version: DemoVersion) -> list[ResumableStep]:
        checkpoint, bundle = self.checkpoint(version), self.bundle(version)

        def step(
            key: str,
            title: str,
            work: Callable[[DemoVersion], None],
            inputs: Callable[[], Mapping[str, Any]],
            whole: Callable[[], bool],
        ) -> ResumableStep:
            name, described = f"{self.model.name}/{version.recipe}/{key}", f"{version.described}: {title}"

            def identity() -> Mapping[str, Any]:
                return {**version.identity(), **inputs()}

            return self._step(name, described, version.seconds[key], lambda: work(version), identity, whole)

        return [
            step("compress", "compress", self._compress, dict, lambda: _is_whole(checkpoint)),
            step(
                "export",
                "export to ONNX and prove it",
                self._export,
                lambda: {"checkpoint": _identity(checkpoint)},
                lambda: _is_whole(bundle),
            ),
            step(
                "validate",
                "compare with the original",
                self._validate,
                lambda: self._measured([version]),
                self._has("quality", [version]),
            ),
        ]

    def _step(
        self,
        key: str,
        title: str,
        seconds: float,
        work: Callable[[], None],
        inputs: Callable[[], Mapping[str, Any]],
        whole: Callable[[], bool],
    ) -> ResumableStep:
        from ... import __version__

        def identity() -> Mapping[str, Any]:
            return {"version": __version__, "model": self.model.model, "text": self.model.text, **inputs()}

        return ResumableStep(key, title, seconds, identity, whole, work)

    def _measured(self, versions: Sequence[DemoVersion]) -> dict[str, Any]:
        size = {"windows": self.size.windows, "length": self.size.length, "sentences": self.size.sentences}
        bundles = [_identity(self.bundle(version)) for version in versions]
        return {"bundles": bundles, "original": _identity(self.original), **size}

    def _timing(self) -> dict[str, Any]:
        from ...devices.probe import probe

        bundles, protocol = self._measured(self.model.versions), asdict(self.size.protocol)
        how = {"protocol": protocol, "new_tokens": self.size.new_tokens}
        return {**bundles, **how, "machine": probe().fingerprint}

    def _has(self, aspect: Aspect, versions: Sequence[DemoVersion]) -> Callable[[], bool]:
        """Whether the record holds the lines of the original's bundle and of those of ``versions``."""

        def found() -> bool:
            if not self.record.is_file():
                return False
            lines = [line for line in record.read([self.record]) if aspect_of(line) == aspect]
            bundles = [self.original, *map(self.bundle, versions)]
            return {*map(_identity, bundles)} <= {line.subject.manifest_sha256 for line in lines}

        return found

    def _compress(self, version: DemoVersion) -> None:
        from ... import compress_model

        options = dict(version.calibration)
        compress_model(
            self.model.model,
            recipe=version.recipe,
            output=self.checkpoint(version),
            overwrite=True,
            progress=self.progress,
            **options,
        )

    def _export(self, version: DemoVersion) -> None:
        from ... import export_bundle

        checkpoint, bundle = self.checkpoint(version), self.bundle(version)
        export_bundle(checkpoint, output=bundle, overwrite=True, progress=self.progress)

    def _export_original(self) -> None:
        from ... import export_bundle

        export_bundle(self.model.model, output=self.original, overwrite=True, progress=self.progress)

    def _validate(self, version: DemoVersion) -> None:
        from ... import validate_bundle

        bundle, arguments = self.bundle(version), ("--against", self.original, *self._amount())
        validate_bundle(
            bundle,
            self.original,
            text=self.model.text,
            windows=self.size.windows,
            length=self.size.length,
            sentences=self.size.sentences,
            record=self.record,
            command=self._reproduce([version], "validate", *arguments),
            progress=self.progress,
        )

    def _profile(self) -> None:
        from ... import profile_bundle

        first, *others = map(self.bundle, self.model.versions)
        profile_bundle(
            first,
            baseline=self.original,
            beside=others,
            new_tokens=self.size.new_tokens,
            protocol=self.size.protocol,
            record=self.record,
            command=self._reproduce(self.model.versions, "profile", *self._timed()),
            progress=self.progress,
        )

    def _timed(self) -> list[object]:
        shorter = ["--max-new-tokens", self.size.new_tokens] if self.size.new_tokens != NEW_TOKENS else []
        return ["--baseline", self.original, *shorter]

    def _amount(self) -> list[object]:
        size, text = self.size, self.model.text
        amount = ["--windows", size.windows, "--length", size.length, "--sentences", size.sentences]
        return [*amount, "--text", text] if text else amount

    def _reproduce(self, versions: Sequence[DemoVersion], verb: str, *arguments: object) -> str:
        """The commands that lead to a measurement, one a line."""
        model, commands = self.model.model, [["export", self.model.model, "-o", self.original]]
        for version in versions:
            options = [word for name, value in version.calibration.items() for word in (f"--{name}", value)]
            checkpoint, bundle = self.checkpoint(version), self.bundle(version)
            commands += [
                ["compress", model, "--recipe", version.recipe, *options, "-o", checkpoint],
                ["export", checkpoint, "-o", bundle],
                [verb, bundle, *arguments],
            ]
        return "\n".join(shlex.join(["edgepress", *map(str, words)]) for words in commands)


def _is_whole(path: Path) -> bool:
    """Whether a checkpoint or bundle is there and every file matches its manifest."""
    try:
        return path.is_dir() and not verify_directory(path).problems
    except (InputError, RefusedByPolicy):  # no manifest, or one that cannot be trusted: it is made again
        return False


def _identity(path: Path) -> str:
    """The hash of the manifest of a checkpoint or bundle, or nothing while it is not there."""
    found = [path / name for name in (MANIFEST, CHECKPOINT_MANIFEST) if (path / name).is_file()]
    return sha256_file(found[0]) if found else ""
