"""CLIP's encoder of texts: tokens see those before them, and the end token's state is projected to a vector.

Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021, arXiv 2103.00020.
"""

from ..anatomy import Anatomy, Shapes
from ..outer_anatomy import Tower
from ._config import SizeKeys
from ._tensors import Config, integer
from ._vision_encoder import text_encoder, with_tower
from .clip_vision_model import BLOCK, EPS

SIZES = SizeKeys(heads=None)
# What configs said before transformers 4.31, whatever the end token was: the largest id is it.
_UNKNOWN_END = 2


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    found = text_encoder(config, shapes, BLOCK, EPS, causal=True)
    end = integer(config, "eos_token_id", 49_407)
    known = None if end == _UNKNOWN_END else end
    projected = Tower("CLIPTextModelWithProjection", "end", end=known, projection="text_projection")
    return with_tower(found, config, shapes, [projected, Tower("CLIPTextModel", "end", end=known)])
