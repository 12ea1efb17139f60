"""ModernBERT: pre-norm blocks without biases; two of three see a window of the text, by a rope of their own.

Warner et al., Smarter, Better, Faster, Longer, 2024, arXiv 2412.13663.
"""

from dataclasses import replace

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ._config import FULL, SLIDING, SizeKeys, rope_of_kind, windows_of_types
from ._encoder_head import ACTIVATIONS, HeadNames
from ._rope_encoder import RopeEncoder, pooling_of, rope_encoder
from ._tensors import Config, integer, norm, number, text

FAMILY = RopeEncoder(
    prefix="model.",
    embedding="embeddings.tok_embeddings",
    head=HeadNames("head.dense", "classifier", "gelu", of_spans="classifier", shared=True),
    qkv=("attn.Wqkv",),
    o="attn.Wo",
    norm1="attn_norm",
    gate_up=("mlp.Wi",),
    down="mlp.Wo",
    norm2="mlp_norm",
    norm_kind="layer",
    eps_key="norm_eps",
    eps=1e-5,
    max_positions=8192,
    theta=160_000.0,
    embedding_norm="embeddings.norm",
    final_norm="final_norm",
    activation_key="hidden_activation",
    activation="gelu",
)
LOCAL_THETA, LOCAL, INTERVAL = 10_000.0, 128, 3
NORM = "head.norm"
SIZES = SizeKeys(heads=None)
LOOKS_AT_WEIGHTS = True


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    count, sizes = integer(config, "num_hidden_layers"), ("hidden_size", "num_attention_heads")
    hidden, heads = (integer(config, key) for key in sizes)
    kinds = config.get("layer_types")
    if kinds is None:
        interval = integer(config, "global_attn_every_n_layers", INTERVAL)
        kinds = [SLIDING if index % interval else FULL for index in range(count)]
    windows = windows_of_types(kinds, count, integer(config, "local_attention", LOCAL) // 2)
    # Before transformers 5 the config had a theta for each kind.
    whole, local = (
        rope_of_kind(config, kind, number(config, key, theta), hidden // heads)
        for kind, key, theta in (
            (FULL, "global_rope_theta", FAMILY.theta),
            (SLIDING, "local_rope_theta", LOCAL_THETA),
        )
    )
    turned = [whole if window is None else local for window in windows]
    family = replace(FAMILY, head=_head(config, shapes, hidden))
    return rope_encoder(config, shapes, family, windows=windows, ropes=turned)


def _head(config: Config, shapes: Shapes, hidden: int) -> HeadNames:
    """A classifier's, which normalizes what the activation gives."""
    named = text(config, "classifier_activation", "gelu")
    activation = next((known for known in ACTIVATIONS if known == named), None)
    if activation is None:
        raise CheckpointError(f"config.json: classifier_activation {named!r} is not supported")
    inner = None
    if f"{NORM}.weight" in shapes:
        eps = number(config, FAMILY.eps_key, FAMILY.eps)
        inner = norm(shapes, NORM, "layer", eps, hidden, bias=f"{NORM}.bias" in shapes)
    pooling = pooling_of(config, "cls")
    return replace(FAMILY.head, activation=activation, norm=inner, pooling=pooling)
