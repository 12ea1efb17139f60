"""GTE: BERT's blocks with a rope and a gated MLP.

Zhang et al., mGTE: Generalized Long-Context Text Representation and Reranking Models for Multilingual Text
Retrieval, 2024, arXiv 2407.19669.
"""

from dataclasses import replace

from ..anatomy import Anatomy, Shapes
from . import nomic_bert
from ._config import SizeKeys
from ._encoder_head import HeadNames
from ._rope_encoder import rope_encoder
from ._tensors import Config

FAMILY = replace(
    nomic_bert.FAMILY,
    prefix="gte.",
    head=HeadNames(dense="gte.pooler.dense", out="classifier"),
    max_positions=8192,
    theta=160_000.0,
    activation="gelu",
)
SIZES = SizeKeys(heads=None)


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    return rope_encoder(config, shapes, FAMILY)
