"""ViT: squares of an image as tokens, with a class token that a classifier reads.

Dosovitskiy et al., An Image is Worth 16x16 Words, 2020, arXiv 2010.11929.
"""

from ..anatomy import Anatomy, Shapes
from ._config import SizeKeys
from ._encoder_head import HeadNames
from ._tensors import Config
from ._vision_encoder import VisionBlock, VisionEncoder, vision_encoder

NAMES = VisionEncoder(
    prefix="vit.",
    blocks="layers",
    block=VisionBlock("layernorm_before", "layernorm_after"),
    head=HeadNames(dense=None, out="classifier"),
    eps=1e-12,
)
READS_IMAGES = True
SIZES = SizeKeys(heads=None)


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    return vision_encoder(config, shapes, NAMES)
