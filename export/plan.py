"""What an export needs of the machine, found from the checkpoint's shapes before any weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..compress.bundle_size import bits_in_bundle, bundle_bytes
from ..compress.costs import LIBRARIES
from ..compress.model.weights import WeightSource

_FLOAT = 4
# Tokens that a proof runs through torch and each graph, about.
_PROOF_TOKENS = 600


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
    anatomy = source.anatomy
    bits = {linear.name: linear.in_features for linear in anatomy.all_linears()}
    stored = {name: bits_in_bundle(source.schemes.get(name), width) for name, width in bits.items()}
    embedding = None if source.embedding_scheme is None else source.embedding_scheme.name
    bundle = bundle_bytes(source, anatomy, stored, embedding, 0)
    whole = _FLOAT * sum(prod(shape) for shape in source.shapes.values())
    largest = _FLOAT * max(prod(shape) for shape in source.shapes.values())
    memory = sum(map(source.reader.nbytes, source.reader.shapes)) + 2 * largest
    if validate:
        memory = 2 * whole + bundle
    disk = bundle + whole * (validate + gate)
    return ExportNeeds(LIBRARIES + memory, disk, _PROOF_TOKENS * whole / _FLOAT if validate else 0.0)
