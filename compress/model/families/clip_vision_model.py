"""CLIP's encoder of images: ViT with a norm before its blocks, whose class token is projected to a vector.

Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021, arXiv 2103.00020.
"""

from ..anatomy import Anatomy, Shapes
from ..outer_anatomy import Tower
from ._config import SizeKeys
from ._tensors import Config, norm, number
from ._vision_encoder import IMAGES, VisionBlock, VisionEncoder, bare_encoder, with_tower

BLOCK = VisionBlock(
    "layer_norm1", "layer_norm2", attention="self_attn", o="out_proj", activation="quick_gelu"
)
EPS = 1e-5
NAMES = VisionEncoder(
    prefix=IMAGES,
    blocks="encoder.layers",
    block=BLOCK,
    projection="patch_embedding",
    class_token="class_embedding",
    positions="position_embedding.weight",
    first_norm="pre_layrnorm",
    final_norm=None,
    eps=EPS,
)
SIZES = SizeKeys(heads=None)
READS_IMAGES = True


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    found = bare_encoder(config, shapes, NAMES)
    eps = number(config, "layer_norm_eps", EPS)
    pooled = norm(shapes, f"{found.base}post_layernorm", "layer", eps, found.hidden_size)
    projected = Tower("CLIPVisionModelWithProjection", "first", norm=pooled, projection="visual_projection")
    return with_tower(found, config, shapes, [projected, Tower("CLIPVisionModel", "first", norm=pooled)])
