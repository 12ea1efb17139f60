"""What an export needs of the machine, found from the checkpoint's shapes before any weight is read."""

from dataclasses import dataclass
from math import prod

from ..compress.bundle_size import bits_in_bundle, bundle_bytes
from ..compress.costs import LIBRARIES
from ..compress.model.weights import WeightSource
from ..compress.pipeline.advance import weights_of

_FLOAT = 4
# ONNX Runtime and the tokenizer; and the hidden states of a few rows of what has an encoder.
_AROUND, _STATES = 60 << 20, 140 << 20
# Rows of a float table that are rounded or compared at once, and how many float copies of them that takes.
_ROWS, _ROUNDED, _COMPARED = 8192, 6, 2
# Tokens that a proof runs through each block, in torch, in float and exactly, about.
_PROOF_TOKENS = 1400
# Bytes for each token of the vocabulary: the logits of all texts of an encoder–decoder, put together, and
# those of a row of a decoder's 96 tokens: torch's, exact and rounded, the graph's, and their probabilities.
_OF_TEXTS, _OF_A_ROW = 2 * 9 * 32 * _FLOAT, 10 * 96 * _FLOAT


@dataclass(frozen=True)
class ExportNeeds:
    """At the most.

    Attributes:
        memory: resident bytes, the libraries included.
        disk: bytes on the output's disk, what is published included.
        multiplications: multiply-adds of float32 products.
    """

    memory: int
    disk: int
    multiplications: float


def export_needs(source: WeightSource, *, validate: bool = True, gate: bool = False) -> ExportNeeds:
    """What ``export`` of ``source`` as a bundle needs, with its proof (``validate``), and with its float32
    twin beside it (``gate``). Other formats need no more.
    """
    sizes = {name: _FLOAT * prod(shape) for name, shape in source.shapes.items()}
    whole, bundle = sum(sizes.values()), planned_bundle_bytes(source)
    memory = _writing(source, sizes)
    if validate:
        memory = max(memory, _proving(source, sizes, bundle))
    disk = bundle + whole * gate
    work = _PROOF_TOKENS * whole / _FLOAT if validate else 0.0
    return ExportNeeds(LIBRARIES + _AROUND + memory, disk, work)


def planned_bundle_bytes(source: WeightSource) -> int:
    """Bytes of the bundle of ``source``."""
    linears = source.anatomy.linears()
    stored = {one.name: bits_in_bundle(source.schemes.get(one.name), one.in_features) for one in linears}
    return bundle_bytes(source, source.anatomy, stored, (source.embedding_scheme, source.head_scheme), 0)


def _writing(source: WeightSource, sizes: dict[str, int]) -> int:
    """One tensor at a time: as it is stored, in float32 or as codes, and packed."""
    rounded = source.embedding_scheme is not None
    table = f"{source.anatomy.embedding}.weight"
    held = [2 * size for name, size in sizes.items() if not (rounded and name == table)]
    return max(held, default=0) if not rounded else max(*held, _table(source, sizes[table], _ROUNDED))


def _proving(source: WeightSource, sizes: dict[str, int], bundle: int) -> int:
    """The largest block in float32 and what of its tensors is put together; or the whole graph, mapped, with
    the head that torch has, or an encoder's table in float; and logits.
    """
    anatomy = source.anatomy
    blocks = [[_FLOAT * weights_of(one) for one in block.linears()] for block in anatomy.blocks]
    block = max(sum(linears) + max(linears) for linears in blocks)
    table = sizes.get(f"{anatomy.embedding}.weight", 0)  # none where images are read
    if anatomy.kind == "encoder":
        return max(block + bundle // len(blocks), bundle, 2 * table) + _STATES
    head = _table(source, table, _COMPARED)
    decoder = anatomy.kind == "decoder"
    kept = _OF_A_ROW * anatomy.vocab_size if decoder else _OF_TEXTS * anatomy.vocab_size + _STATES
    return max(block + bundle // len(blocks), bundle + head) + kept


def _table(source: WeightSource, size: int, copies: int) -> int:
    """A table of ``size`` bytes in float32: as it is stored, its codes, and ``copies`` of some of its rows in
    float.
    """
    anatomy = source.anatomy
    stored = source.stored_bytes(f"{anatomy.embedding}.weight")
    return stored + size // 2 + copies * _ROWS * anatomy.hidden_size * _FLOAT
