"""MPNet: RoBERTa's form without token types; one table of biases by distance serves the scores of all blocks.

Song et al., MPNet: Masked and Permuted Pre-training for Language Understanding, 2020, arXiv 2004.09297.
"""

from ..anatomy import Anatomy, Shapes
from ._bert_like import BertLike, BlockNames, bert_like
from ._config import SizeKeys
from ._encoder_head import HeadNames
from ._tensors import Config

# transformers counts from there, whatever the padding token is.
FIRST_POSITION = 2
NAMES = BertLike(
    prefix="mpnet.",
    head=HeadNames(dense="classifier.dense", out="classifier.out_proj"),
    block=BlockNames(
        q="attention.attn.q",
        k="attention.attn.k",
        v="attention.attn.v",
        o="attention.attn.o",
        norm1="attention.LayerNorm",
    ),
    position_bias="encoder.relative_attention_bias",
)
SIZES = SizeKeys(heads=None)


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    return bert_like(config, shapes, NAMES, position_offset=FIRST_POSITION)
