"""What an encoder has around its blocks beyond llama.cpp's plainest, its labels among it."""

from __future__ import annotations

from collections.abc import Iterator

from ..anatomy import Anatomy
from ..block_anatomy import Norm
from . import architecture as names
from .architecture import GgufArchitecture


def norms_of(anatomy: Anatomy) -> Iterator[Norm]:
    """Every norm of a model of one stack."""
    inner = None if anatomy.classifier is None else anatomy.classifier.norm
    yield from filter(None, (anatomy.embedding_norm, anatomy.final_norm, inner))
    for block in anatomy.blocks:
        yield from block.norms()


def encoder_features(anatomy: Anatomy, found: GgufArchitecture) -> Iterator[str]:
    """What an encoder has before its first block and behind its last one, alone or before a decoder."""
    kinds = {"encoder": names.ENCODES, "encoder_decoder": names.TWO_STACKS}
    if anatomy.kind in kinds:
        yield kinds[anatomy.kind]
    if anatomy.position_biases:
        yield names.DISTANCES
        if anatomy.farthest_bias != found.farthest:
            yield f"biases of distances up to {anatomy.farthest_bias}"
    if anatomy.embedding_projection is not None:
        yield "a projection of the embedding"
    if anatomy.token_type_embedding is not None:
        yield names.TOKEN_TYPES
    labels = anatomy.classifier
    if labels is None:
        return
    yield "labels of tokens" if labels.by_token else names.LABELS
    normed = (labels.norm is not None) == found.label_norm
    if labels.dense is None or not normed or labels.activation != found.label_activation:
        between = f"{found.label_activation}{', a norm' * found.label_norm}"
        yield f"labels by another head than a linear, {between} and a linear"
    if labels.pooling != found.label_pooling:
        wanted = "those of first tokens" if found.label_pooling == "first" else "the mean of all"
        yield f"labels of other states than {wanted}"
