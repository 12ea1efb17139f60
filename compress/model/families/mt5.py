"""mT5: T5 v1.1 with a vocabulary of a hundred languages.

Xue et al., mT5: A Massively Multilingual Pre-trained Text-to-Text Transformer, 2020, arXiv 2010.11934.
"""

from ..anatomy import Anatomy, Shapes
from ._t5_like import T5Like, t5_like
from ._tensors import Config
from .t5 import LOOKS_AT_WEIGHTS as LOOKS_AT_WEIGHTS
from .t5 import SIZES as SIZES

FAMILY = T5Like(feed_forward="gated-gelu")


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    return t5_like(config, shapes, FAMILY)
