"""DistilBERT: BERT's form under other names, without token types.

Sanh et al., DistilBERT, a distilled version of BERT, 2019, arXiv 1910.01108.
"""

from ..anatomy import Anatomy, Shapes
from ._bert_like import BertLike, BlockNames, bert_like
from ._config import SizeKeys
from ._encoder_head import HeadNames
from ._tensors import Config

NAMES = BertLike(
    prefix="distilbert.",
    head=HeadNames(dense="pre_classifier", out="classifier", activation="relu"),
    blocks="transformer.layer",
    block=BlockNames(
        q="attention.q_lin",
        k="attention.k_lin",
        v="attention.v_lin",
        o="attention.out_lin",
        norm1="sa_layer_norm",
        up="ffn.lin1",
        down="ffn.lin2",
        norm2="output_layer_norm",
    ),
    count_key="n_layers",
    heads_key="n_heads",
    activation_key="activation",
    eps_key=None,
)
SIZES = SizeKeys(ffn="hidden_dim", layers="n_layers", heads=None, hidden="dim", query_heads="n_heads")


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    return bert_like(config, shapes, NAMES)
