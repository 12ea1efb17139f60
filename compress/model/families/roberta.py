"""RoBERTa: BERT's form; positions are counted from the row after the padding token's.

Liu et al., RoBERTa: A Robustly Optimized BERT Pretraining Approach, 2019, arXiv 1907.11692.
"""

from __future__ import annotations

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ._bert_like import BertLike, HeadNames, bert_like
from ._config import SizeKeys
from ._tensors import Config

DEFAULT_PAD = 1
NAMES = BertLike(prefix="roberta.", head=HeadNames(dense="classifier.dense", out="classifier.out_proj"))
SIZES = SizeKeys(heads=None)


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    pad = config.get("pad_token_id", DEFAULT_PAD)
    if type(pad) is not int or pad < 0:
        raise CheckpointError(f"config.json: pad_token_id must be a token id, not {pad!r}")
    return bert_like(config, shapes, NAMES, position_offset=pad + 1)
