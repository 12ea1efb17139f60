"""``compress_model``: a model and a recipe in, a compressed checkpoint out; and ``plan_model``, the same
without the work.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Degraded, InputError, require
from ..files.output_paths import refuse_nesting
from ..files.staging import Staging
from ..runtime.audio.wav_file import sound_files
from ..runtime.images.image_file import image_files
from ..runtime.session.needs import headline
from ..terminal.progress import Progress, Silent
from .group_sizes import check_scheme
from .job import AUTO, CalibrationChoice, Job
from .model.model_names import read_by_model, require_model, split_tower
from .numbers.scheme import Scheme
from .pipeline.journal import WORK, Journal, worth_resuming
from .pipeline.processes import Processes, is_follower
from .recipe_files import check_words, no_text, scheme_asked
from .text.corpus import require_text, text_paths
from .text.jsonl_rows import FIELD

if TYPE_CHECKING:
    from .pipeline.block import LayerStatus
    from .text.protected_text import ProtectedText

# torch is imported when work starts, so that this module can be looked at without it.


def _check_words(
    model: str, recipe: str | None, scheme: str | None, group_size: int | None, text: str | None, field: str
) -> None:
    """Refuse what is misspelt or missing before anything heavy is imported, hashed or made."""
    if recipe is None and scheme is None:
        raise InputError(
            "give either a recipe or a scheme", fix="for example --scheme W4A16, or -r w4a16-gptq"
        )
    if recipe is not None and scheme is not None:
        raise InputError(
            f"give either a recipe or a scheme, not both: {recipe} and {scheme}",
            why="the passes of a recipe have their own schemes",
            fix="leave one of them out",
        )
    if recipe is not None and group_size is not None:
        raise InputError(
            "a group size is given beside a recipe",
            why="the recipe's own schemes say the size of their groups: W4A16-g64",
            fix="give --group-size with --scheme, or change the recipe",
        )
    require("torch", "compress")
    require("transformers", "compress")
    reads = read_by_model(model)
    if recipe is not None and check_words(recipe) and text is None:
        raise no_text(recipe, reads=reads)
    asked = None if scheme is None else scheme_asked(scheme, group_size)
    if asked is not None and asked.calibrated and text is None:
        raise no_text(str(scheme), reads=reads)
    require_model(model)
    if asked is not None and (group_size is not None or Scheme.names_its_groups(str(scheme))):
        check_scheme(model, asked)
    if text is not None and reads == "images":
        image_files(Path(text))
    elif text is not None and reads == "sounds":
        sound_files(Path(text))
    elif text is not None:
        require_text(text, field)


def plan_model(
    model: str,
    *,
    recipe: str | None = None,
    scheme: str | None = None,
    group_size: int | None = None,
    samples: int | None = None,
    length: int | None = None,
    calibration: str | None = None,
    seed: int | None = None,
    field: str = FIELD,
    chat: str = AUTO,
    protect: Sequence[ProtectedText] = (),
    max_time: float | None = None,
    max_memory: float | None = None,
    requantize: bool = False,
    device: str = "auto",
    output: str | Path = ".",
    progress: Progress | None = None,
) -> Any:
    """The :class:`~edgepress.compress.plan.Plan` of a compression; writes nothing but demo models.

    Raises:
        EdgepressError: what :func:`compress_model` raises before it reads a weight.
    """
    _check_words(model, recipe, scheme, group_size, calibration, field)
    choice = CalibrationChoice(calibration, samples, length, seed, field, chat, tuple(protect))
    job = Job(model, recipe, scheme, group_size, choice, progress or Silent(), max_time, requantize)
    job.require_room(Path(output), device, max_memory)
    if job.text is not None or not job.recipe.calibrated:  # a plan is the same with any text, or none yet
        job.calibration()
    return job.plan


def compress_model(
    model: str,
    *,
    output: str | Path,
    recipe: str | None = None,
    scheme: str | None = None,
    group_size: int | None = None,
    calibration: str | None = None,
    samples: int | None = None,
    length: int | None = None,
    seed: int | None = None,
    field: str = FIELD,
    chat: str = AUTO,
    protect: Sequence[ProtectedText] = (),
    max_time: float | None = None,
    max_memory: float | None = None,
    requantize: bool = False,
    device: str = "auto",
    answers: str | Path | None = None,
    overwrite: bool = False,
    restart: bool = False,
    strict: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Compress ``model`` into the directory ``output`` and return its path.

    Args:
        model: an HF directory, a ``.gguf`` file or a demo name.
        recipe: a YAML file or the name of a packaged recipe; or ``scheme`` (with ``group_size``) for the
            short way.
        calibration: a file, a directory or a demo corpus; ``samples`` sequences of ``length`` tokens drawn
            with ``seed``.
        protect: text of groups that is read beside it, whose losses ``allocate`` keeps down: of
            :func:`~edgepress.compress.text.protected_text.read_protected`, or of a packaged slice.
        max_time: minutes after which learning ends, in every pass of the recipe that learns.
        requantize: whether a model that is quantized already may be rounded again.
        max_memory: GB that the plan may need; never more than what is free.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        answers: a directory that keeps what the original says about the text, for other runs to learn from.
        restart: drop what a killed run left instead of resuming it.
        strict: fail when any layer fell back.

    Under ``accelerate launch`` all processes learn together, by FSDP2 a part of the model each; the first one
    does the rest, and writes.

    Raises:
        EdgepressError: any of the typed errors; nothing is left at ``output`` then.
    """
    # Huge pages for large tensors: fewer page faults. torch reads it once, when it first allocates.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    target, kept = Path(output), None if answers is None else Path(answers)
    files = [recipe] if recipe is not None and Path(recipe).is_file() else []
    refuse_nesting(target, [split_tower(model)[0], *files, *text_paths(calibration)], kept=[answers])
    _check_words(model, recipe, scheme, group_size, calibration, field)
    progress = progress or Silent()
    choice = CalibrationChoice(calibration, samples, length, seed, field, chat, tuple(protect))
    if is_follower():
        job = Job(model, recipe, scheme, group_size, choice, Silent(), max_time, requantize)
        return _follow(job, Staging(target), device, kept)
    with Staging(target, overwrite=overwrite, keep=worth_resuming) as stage:
        if restart:
            stage.restart()
        job = Job(model, recipe, scheme, group_size, choice, progress, max_time, requantize)
        refuse_nesting(target, job.paths())
        available, plan = job.require_room(stage.target, device, max_memory), job.plan
        progress.note(headline(plan.peak_memory, available, plan.disk, plan.seconds))
        key = _compress(job, stage, device, strict, kept)
        progress.note(f"published {stage.target} (run {key[:12]})")
    return stage.target


def _compress(job: Job, stage: Staging, device_name: str, strict: bool, answers: Path | None) -> str:
    from .checkpoint_manifest import write_manifest
    from .pipeline.chain import StageChain
    from .pipeline.damage_probe import DamageProbe
    from .pipeline.device import choose_device, return_large_blocks
    from .pipeline.model_hash import recalled, remember

    return_large_blocks()
    device = choose_device(device_name)
    processes = Processes.launched(device)
    device = processes.device(device)
    calibration = job.calibration()  # a text that is missing is said before the model is hashed
    work, result, reader = stage.directory / WORK, stage.result, job.source.reader
    with job.progress.task("hashing the model", job.plan.checkpoint_bytes) as task:
        fingerprint = recalled(reader, work) or reader.fingerprint(task.advance)
    reads = job.reads()
    key = job.key(fingerprint, calibration, device.type, reads)
    _claim(work, key, stage, job)
    remember(reader, fingerprint, work)
    probe = DamageProbe.open(job.source, work / "probe", device, job.progress)
    chain = StageChain(
        job.source, job.recipe.steps, calibration, device, work, key, job.progress, processes, answers, probe
    )
    record = chain.run(result)
    if strict:
        _refuse_fallen(record.statuses)
    write_manifest(
        result,
        key=key,
        model=_described(job, fingerprint),
        recipe=job.recipe,
        calibration=calibration,
        reads={Path(path).name: digest for path, digest in reads.items()},
        record=record,
        probe=None if probe is None else probe.describe(),
        progress=job.progress,
    )
    stage.publish()
    processes.agree(None)
    return key


def _claim(work: Path, key: str, stage: Staging, job: Job) -> None:
    """Make ``work`` the directory of the run ``key``: what another one left there is removed."""
    journal = Journal(work, key)
    if journal.belongs_to_other():
        job.progress.note("the staging directory is of another run: starting afresh")
        stage.restart()
    work.mkdir(exist_ok=True)
    journal.claim()


def _refuse_fallen(statuses: Sequence[LayerStatus]) -> None:
    fallen = [status.name for status in statuses if status.degraded]
    if fallen:
        raise Degraded(
            f"{len(fallen)} layers fell back, the first is {fallen[0]}",
            fix="run without --strict to accept it, or give more calibration text",
        )


def _described(job: Job, fingerprint: str) -> dict[str, Any]:
    """What the manifest says about the original model."""
    stated = job.model.license
    return {
        "name": job.model.name,
        "described": job.model.described,
        "fingerprint": fingerprint,
        "license": None if stated is None else stated.as_dict(),
        "hub_id": job.model.hub_id,
    }


def _follow(job: Job, stage: Staging, device_name: str, answers: Path | None) -> Path:
    """What every process but the first does; returns when the result is there."""
    from .pipeline.chain import StageChain
    from .pipeline.device import choose_device

    device = choose_device(device_name)
    processes = Processes.launched(device)
    device, work = processes.device(device), stage.directory / WORK
    StageChain(
        job.source, job.recipe.steps, job.calibration(), device, work, "", job.progress, processes, answers
    ).follow()
    processes.agree(None)
    return stage.target
