"""ALBERT: BERT's form, one block that is applied as often as the model has layers, and an embedding of
another width than the blocks.

Lan et al., ALBERT: A Lite BERT for Self-supervised Learning of Language Representations, 2019, arXiv
1909.11942.
"""

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ._bert_like import BertLike, BlockNames, bert_like
from ._config import SizeKeys
from ._encoder_head import HeadNames
from ._tensors import Config, integer

GROUPS = "encoder.albert_layer_groups"
NAMES = BertLike(
    prefix="albert.",
    head=HeadNames(dense="albert.pooler", out="classifier"),
    blocks=f"{GROUPS}.0.albert_layers",
    block=BlockNames(
        q="attention.query",
        k="attention.key",
        v="attention.value",
        o="attention.dense",
        norm1="attention.LayerNorm",
        up="ffn",
        down="ffn_output",
        norm2="full_layer_layer_norm",
    ),
    projection="encoder.embedding_hidden_mapping_in",
    shared=True,
)
SIZES = SizeKeys(heads=None)
POOLER = "pooler"
# What transformers takes where the config is silent.
DEFAULTS = {"hidden_act": "gelu_new", "num_hidden_layers": 12}


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    for key in ("num_hidden_groups", "inner_group_num"):
        if integer(config, key, 1) != 1:
            raise CheckpointError(
                f"config.json: an ALBERT with {key} {config[key]} is not supported, only 1",
                why="its layers then are several blocks, which take turns",
            )
    strange = next((name for name in shapes if GROUPS in name and f"{GROUPS}.0." not in name), None)
    if strange is not None:
        raise CheckpointError(f"tensor {strange!r} is outside the 1 group of layers of config.json")
    return bert_like({**DEFAULTS, **config}, shapes, NAMES)
