"""BERT, MiniLM and other models that publish under ``bert``.

Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers, 2018, arXiv 1810.04805.
"""

from ..anatomy import Anatomy, Shapes
from ._bert_like import BertLike, bert_like
from ._config import SizeKeys
from ._encoder_head import HeadNames
from ._tensors import Config

NAMES = BertLike(prefix="bert.", head=HeadNames(dense="bert.pooler.dense", out="classifier"))
SIZES = SizeKeys(heads=None)


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    return bert_like(config, shapes, NAMES)
