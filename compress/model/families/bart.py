"""BART: an encoder and a decoder of learned positions.

Lewis et al., BART: Denoising Sequence-to-Sequence Pre-training for Natural Language Generation, Translation,
and Comprehension, 2019, arXiv 1910.13461.
"""

from ..anatomy import Anatomy, Shapes
from ._bart_like import LOOKS_AT_WEIGHTS as LOOKS_AT_WEIGHTS
from ._bart_like import SIZES as SIZES
from ._bart_like import BartLike, bart_like
from ._tensors import Config

FAMILY = BartLike(
    learned_positions=True,
    normed_embedding=True,
    architecture="BartForConditionalGeneration",
    bare="BartModel",
)


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    return bart_like(config, shapes, FAMILY)
