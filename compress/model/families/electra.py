"""ELECTRA: BERT's form; the embedding may be narrower than the blocks, and a linear widens it.

Clark et al., ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators, 2020, arXiv
2003.10555.
"""

from ..anatomy import Anatomy, Shapes
from ._bert_like import BertLike, bert_like
from ._config import SizeKeys
from ._encoder_head import HeadNames
from ._tensors import Config

HEAD = HeadNames(dense="classifier.dense", out="classifier.out_proj", activation="gelu")
NAMES = BertLike(prefix="electra.", head=HEAD, projection="embeddings_project")
SIZES = SizeKeys(heads=None)


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    return bert_like(config, shapes, NAMES)
