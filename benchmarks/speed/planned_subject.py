"""A model that has no bundle yet, as predictions read it: what the nodes of its graph will do follows from
its anatomy and schemes, for a checkpoint as it is or for a model after a recipe.

The nodes are those that the exporter writes with edgepress's own operators.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from ...compress.job import CalibrationChoice, Job
from ...compress.model.anatomy import Anatomy
from ...compress.model.models import resolve
from ...compress.model.pooling import pooling_of
from ...compress.model.weights import WeightSource
from ...compress.numbers.scheme import Scheme
from ...compress.recipe import Recipe
from ...devices.kernel_table.operation import CACHE_BYTES
from ...devices.predict.run import Operations, Run
from ...devices.predict.subject import Subject, bundle_subject
from ...errors import BadUsage, CheckpointError
from ...export.graph.packed_encoder import packs_tokens
from ...export.plan import planned_bundle_bytes
from ...runtime.bundle.directory import MANIFEST
from ...terminal.progress import Progress, Silent
from .planned_graph import PlannedGraph, PlannedModel
from .planned_stacks import PlannedStack, reading, writing

_CACHES = {8: "int8", 4: "uint8"}
# A bundle's files are known when they are written.
_DISK_BAND = 0.10
# What stands in front of a transcript: a bundle says it, a plan takes what multilingual ones have.
_SPOKEN, _ASKED = 3, "language, task and times are taken to be three tokens in front of the answer"

_UNPACKED = "making floats of the codes in its caches is not counted"
_HEADLESS = "what is made of the last states is not counted"


def subject_of(
    model: str,
    *,
    recipe: str | None = None,
    scheme: str | None = None,
    group_size: int | None = None,
    progress: Progress | None = None,
) -> Subject:
    """What ``model`` names: a bundle, a checkpoint, or a model and what a recipe or scheme makes of it."""
    path = Path(model)
    if (path / MANIFEST).is_file():
        if recipe or scheme:
            raise BadUsage(f"{model} is a bundle: what it is made of cannot be compressed again")
        return bundle_subject(path)
    if recipe or scheme:
        choice = CalibrationChoice(None, None, None, None)
        job = Job(model, recipe, scheme, group_size, choice, progress or Silent(), requantize=True)
        planned = model_of(job.source, job.recipe)
        name = f"{job.model.name}, {job.recipe.summary}"
        return planned_subject(planned, name, job.model.path, job.plan.bundle_bytes)
    resolved = resolve(model, progress or Silent())
    source = WeightSource.open(resolved.path)
    return planned_subject(model_of(source), resolved.name, resolved.path, planned_bundle_bytes(source))


def model_of(source: WeightSource, recipe: Recipe | None = None) -> PlannedModel:
    """The checkpoint ``source``, or what ``recipe`` makes of it."""
    anatomy, schemes, notes = source.anatomy, dict(source.schemes), []
    tables = (source.embedding_scheme, source.head_scheme)
    for name, step in recipe.steps if recipe is not None else ():
        after = step.anatomy_after(anatomy)
        left = {linear.name: linear for linear in after.linears()}
        for linear in step.selected(anatomy):
            if linear.name not in left:
                continue
            scheme = step.scheme_of(left[linear.name])
            if scheme is None and step.bits_per_weight(linear.in_features) is not None:
                notes.append(f"{name} chooses schemes as it runs: taken as 4 bits")
                scheme = Scheme(bits=4, group_size=64)
            if scheme is not None:
                schemes[linear.name] = scheme
        anatomy = after
    if recipe is not None and any(recipe.tables):
        tables = recipe.tables
    cache = _CACHES[source.kv_scheme.bits] if source.kv_scheme is not None else "float32"
    return PlannedModel(anatomy, schemes, *tables, cache, tuple(dict.fromkeys(notes)))


def planned_subject(model: PlannedModel, name: str, folder: Path, bundle_bytes: int) -> Subject:
    """The subject of predictions, whose bundle will have ``bundle_bytes``; the tokenizer is of ``folder``."""
    anatomy = model.anatomy
    _refuse_unpredictable(anatomy, name)
    tokenizer = folder / "tokenizer.json"
    read = tokenizer.stat().st_size if tokenizer.is_file() else 0
    decoder = anatomy.kind == "decoder"
    item = CACHE_BYTES[model.cache]
    heads = sum(block.attention.kv_heads * block.attention.head_dim for block in anatomy.blocks)
    subject = Subject(
        name=name,
        kind=anatomy.kind,
        does=lambda run: PlannedGraph(model, run).found,
        weights=bundle_bytes - read,
        disk=bundle_bytes,
        tokenizer=read,
        kv_bytes=int(2 * item * heads) if decoder else 0,
        values=4 * len(anatomy.blocks) + 4 if decoder else 4,
        vocab=anatomy.vocab_size if decoder else 0,
        widest=max((linear.out_features for linear in anatomy.linears()), default=0),
        context=anatomy.max_positions,
        disk_band=_DISK_BAND,
        notes=model.notes,
    )
    return _of_kind(subject, model, folder)


def _refuse_unpredictable(anatomy: Anatomy, name: str) -> None:
    """Raise CheckpointError for a model ``name`` of which nothing is predicted, or of its bundle alone."""
    if anatomy.has_experts:
        raise CheckpointError(
            f"a {anatomy.model_type} model is a mixture of experts, of which nothing is predicted",
            why="what a token reads depends on the experts that it goes to",
            fix="export it and measure the bundle: edgepress profile BUNDLE",
        )
    if anatomy.has_latents:
        raise CheckpointError(
            f"attention of a {anatomy.model_type} model is latent, of which nothing is predicted",
            fix="export it and measure the bundle: edgepress profile BUNDLE",
        )
    if anatomy.hearing is not None and anatomy.hearing.log_mel is None:
        raise CheckpointError(
            f"{name} does not say how it hears, and nothing is predicted of it",
            fix="add its preprocessor_config.json",
        )
    if not anatomy.attends:
        raise CheckpointError(
            f"some blocks of a {anatomy.model_type} model have no attention: bundles alone are predicted",
            fix="export it, and predict or measure the bundle: edgepress predict BUNDLE, or profile BUNDLE",
        )


def _of_kind(subject: Subject, model: PlannedModel, folder: Path) -> Subject:
    """``subject`` with what only encoders of images, encoder–decoders, and encoders of texts whose tokens are
    not packed have.
    """
    anatomy = model.anatomy
    if anatomy.patches is not None:
        size = anatomy.patches.tokens
        does = partial(_stack, model)
        headed = anatomy.tower is not None or anatomy.classifier is not None
        notes = (*subject.notes, *((_HEADLESS,) if headed else ()))
        return replace(subject, does=does, unit="image", length=size, held=False, notes=notes)
    if anatomy.kind == "encoder" and not packs_tokens(anatomy, pooling_of(folder)):
        return replace(subject, does=partial(_stack, model))
    if anatomy.kind != "encoder_decoder":
        return subject
    deep = anatomy.stacks()[1].blocks
    numbers = sum(2 * block.attention.kv_heads * block.attention.head_dim for block in deep)
    subject = replace(
        subject,
        does=partial(writing, model),
        reads=partial(reading, model),
        kv_bytes=int(CACHE_BYTES[model.cache] * numbers),
        values=6 * len(deep) + 3,
        vocab=anatomy.vocab_size,
        held=False,
        notes=subject.notes if model.cache == "float32" else (*subject.notes, _UNPACKED),
    )
    hearing = anatomy.hearing
    if hearing is None or hearing.log_mel is None:
        return replace(subject, most_read=anatomy.max_positions)
    speech = replace(subject, unit="sound", length=hearing.tokens, seconds=float(hearing.log_mel.seconds))
    return replace(speech, begins=1 + _SPOKEN, notes=(*speech.notes, _ASKED))


def _stack(model: PlannedModel, run: Run) -> Operations:
    return PlannedStack(model, run).found
