"""DINOv2: ViT learned without labels, whose blocks scale what they add by channel.

Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, 2023, arXiv 2304.07193.
"""

from ..anatomy import Anatomy, Shapes
from ._config import SizeKeys
from ._encoder_head import HeadNames
from ._tensors import Config
from ._vision_encoder import VisionBlock, VisionEncoder, vision_encoder

NAMES = VisionEncoder(
    prefix="dinov2.",
    blocks="encoder.layer",
    block=VisionBlock("norm1", "norm2", scales=("layer_scale1.lambda1", "layer_scale2.lambda1")),
    head=HeadNames(dense=None, out="classifier", pooling="first_and_mean"),
    interpolates=True,
)
READS_IMAGES = SPLITS_MATRICES = True
# Its config has no width of the MLP, but a ratio.
SIZES = SizeKeys(ffn=None, heads=None)


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    return vision_encoder(config, shapes, NAMES)
