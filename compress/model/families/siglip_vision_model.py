"""SigLIP's encoder of images: ViT without a class token, whose states a learned query attends to.

Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023, arXiv 2303.15343.
"""

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ..outer_anatomy import Tower
from ._config import SizeKeys
from ._tensors import Config, integer, norm, number, shape_of
from ._vision_encoder import IMAGES, VisionBlock, VisionEncoder, bare_encoder, with_tower

BLOCK = VisionBlock(
    "layer_norm1", "layer_norm2", attention="self_attn", o="out_proj", activation="gelu_pytorch_tanh"
)
EPS = 1e-6
NAMES = VisionEncoder(
    prefix=IMAGES,
    blocks="encoder.layers",
    block=BLOCK,
    projection="patch_embedding",
    class_token=None,
    positions="position_embedding.weight",
    final_norm="post_layernorm",
    eps=EPS,
)
SIZES = SizeKeys(heads=None)
READS_IMAGES = LOOKS_AT_WEIGHTS = True


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    if config.get("vision_use_head") is False:
        raise CheckpointError(
            "config.json sets vision_use_head to false: the model has no vector of an image"
        )
    found = bare_encoder(config, shapes, NAMES)
    head = f"{found.base}head"
    eps, hidden = number(config, "layer_norm_eps", EPS), found.hidden_size
    shape_of(shapes, f"{head}.probe", 1, 1, hidden)
    shape_of(shapes, f"{head}.attention.in_proj_weight", 3 * hidden, hidden)
    shape_of(shapes, f"{head}.mlp.fc1.weight", None, hidden)
    inner = norm(shapes, f"{head}.layernorm", "layer", eps, hidden)
    heads = integer(config, "num_attention_heads")
    tower = Tower("SiglipVisionModel", "probe", norm=inner, probe=head, heads=heads)
    return with_tower(found, config, shapes, [tower])
