"""T5, v1.0 and v1.1, and Flan-T5: an encoder and a decoder of relative positions.

Raffel et al., Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer, 2019, arXiv
1910.10683; Shazeer, GLU Variants Improve Transformer, 2020, arXiv 2002.05202.
"""

from ..anatomy import Anatomy, Shapes
from ._config import SizeKeys
from ._t5_like import T5Like, t5_like
from ._tensors import Config

FAMILY = T5Like(feed_forward="relu", scales=True)
SIZES = SizeKeys(
    ffn="d_ff",
    layers="num_layers",
    heads=("num_heads", "num_heads", "d_kv"),
    decoder_layers="num_decoder_layers",
    hidden="d_model",
    query_heads="num_heads",
    positions="n_positions",
)
LOOKS_AT_WEIGHTS = True


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    return t5_like(config, shapes, FAMILY)
