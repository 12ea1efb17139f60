"""SigLIP's encoder of texts: of a text that is filled up with padding the last state becomes a vector.

Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023, arXiv 2303.15343.
"""

from ..anatomy import Anatomy, Shapes
from ..outer_anatomy import Tower
from ._config import SizeKeys
from ._tensors import Config
from ._vision_encoder import text_encoder, with_tower
from .siglip_vision_model import BLOCK, EPS

SIZES = SizeKeys(heads=None)
LOOKS_AT_WEIGHTS = True


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    found = text_encoder(config, shapes, BLOCK, EPS)
    tower = Tower("SiglipTextModel", "last", projection=f"{found.base}head", filled=True)
    return with_tower(found, config, shapes, [tower])
