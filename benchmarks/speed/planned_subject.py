"""A model that has no bundle yet, as predictions read it: what the nodes of its graph will do follows from
its anatomy and schemes, for a checkpoint as it is or for a model after a recipe.

The nodes are those that the exporter writes with edgepress's own operators.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from ...compress.job import CalibrationChoice, Job
from ...compress.model.anatomy import Anatomy
from ...compress.model.block_anatomy import BlockAnatomy, Linear
from ...compress.model.models import resolve
from ...compress.model.weights import WeightSource
from ...compress.numbers.scheme import Scheme
from ...compress.recipe import Recipe
from ...devices.kernel_table.operation import (
    CACHE_BYTES,
    FLOAT_PRODUCT,
    Operation,
    by_rows,
    cached_attention,
    encoder_attention,
    float_product,
    integer_product,
    quantized_product,
)
from ...devices.predict.graph_operations import Operations, Run
from ...devices.predict.subject import Subject, bundle_subject, of_images
from ...errors import BadUsage, CheckpointError
from ...export.plan import planned_bundle_bytes
from ...runtime.bundle.directory import MANIFEST
from ...terminal import Progress, Silent

_SILU = ("silu", "swish")
_GELU = {"gelu": "Gelu", "quick_gelu": "QuickGelu", "silu": "QuickGelu", "swish": "QuickGelu"}
_CACHES = {8: "int8", 4: "uint8"}
# Nodes about masks, lengths and positions.
_AROUND = {"decoder": 8, "encoder": 3}
# A bundle's files are known when they are written.
_DISK_BAND = 0.10
_LARGEST_GROUP, _CHANNEL_GROUP = 128, 64


@dataclass(frozen=True)
class PlannedModel:
    """Shapes and schemes of a model: by linear, of the embedding, and of a head of its own."""

    anatomy: Anatomy
    schemes: Mapping[str, Scheme]
    embedding: Scheme | None
    head: Scheme | None
    cache: str = "float32"
    notes: tuple[str, ...] = field(default=())


def subject_of(
    model: str,
    *,
    recipe: str | None = None,
    scheme: str | None = None,
    group_size: int | None = None,
    progress: Progress | None = None,
) -> Subject:
    """What ``model`` names: a bundle, a checkpoint, or a model and what a recipe or scheme makes of it.

    Raises:
        EdgepressError: as :func:`~edgepress.compress.api.plan_model`, and for a bundle with a recipe.
    """
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
    """The checkpoint ``source``, or what ``recipe`` makes of it.

    Raises:
        RecipeError: the recipe cannot do that to such a model.
    """
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
    """The subject of predictions, whose bundle will have ``bundle_bytes``; the tokenizer is of ``folder``.

    Raises:
        CheckpointError: no graph is written of such models.
        InputError: it reads images.
    """
    anatomy = model.anatomy
    if anatomy.patches is not None:
        raise of_images(name)
    if anatomy.kind == "encoder_decoder":
        raise CheckpointError(
            f"a {anatomy.model_type} model is an encoder–decoder, of which nothing is predicted",
            fix="export it and run the bundle: edgepress generate BUNDLE --input TEXT",
        )
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
    if not anatomy.attends:
        raise CheckpointError(
            f"some blocks of a {anatomy.model_type} model have no attention: nothing is predicted of them",
            fix="export it and measure the bundle: edgepress profile BUNDLE",
        )
    tokenizer = folder / "tokenizer.json"
    read = tokenizer.stat().st_size if tokenizer.is_file() else 0
    decoder = anatomy.kind == "decoder"
    item = CACHE_BYTES[model.cache]
    heads = sum(block.attention.kv_heads * block.attention.head_dim for block in anatomy.blocks)
    return Subject(
        name=name,
        kind=anatomy.kind,
        does=lambda run: _Planned(model, run).found,
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


class _Planned:
    """The operations of one run."""

    def __init__(self, model: PlannedModel, run: Run) -> None:
        self.model, self.run, self.found = model, run, Operations()
        decoder = model.anatomy.kind == "decoder"
        self._table(decoder)
        blocks = [block for block in model.anatomy.blocks for _ in range(block.repeats)]
        for index, block in enumerate(blocks):
            last = decoder and index + 1 == len(blocks) and run.kept
            self._block(block, min(run.rows, run.kept) if last else run.rows)
        if decoder:
            self._head()
        self.found.nodes = sum(self.found.counts.values()) + _AROUND[model.anatomy.kind]

    def _add(self, *operations: Operation) -> None:
        for one in operations:
            self.found.counts[one] += 1
            if one.op == FLOAT_PRODUCT:
                self.found.packed += one.read

    def _rows(self, op: str, rows: int, width: int, passes: int = 2) -> None:
        self._add(by_rows(op, rows, width, passes))

    def _table(self, decoder: bool) -> None:
        width, rows, scheme = self.model.anatomy.hidden_size, self.run.rows, self.model.embedding
        if decoder:
            self._rows("Gather" if scheme is None else "QuantizedRows", rows, width)
            self._norm(self.model.anatomy.blocks[0].norm1.kind, rows)
        elif scheme is not None and scheme.bits == 8:
            self._rows("EncoderEmbeddings", rows, width)
        else:
            for _ in range(3):
                self._rows("Gather", rows, width)
            self._rows("SumNorm", rows, width, 3)

    def _norm(self, kind: str, rows: int) -> None:
        op = "RootMeanSquareNorm" if kind == "rms" else "LayerNormalization"
        self._rows(op, rows, self.model.anatomy.hidden_size)

    def _add_and_norm(self, kind: str, rows: int) -> None:
        width = self.model.anatomy.hidden_size
        if self.model.anatomy.kind != "decoder":
            self._rows("SumNorm", rows, width, 3)
        elif kind == "rms":
            self._rows("SumRootMeanSquareNorm", rows, width, 4)
        else:
            self._rows("Sum", rows, width, 3)
            self._norm(kind, rows)

    def _block(self, block: BlockAnatomy, kept: int) -> None:
        part, rows, run = block.attention, self.run.rows, self.run
        for group in _runs(part.projections, self.model.schemes):
            product = self._product(rows, group)
            self._add(product)
            if product.op == FLOAT_PRODUCT and any(linear.bias for linear in group):
                self._rows("Add", rows, product.sizes[2], 3)
        if self.model.anatomy.kind == "decoder":
            window = -1 if part.sliding_window is None else part.sliding_window
            shape = (part.heads, part.kv_heads, part.head_dim)
            cache = self.model.cache
            self._add(cached_attention("CachedAttention", cache, rows, run.past, *shape, window=window))
        else:
            exact = not self._activations(part.q)
            self._add(encoder_attention(rows, run.length or rows, part.heads, part.head_dim, exact=exact))
        self._joined(part.o, block.norm1.kind, kept)
        self._feed_forward(block, kept)

    def _joined(self, linear: Linear, kind: str, rows: int) -> None:
        """A product and the norm of its sum with the residual, which are one operator in W8A8 encoders."""
        if self._activations(linear) and self.model.anatomy.kind != "decoder" and kind != "rms":
            self._add(integer_product(rows, linear.in_features, linear.out_features, residual=True))
            return
        self._add(self._product(rows, [linear]))
        self._add_and_norm(kind, rows)

    def _feed_forward(self, block: BlockAnatomy, rows: int) -> None:
        mlp, schemes = block.mlp, self.model.schemes
        scheme, width = schemes.get(mlp.up.name), mlp.up.out_features
        encodes = self.model.anatomy.kind != "decoder"
        if mlp.gate is None:
            active = encodes and self._activations(mlp.up)
            self._add(self._product(rows, [mlp.up], activation=active))
            if not active:
                biased = mlp.activation == "gelu" and mlp.up.bias
                self._rows("BiasGelu" if biased else _GELU.get(mlp.activation, "FastGelu"), rows, width)
        elif mlp.activation in _SILU and scheme is not None and not scheme.activations and not mlp.up.bias:
            self._add(self._product(rows, [mlp.gate, mlp.up], gated=True))
        else:
            for linear in (mlp.gate, mlp.up):
                self._add(self._product(rows, [linear]))
            self._rows(_GELU.get(mlp.activation, "FastGelu"), rows, width)
            self._rows("Mul", rows, width, 3)
        self._joined(mlp.down, block.norm2.kind, rows)

    def _head(self) -> None:
        anatomy, rows = self.model.anatomy, min(self.run.rows, self.run.kept or self.run.rows)
        scheme = self.model.embedding if anatomy.tied or anatomy.head is None else self.model.head
        self._add(_quantized(rows, anatomy.hidden_size, anatomy.vocab_size, scheme))

    def _activations(self, linear: Linear) -> bool:
        scheme = self.model.schemes.get(linear.name)
        return scheme is not None and scheme.activations is not None

    def _product(
        self, rows: int, linears: Sequence[Linear], *, gated: bool = False, activation: bool = False
    ) -> Operation:
        width, first = sum(linear.out_features for linear in linears), linears[0]
        if self._activations(first):
            return integer_product(rows, first.in_features, width, activation=activation)
        return _quantized(rows, first.in_features, width, self.model.schemes.get(first.name), gated=gated)


def _quantized(rows: int, k: int, n: int, scheme: Scheme | None, *, gated: bool = False) -> Operation:
    """A product whose weights alone are quantized, or not even they."""
    if scheme is None or scheme.format != "int":
        return float_product(rows, k, n)
    group, shared = _CHANNEL_GROUP, -(-k // _CHANNEL_GROUP)
    if scheme.group_size is not None:
        group = max(one for one in range(16, _LARGEST_GROUP + 1, 16) if scheme.group_size % one == 0)
        shared = scheme.group_size // group
    points = not scheme.symmetric
    return quantized_product(
        rows, k, n, scheme.bits, group=group, shared=shared, zero_points=points, gated=gated
    )


def _runs(linears: Sequence[Linear], schemes: Mapping[str, Scheme]) -> Iterator[list[Linear]]:
    """Neighbours of one scheme, which are one product."""
    for _, group in groupby(linears, key=lambda linear: schemes.get(linear.name)):
        yield list(group)
