"""The whole chain on two small real models, through the public API alone.

MiniLM becomes W8A8 and SmolLM2 W4A16 (group 64, GPTQ). Each is compressed, exported to ONNX, compared with
the original on held-out text, and timed interleaved with the fp32 export of the original.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError, OutputExists, RefusedByPolicy
from ...output_lock import OutputLock
from ...runtime.bundle.directory import CHECKPOINT_MANIFEST, MANIFEST
from ...runtime.bundle.verification import verify_directory
from ...storage import make_folder, sha256_file
from ...terminal import Progress, Silent
from ..page.join import Aspect, aspect_of
from ..records import record
from .demo_plan import FULL, MODELS, DemoModel, DemoSize
from .resumable import ResumableStep, run_steps


@dataclass(frozen=True)
class DemoResult:
    """What the demo made: ``bundles`` maps a model's name to its compressed bundle."""

    runs: tuple[Path, ...]
    report: Path
    bundles: dict[str, Path]
    skipped: tuple[str, ...]


def run_demo(
    output: Path | str = "runs/demo",
    *,
    models: Sequence[DemoModel] = MODELS,
    size: DemoSize = FULL,
    progress: Progress | None = None,
) -> DemoResult:
    """Run what is not there yet and write ``report.html``; the same call again skips what it finds whole.

    Raises:
        OutputExists: a page or a journal in ``output`` that no demo wrote.
        EdgepressError: any of the other typed errors; finished steps are kept.
    """
    from ..page.report import write_report

    root, progress = Path(output), progress or Silent()
    if root.exists() and not root.is_dir():
        raise InputError(f"{root} is not a directory", fix="choose another output")
    make_folder(root)
    chains = [_Chain(model, size, root, progress) for model in models]
    steps = [step for chain in chains for step in chain.steps()]
    runs = tuple(chain.record for chain in chains)
    with _alone(root):
        page, journal = root / "report.html", root / "demo.json"
        if page.exists() and not journal.exists():
            raise OutputExists(f"{page} is not of a demo, and stays as it is", fix="choose another output")
        skipped = run_steps(steps, journal, progress)
        report = write_report(runs, page, overwrite=True)
    bundles = {chain.model.name: chain.bundle for chain in chains}
    return DemoResult(runs, report, bundles, tuple(skipped))


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keep two demos from writing to one directory."""
    lock = OutputLock(root / ".lock")
    if not lock.acquire():
        raise InputError(
            f"another demo is running in {root}", fix="wait for it to end, or choose another output"
        )
    try:
        yield
    finally:
        lock.release()


class _Chain:
    """The five steps of one model."""

    def __init__(self, model: DemoModel, size: DemoSize, root: Path, progress: Progress) -> None:
        self.model, self.size, self.progress = model, size, progress
        folder = root / model.name
        self.checkpoint, self.bundle = folder / "checkpoint", folder / "bundle"
        self.original, self.record = folder / "original-bundle", folder / "measurements.jsonl"

    def steps(self) -> list[ResumableStep]:
        """In order; measuring depends on the hashes of what was exported before."""
        return [
            self._step("compress", "compress", self._compress, dict, lambda: _is_whole(self.checkpoint)),
            self._step(
                "export",
                "export to ONNX and prove it",
                self._export,
                lambda: {"checkpoint": _identity(self.checkpoint)},
                lambda: _is_whole(self.bundle),
            ),
            self._step(
                "original",
                "export the fp32 original",
                self._export_original,
                dict,
                lambda: _is_whole(self.original),
            ),
            self._step(
                "validate", "compare with the original", self._validate, self._pair, self._has("quality")
            ),
            self._step(
                "profile", "time it beside the original", self._profile, self._timing, self._has("latency")
            ),
        ]

    def _step(
        self,
        key: str,
        title: str,
        work: Callable[[], None],
        inputs: Callable[[], Mapping[str, Any]],
        whole: Callable[[], bool],
    ) -> ResumableStep:
        from ... import __version__

        made_by = {"version": __version__, "model": self.model.identity()}

        def identity() -> Mapping[str, Any]:
            return {**made_by, **inputs()}

        name = f"{self.model.described}: {title}"
        return ResumableStep(f"{self.model.name}/{key}", name, self.model.seconds[key], identity, whole, work)

    def _pair(self) -> dict[str, Any]:
        size = {"windows": self.size.windows, "length": self.size.length, "sentences": self.size.sentences}
        return {"bundle": _identity(self.bundle), "original": _identity(self.original), **size}

    def _timing(self) -> dict[str, Any]:
        from ...devices.probe import probe

        return {**self._pair(), "protocol": asdict(self.size.protocol), "machine": probe().fingerprint}

    def _has(self, aspect: Aspect) -> Callable[[], bool]:
        """Whether the record holds the lines of both bundles."""

        def found() -> bool:
            if not self.record.is_file():
                return False
            lines = [line for line in record.read([self.record]) if aspect_of(line) == aspect]
            measured = {line.subject.manifest_sha256 for line in lines}
            return {_identity(self.bundle), _identity(self.original)} <= measured

        return found

    def _compress(self) -> None:
        from ... import compress_model

        options = dict(self.model.calibration)
        compress_model(
            self.model.model,
            recipe=self.model.recipe,
            output=self.checkpoint,
            overwrite=True,
            progress=self.progress,
            **options,
        )

    def _export(self) -> None:
        from ... import export_bundle

        export_bundle(self.checkpoint, output=self.bundle, overwrite=True, progress=self.progress)

    def _export_original(self) -> None:
        from ... import export_bundle

        export_bundle(self.model.model, output=self.original, overwrite=True, progress=self.progress)

    def _validate(self) -> None:
        from ... import validate_bundle

        for bundle in (self.original, self.bundle):
            validate_bundle(
                bundle,
                self.model.model,
                text=self.model.text,
                windows=self.size.windows,
                length=self.size.length,
                sentences=self.size.sentences,
                record=self.record,
                command=self._reproduce("validate", bundle, "--against", self.model.model, *self._amount()),
                progress=self.progress,
            )

    def _profile(self) -> None:
        from ... import profile_bundle

        blocks = ["--blocks", self.size.protocol.blocks]
        profile_bundle(
            self.bundle,
            baseline=self.original,
            protocol=self.size.protocol,
            record=self.record,
            command=self._reproduce("profile", self.bundle, "--baseline", self.original, *blocks),
            progress=self.progress,
        )

    def _amount(self) -> list[object]:
        size, text = self.size, self.model.text
        amount = ["--windows", size.windows, "--length", size.length, "--sentences", size.sentences]
        return [*amount, "--text", text] if text else amount

    def _reproduce(self, verb: str, *arguments: object) -> str:
        """The commands that lead to a measurement, one a line."""
        options = [word for name, value in self.model.calibration.items() for word in (f"--{name}", value)]
        model = self.model.model
        commands = [
            ["compress", model, "--recipe", self.model.recipe, *options, "-o", self.checkpoint],
            ["export", self.checkpoint, "-o", self.bundle],
            ["export", model, "-o", self.original],
            [verb, *arguments],
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
