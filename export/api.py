"""``export_bundle``: a checkpoint in, a proven bundle out, whole or not at all."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..compress.model.model_names import split_tower
from ..errors import InputError, require
from ..files.disk import disk_full_is_typed
from ..files.output_paths import refuse_nesting
from ..files.staging import Staging
from ..plugins import load
from ..runtime.session.needs import Needs
from ..terminal.progress import Progress, Silent

# The graph's builders, and torch with them, are imported when work starts: a bad output is refused at once.

if TYPE_CHECKING:
    from .format import ExportFormat, Prepared
    from .job import ExportJob

FORMATS = "edgepress.export.formats"
_SMALL_FILES = 16 << 20

# Given the finished bundle and the same model's in float32, both still unpublished; raises what refuses it.
Gate = Callable[[Path, Path], object]


def export_bundle(
    checkpoint: str | Path,
    *,
    format: str = "onnx",
    output: str | Path,
    overwrite: bool = False,
    validate: bool = True,
    text: str | Path | None = None,
    kv: str | None = None,
    provider: str = "cpu",
    operators: str | None = None,
    activations: str = "int8",
    gate: Gate | None = None,
    max_memory: float | None = None,
    progress: Progress | None = None,
) -> Path:
    """Export ``checkpoint`` as a bundle in the directory ``output`` and return its path.

    Args:
        checkpoint: a compressed checkpoint, a plain HF directory, a ``.gguf`` file or a demo name.
        format: a file of ``export/formats``.
        validate: prove the graph against torch before it is published; otherwise the manifest carries a
            warning.
        text: UTF-8 file whose text the proof uses, instead of the built-in passage.
        kv: how a decoder caches keys and values: ``fp32``, ``fp16``, ``int8`` or ``int4``; as the checkpoint
            says when None.
        provider: what the graph is written for: ``cpu``, ``cuda``, ``openvino`` or ``tensorrt``. One that is
            not on this machine gives a bundle that is marked as built, not run.
        operators: ``edgepress`` are our own, for the CPU, which are faster and run in edgepress alone;
            ``standard`` are those of ONNX Runtime, for every client. Our own when None, where they are built
            and run.
        activations: of the CPU's products of a weight-only scheme: rounded to ``int8`` by groups, or
            ``float32`` as they come, which is slower.
        gate: a further condition of publication, called with the bundle and its float32 twin.
        max_memory: GB that it may need; never more than what is free.

    Raises:
        GateFailed: the proof failed, or whatever ``gate`` raises.
        InputError: a ``gate`` for a checkpoint that is float32 itself or for another provider than the CPU.
        ShapeError, CheckpointError: the model cannot be exported; found before anything is written.
        OutOfResource: it does not fit this machine; found before a weight is read.
        EdgepressError: any of the other typed errors. Nothing is left at ``output`` then.
    """
    target, progress = Path(output), progress or Silent()
    _require_packages_and_place(checkpoint, target, text)
    with Staging(target, overwrite=overwrite) as stage:
        choice = _Choice(format, validate, gate is not None, text, kv, provider, operators, activations)
        job, prepared, twin, needs = _prepared(checkpoint, stage.target, choice, progress)
        progress.note(needs.headline(needs.require(stage.target, max_memory)))
        command = _command(checkpoint, output, job, choice)
        work = stage.directory / "work"
        with disk_full_is_typed(stage.target):
            _write(choice.plugin, job, prepared, stage.result, command, work if validate else None)
            shutil.rmtree(work, ignore_errors=True)
            if gate is not None and twin is not None:
                _write(choice.plugin, *twin, work, command, None)
                gate(stage.result, work)
        stage.publish()
    return stage.target


def plan_export(
    checkpoint: str | Path,
    *,
    format: str = "onnx",
    output: str | Path,
    validate: bool = True,
    text: str | Path | None = None,
    kv: str | None = None,
    provider: str = "cpu",
    operators: str | None = None,
    activations: str = "int8",
    gate: bool = False,
    progress: Progress | None = None,
) -> Needs:
    """What :func:`export_bundle` needs; raises what it does before it reads a weight, and writes nothing."""
    _require_packages_and_place(checkpoint, Path(output), text)
    choice = _Choice(format, validate, gate, text, kv, provider, operators, activations)
    return _prepared(checkpoint, Path(output), choice, progress or Silent())[-1]


def _require_packages_and_place(checkpoint: str | Path, target: Path, text: str | Path | None) -> None:
    """Refuse what is said before anything is imported."""
    for module in ("torch", "transformers", "onnx_ir"):
        require(module, "compress")
    refuse_nesting(target, [split_tower(str(checkpoint))[0], text])


@dataclass(frozen=True)
class _Choice:
    """What the caller said, and the format that this names."""

    format: str
    validate: bool
    gate: bool
    text: str | Path | None
    kv: str | None
    provider: str
    operators: str | None
    activations: str

    def __post_init__(self) -> None:
        if self.plugin.kind == "bundle":
            return
        to_onnx = "or export to onnx"
        if self.activations != "int8" and not self.plugin.graph:
            raise InputError(
                f"how a {self.format} file's activations are rounded is its runtime's choice",
                fix=f"leave --activations out, {to_onnx}",
            )
        if self.operators == "edgepress":
            raise InputError(
                f"{self.format} is for another runtime, which does not have edgepress's operators",
                fix=f"leave --for out, {to_onnx}",
            )
        if self.gate:
            raise InputError("only bundles are timed here", fix=f"leave the gate out, {to_onnx}")

    @cached_property
    def plugin(self) -> ExportFormat[Any]:
        """What writes the format."""
        found: ExportFormat[Any] = load(FORMATS, self.format, "export format").FORMAT
        return found


def _prepared(
    checkpoint: str | Path, target: Path, choice: _Choice, progress: Progress
) -> tuple[ExportJob, Prepared, tuple[ExportJob, Prepared] | None, Needs]:
    """The job and its graph, those of its float32 twin where it is gated, and what all of it needs."""
    from ..compress.pipeline.advance import Work
    from ..compress.rates import measured_rates
    from .graph.forms.providers import provider_form
    from .opening import open_job
    from .plan import export_needs

    form = provider_form(choice.provider, choice.operators, choice.activations)
    text = None if choice.text is None else Path(choice.text)
    job = open_job(checkpoint, target, text, choice.kv, form, progress)
    if not choice.plugin.encoder_decoders and job.source.anatomy.kind == "encoder_decoder":
        raise InputError(
            f"{job.name} is an encoder–decoder, which this format is not written of",
            fix="take --format onnx, or open the checkpoint itself in transformers",
        )
    if not choice.plugin.graph and job.source.anatomy.looks_back:
        raise InputError(
            f"{job.name} embeds sentences, and this format is written of decoders that write",
            why="its readers would look for a head, and not for how states are pooled",
            fix="take --format onnx, or open the checkpoint itself in sentence-transformers",
        )
    prepared = choice.plugin.prepare(job, validate=choice.validate)
    twin = _twin(job, choice.plugin) if choice.gate else None
    found = export_needs(job.source, validate=choice.validate, gate=choice.gate)
    without = export_needs(job.source, validate=False)
    read = sum(map(job.source.reader.nbytes, job.source.reader.shapes))
    written = prepared.disk_bytes + (0 if twin is None else twin[1].disk_bytes) + _SMALL_FILES
    rates = measured_rates()
    seconds = rates.start + rates.seconds(Work(found.multiplications, stored=2 * (read + written)))
    less = (("--no-validate", without.memory),) if choice.validate else ()
    needs = Needs("export", {str(checkpoint): read}, found.memory, written, seconds, less)
    return job, prepared, twin, needs


def _twin(job: ExportJob, plugin: ExportFormat[Any]) -> tuple[ExportJob, Prepared]:
    """The job of the same model in float32, and its graph."""
    if not job.form.built:
        raise InputError(
            f"a bundle for {job.form.name} is not measured here",
            fix="leave out the gate, or export for the CPU",
        )
    if not job.rounds:
        raise InputError(
            f"{job.name} is float32 already, so there is nothing to hold its export against",
            fix="leave the gate out, or compress the model first",
        )
    twin = replace(job, as_float=True)
    return twin, plugin.prepare(twin, validate=False)


def _write(
    plugin: ExportFormat[Any],
    job: ExportJob,
    prepared: Prepared,
    directory: Path,
    command: str,
    work: Path | None,
) -> None:
    """A whole output in ``directory``, the manifest last; proven when there is a directory to work in."""
    from .bundle_manifest import unproven
    from .card import copy_companions, copy_licenses, describe

    directory.mkdir()
    sections = plugin.write(job, prepared, directory)
    if plugin.kind == "bundle":
        copy_companions(job, directory)
    else:
        copy_licenses(job, directory)
    parity = unproven(plugin.kind) if work is None else plugin.check(job, prepared, directory, sections, work)
    describe(plugin, job, directory, sections, parity, command)


def _command(checkpoint: str | Path, output: str | Path, job: ExportJob, choice: _Choice) -> str:
    """What makes the export again."""
    from .graph.forms.providers import CPU

    words = ["edgepress", "export", Path(checkpoint).name, "--format", choice.format, "-o", Path(output).name]
    words += [] if choice.kv is None else ["--kv", choice.kv]
    words += [] if job.form.name == CPU.name else ["--provider", job.form.name]
    words += ["--for", "standard"] if choice.plugin.kind == "bundle" and job.form.standard else []
    words += ["--activations", job.form.activations] if job.form.activations != CPU.activations else []
    return shlex.join(words if choice.validate else [*words, "--no-validate"])
