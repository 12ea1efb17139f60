"""RoBERTa: BERT's form; positions are counted from the row after the padding token's.

Liu et al., RoBERTa: A Robustly Optimized BERT Pretraining Approach, 2019, arXiv 1907.11692.
"""

from ..anatomy import Anatomy, Shapes
from ._bert_like import BertLike, bert_like, first_position
from ._config import SizeKeys
from ._encoder_head import HeadNames
from ._tensors import Config

DEFAULT_PAD = 1
NAMES = BertLike(prefix="roberta.", head=HeadNames(dense="classifier.dense", out="classifier.out_proj"))
SIZES = SizeKeys(heads=None)


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    return bert_like(config, shapes, NAMES, position_offset=first_position(config, DEFAULT_PAD))
