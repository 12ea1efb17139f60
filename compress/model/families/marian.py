"""Marian: translators, BART's blocks with positions of sines and a bias of the words that are written.

Junczys-Dowmunt et al., Marian: Fast Neural Machine Translation in C++, 2018, arXiv 1804.00344.
"""

from ..anatomy import Anatomy, Shapes
from ._bart_like import LOOKS_AT_WEIGHTS as LOOKS_AT_WEIGHTS
from ._bart_like import SIZES as SIZES
from ._bart_like import BartLike, bart_like
from ._tensors import Config

FAMILY = BartLike(
    learned_positions=False, normed_embedding=False, architecture="MarianMTModel", bare="MarianModel"
)


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    return bart_like(config, shapes, FAMILY)
