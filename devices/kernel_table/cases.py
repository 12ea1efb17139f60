"""What a kernel table measures: the operators of the graphs that edgepress exports, at sizes between which a
prediction interpolates. Those of the bundles that are exported most come first, so that a table that was
stopped serves already: weights of 4 and 8 bits, caches of float32, encoders of 8 bits and of floats.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Any, Literal

from . import node_kinds as kinds
from .node_kinds import NodeKind
from .table import Family, KernelTable

Reach = Literal["near", "far"]
ROWS, FEW = (1, 4, 16, 128, 512), (1, 4, 16)
# Widths of models from 10 million to 10 billion parameters; a head has more outputs than any of them.
_INPUTS, _OUTPUTS, _HEAD = (256, 1024, 4096), (256, 1024, 4096), 32768
_HEAD_ROWS = 4
_FEATURES = ({"group": 32}, {"group": 128}, {"shared": 16}, {"gated": 1}, {"zero_points": 1}, {"wide": 1})
_WORD_BITS = (2, 3, 4)  # of trellis grids
_SHAPES = ((9, 3, 64), (8, 8, 64), (32, 8, 64), (32, 8, 128), (16, 2, 128), (16, 16, 32), (16, 8, 32))
_CACHES = ("float32", "float16", "int8", "uint8")
_CONTEXTS = (16, 128, 1024, 4096)
_REACHES: tuple[Reach, Reach] = ("near", "far")
_PROMPTS = tuple(product((16, 64, 256), (0, 768)))
_NORMS = (
    *("SumRootMeanSquareNorm", "RootMeanSquareNorm", "LayerNormalization"),
    *("SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization"),
)
_WIDTHS = (256, 1024, 4096)
Done = dict[tuple[int, int], tuple[float, float]]  # case and threads: median and least seconds of a node


@dataclass(frozen=True)
class Case:
    """A node at certain sizes, whose weights lie in the core's own cache (near) or in memory (far)."""

    kind: NodeKind
    reach: Reach


def cases() -> list[Case]:
    """All of them, the :func:`common` ones first."""
    return [*_common(), *_rarer()]


def common() -> int:
    """How many, from the first, the default bundles of most models consist of."""
    return len(list(_common()))


def _common() -> Iterator[Case]:
    yield from chain(_own_products(4), _by_rows(), _attention("float32"), _own_products(8))
    yield from chain(_encoders(), _floats())


def _rarer() -> Iterator[Case]:
    yield from chain(*map(_own_products, (3, 2, 6, 5)))
    yield from chain(*(_attention(cache) for cache in _CACHES if cache != "float32"))
    yield from _standard()


def _both(kind: NodeKind) -> Iterator[Case]:
    """Many rows read their weights once for all of them: where from matters little."""
    yield Case(kind, "near")
    if kind.operation.sizes[0] in FEW or kind.operation.kind == "step":
        yield Case(kind, "far")


def _grid(rows: tuple[int, ...] = ROWS) -> Iterator[tuple[int, int, int]]:
    return product(rows, _INPUTS, _OUTPUTS)


def _own_products(bits: int) -> Iterator[Case]:
    for sizes in _grid():
        yield from _both(kinds.quantized(*sizes, bits))
    for rows, features in product((1, 16, 128), _FEATURES):
        yield from _both(kinds.quantized(rows, 1024, 1024, bits, **features))
    for rows in (1, 16, 128) if bits in _WORD_BITS else ():
        yield from _both(kinds.quantized(rows, 1024, 1024, bits, shared=16, trellis=True))
    for rows, inputs in product((1, 4), (256, 2048)):
        yield from _both(kinds.quantized(rows, inputs, _HEAD, bits))


def _attention(cache: str) -> Iterator[Case]:
    for shape in _SHAPES if cache == "float32" else _SHAPES[:4]:
        for context in _CONTEXTS:
            yield from _both(kinds.attention(cache, 1, context - 1, *shape))
        for rows, past in _PROMPTS:
            yield Case(kinds.attention(cache, rows, past, *shape), "near")


def _by_rows() -> Iterator[Case]:
    for rows, width in product((1, 16, 256), _WIDTHS):
        for op in _NORMS:
            yield Case(kinds.norm(op, rows, width), "near")
        for op in kinds.ELEMENTWISE:
            yield Case(kinds.elementwise(op, rows, width), "near")
        for op in ("QuantizedRows", "Gather"):
            yield Case(kinds.lookup(op, rows, width), "near")


def _encoders() -> Iterator[Case]:
    features: tuple[dict[str, bool], ...] = ({}, {"activation": True}, {"residual": True})
    for feature, rows, inputs, outputs in product(features, (1, 16, 128, 512), (256, 1536), (256, 1536)):
        yield from _both(kinds.integer(rows, inputs, outputs, **feature))
    for exact, dim in product((True, False), (32, 64)):
        for count, length in product((1, 4, 16), (8, 64, 256)):
            yield Case(kinds.texts(count, length, 12, dim, exact=exact), "near")
    for rows, width in product((1, 16, 256), _WIDTHS):
        yield Case(kinds.norm("SumNorm", rows, width), "near")
        yield Case(kinds.embeddings(rows, width), "near")


def _packed(make: Callable[..., NodeKind], *form: int) -> Iterator[Case]:
    """Products whose weights the runtime packs: those from memory are few, since it packs half the stock."""
    for sizes in product((1, 16, 256), _INPUTS, _OUTPUTS):
        yield Case(make(*sizes, *form), "near")
    for rows in (1, 16):
        yield Case(make(rows, 2048, 2048, *form), "far")
    for reach in _REACHES:
        yield Case(make(1, 512, _HEAD, *form), reach)


def _floats() -> Iterator[Case]:
    yield from _packed(kinds.floats)


def _standard() -> Iterator[Case]:
    for bits in (4, 8, 2):
        yield from _packed(kinds.nbits, bits, 32)
        for rows, block in product((1, 128), (64, 128)):
            yield Case(kinds.nbits(rows, 1024, 1024, bits, block), "near")
    yield from _packed(kinds.integer_to_float)
    for dim, (count, length) in product((32, 64), product((1, 4, 16), (8, 64, 256))):
        yield Case(kinds.standard_texts(count, length, 12, dim), "near")
    for cache, shapes in (("float32", _SHAPES[:4]), ("int8", _SHAPES[:1])):
        for shape in shapes:
            for context in _CONTEXTS:
                yield from _both(kinds.attention(cache, 1, context - 1, *shape, standard=True))
            for rows, past in _PROMPTS:
                yield Case(kinds.attention(cache, rows, past, *shape, standard=True), "near")


def done_of(table: KernelTable) -> Done:
    """What a measurement that was stopped has timed."""
    found = {
        (one.op, one.form, tuple(one.features), one.kind, one.reach, one.threads, tuple(size)): (
            median,
            least,
        )
        for one in table.families
        for size, median, least in zip(one.sizes, one.seconds, one.least, strict=True)
    }
    threads = {one.threads for one in table.families}
    return {
        (index, count): found[key]
        for index, case in enumerate(cases())
        for count in threads
        if (key := (*_family(case), count, case.kind.operation.sizes)) in found
    }


def _family(case: Case) -> tuple[str, str, tuple[str, ...], str, str]:
    work = case.kind.operation
    return work.op, work.form, work.features, work.kind, case.reach


def families_of(done: Done, known: Sequence[Case]) -> list[Family]:
    """One for each operator, form, reach and number of threads of the cases that are ``known``."""
    groups = dict[Any, list[tuple[Any, float, float]]]()
    for (index, threads), (median, least) in sorted(done.items()):
        case = known[index]
        groups.setdefault((*_family(case), threads), []).append((case.kind.operation, median, least))
    return [
        Family(
            op=op,
            form=form,
            features=list(features),
            kind=kind,
            reach=reach,
            threads=threads,
            sizes=[list(work.sizes) for work, _, _ in members],
            read=[work.read for work, _, _ in members],
            moved=[work.moved for work, _, _ in members],
            work=[work.work for work, _, _ in members],
            seconds=[float(f"{median:.4g}") for _, median, _ in members],
            least=[float(f"{least:.4g}") for _, _, least in members],
        )
        for (op, form, features, kind, reach, threads), members in groups.items()
    ]
