"""Encoders in BERT's form: post-norm blocks with LayerNorm, learned positions, a plain MLP.

BERT, RoBERTa, DistilBERT, ELECTRA and MPNet differ in names, in the first position, in the width of the
embedding and in whether scores are biased by distance, so a family is a table of names.
A classifier's head, of texts or of tokens, is read, and any other head is named, so that none is left out
silently; a masked language model and a checkpoint from pretraining are encoders: their head served to learn
by.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from ....errors import CheckpointError
from ..anatomy import Anatomy, Classifier, Shapes
from ..block_anatomy import Attention, BlockAnatomy, Mlp, Norm
from ._tensors import Config, check_blocks, heads_in, integer, linear, norm, number, shape_of, text

EMBEDDING = "embeddings.word_embeddings"


@dataclass(frozen=True)
class BlockNames:
    """The modules of a block, relative to it."""

    q: str = "attention.self.query"
    k: str = "attention.self.key"
    v: str = "attention.self.value"
    o: str = "attention.output.dense"
    norm1: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    norm2: str = "output.LayerNorm"

    def all(self) -> frozenset[str]:
        """Every module that a block has."""
        return frozenset(getattr(self, item.name) for item in fields(self))


@dataclass(frozen=True)
class BertLike:
    """What tells one family from another: module names, and the config keys of its sizes.

    ``prefix`` is the module that a checkpoint with a head keeps the encoder in; without a head there is none.
    ``head`` is the classifier's names. ``projection`` leads from embeddings of another width to the hidden
    size, where it is stored; ``position_bias`` is the table of biases by distance.
    """

    prefix: str
    head: HeadNames
    blocks: str = "encoder.layer"
    block: BlockNames = BlockNames()
    count_key: str = "num_hidden_layers"
    heads_key: str = "num_attention_heads"
    activation_key: str = "hidden_act"
    eps_key: str | None = "layer_norm_eps"
    projection: str | None = None
    position_bias: str | None = None


def bert_like(config: Config, shapes: Shapes, family: BertLike, *, position_offset: int = 0) -> Anatomy:
    """The anatomy of an encoder whose first token reads row ``position_offset`` of the position table."""
    _check_plain_encoder(config)
    base = family.prefix if f"{family.prefix}{EMBEDDING}.weight" in shapes else ""
    count = integer(config, family.count_key)
    blocks_name = f"{base}{family.blocks}"
    check_blocks(shapes, blocks_name, count, family.block.all())
    vocabulary, width = shape_of(shapes, f"{base}{EMBEDDING}.weight", None, None)
    projection = f"{base}{family.projection}"
    projected = family.projection is not None and f"{projection}.weight" in shapes
    hidden = linear(shapes, projection, "up", inputs=width).out_features if projected else width
    eps = number(config, family.eps_key, 1e-12) if family.eps_key else 1e-12
    positions = f"{base}embeddings.position_embeddings"
    token_types = f"{base}embeddings.token_type_embeddings"
    rows = shape_of(shapes, f"{positions}.weight", None, width)[0]
    if rows <= position_offset:
        raise CheckpointError(
            f"tensor {positions + '.weight'!r} has {rows} rows, positions begin at {position_offset}"
        )
    if f"{token_types}.weight" in shapes:
        shape_of(shapes, f"{token_types}.weight", None, width)
    bias = family.position_bias and f"{base}{family.position_bias}"
    if bias is not None:
        shape_of(shapes, f"{bias}.weight", None, integer(config, family.heads_key))
    classifier, other_head = encoder_head(config, shapes, family.head, base, hidden)
    return Anatomy(
        model_type=text(config, "model_type", ""),
        kind="encoder",
        base=base,
        hidden_size=hidden,
        vocab_size=vocabulary,
        max_positions=rows - position_offset,
        blocks=tuple(
            _block(config, shapes, family, blocks_name, index, hidden, eps) for index in range(count)
        ),
        embedding=f"{base}{EMBEDDING}",
        position_embedding=positions,
        token_type_embedding=token_types if f"{token_types}.weight" in shapes else None,
        embedding_norm=norm(shapes, f"{base}embeddings.LayerNorm", "layer", eps, width),
        embedding_projection=projection if projected else None,
        position_biases=() if bias is None else (bias,),
        position_offset=position_offset,
        renamed=((base, ""),) if base and classifier is None else (),
        classifier=classifier,
        other_head=other_head,
    )


def first_position(config: Config, pad: int) -> int:
    """Of families that count positions from the row after the padding token's, by default ``pad``."""
    pad = config.get("pad_token_id", pad)
    if type(pad) is not int or pad < 0:
        raise CheckpointError(f"config.json: pad_token_id must be a token id, not {pad!r}")
    return pad + 1


def _check_plain_encoder(config: Config) -> None:
    for key in ("is_decoder", "add_cross_attention"):
        if config.get(key):
            raise CheckpointError(
                f"config.json sets {key}: this is not a plain encoder", fix="give an encoder"
            )
    kind = text(config, "position_embedding_type", "absolute")
    if kind != "absolute":
        raise CheckpointError(
            f"config.json: position_embedding_type {kind!r} is not supported, only 'absolute'"
        )


def _block(
    config: Config, shapes: Shapes, family: BertLike, blocks_name: str, index: int, hidden: int, eps: float
) -> BlockAnatomy:
    prefix = f"{blocks_name}.{index}"
    names = family.block
    up = linear(shapes, f"{prefix}.{names.up}", "up", inputs=hidden)
    down = linear(shapes, f"{prefix}.{names.down}", "down", inputs=up.out_features, outputs=hidden)
    head_dim = hidden // integer(config, family.heads_key) or hidden
    return BlockAnatomy(
        index=index,
        prefix=prefix,
        attention=_attention(shapes, prefix, names, hidden, head_dim),
        mlp=Mlp(None, up, down, text(config, family.activation_key, "gelu")),
        norm1=norm(shapes, f"{prefix}.{names.norm1}", "layer", eps, hidden),
        norm2=norm(shapes, f"{prefix}.{names.norm2}", "layer", eps, hidden),
        order="post",
    )


def _attention(shapes: Shapes, prefix: str, names: BlockNames, hidden: int, head_dim: int) -> Attention:
    q = linear(shapes, f"{prefix}.{names.q}", "q", inputs=hidden)
    width = q.out_features
    k = linear(shapes, f"{prefix}.{names.k}", "k", inputs=hidden, outputs=width)
    v = linear(shapes, f"{prefix}.{names.v}", "v", inputs=hidden, outputs=width)
    heads = heads_in(q, head_dim)
    o = linear(shapes, f"{prefix}.{names.o}", "o", inputs=width, outputs=hidden)
    return Attention(q, k, v, o, heads, heads, head_dim)


Activation = Literal["tanh", "relu", "gelu"]
ACTIVATIONS: tuple[Activation, ...] = ("tanh", "relu", "gelu")
# What is labelled, by how the architecture's name ends.
_LABELLED: dict[str, Literal["text", "token", "span"]] = {
    "ForSequenceClassification": "text",
    "ForTokenClassification": "token",
    "ForQuestionAnswering": "span",
}
_SPAN = ("start", "end")
_SEVERAL = "multi_label_classification"
_HEADLESS = ("Model", "ForMaskedLM", "ForPreTraining")
# What heads are called where no architecture is named.
_HEADS = ("classifier", "pre_classifier", "qa_outputs")


@dataclass(frozen=True)
class HeadNames:
    """The modules of a family's classifier of texts; ``dense`` begins with the encoder's prefix where it is
    in that. ``of_tokens`` and ``of_spans`` are the classifiers of tokens and of spans, which read the states
    themselves, or where ``shared`` what comes before the classifier of texts, too.
    """

    dense: str
    out: str
    activation: Activation = "tanh"
    of_tokens: str = "classifier"
    of_spans: str = "qa_outputs"
    norm: Norm | None = None
    pooling: Literal["first", "mean", "late"] = "first"
    shared: bool = False


def encoder_head(
    config: Config, shapes: Shapes, names: HeadNames, base: str, hidden: int
) -> tuple[Classifier | None, str | None]:
    """The classifier of texts, tokens or spans, or what another head is called; both None for an encoder
    alone.

    ``base`` is the prefix of the encoder in stored names.

    Raises:
        CheckpointError: a classifier whose tensors do not fit its labels or the encoder.
    """
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list):
        raise CheckpointError(f"config.json: architectures must be a list, not {architectures!r}")
    if not architectures:
        stored = next(
            (name for name in shapes if name.startswith(tuple(f"{head}." for head in _HEADS))), None
        )
        return None, None if stored is None else f"a head of unknown kind (tensor {stored!r})"
    name = str(architectures[0])
    if name.endswith(_HEADLESS):
        return None, None
    labelled = next((kind for end, kind in _LABELLED.items() if name.endswith(end)), None)
    problem = config.get("problem_type") if labelled == "text" else None
    if labelled is None:
        return None, f"the head of {name}"
    out = {"text": names.out, "token": names.of_tokens, "span": names.of_spans}[labelled]
    reads = names.shared or labelled == "text"
    needed = (out, names.dense) if reads else (out,)
    if not base or any(f"{module}.weight" not in shapes for module in needed):
        return None, f"the head of {name}, which the checkpoint lacks"
    if reads:
        linear(shapes, names.dense, "up", inputs=hidden, outputs=hidden)
    count = linear(shapes, out, "up", inputs=hidden).out_features
    if count > 1 and problem == "regression":
        return None, f"the head of {name} for {count} numbers"
    if labelled == "span" and count != len(_SPAN):
        return None, f"the head of {name} with {count} outputs"
    return Classifier(
        names.dense if reads else None,
        names.activation,
        out,
        _SPAN if labelled == "span" else _labels(config, count),
        norm=names.norm if reads else None,
        labelled=labelled,
        pooling=names.pooling,
        several=count > 1 and problem == _SEVERAL,
    ), None


def _labels(config: Config, count: int) -> tuple[str, ...]:
    """The names of ``count`` labels; transformers' own where the config has none."""
    named = config.get("id2label")
    if named is None:
        named = {str(index): f"LABEL_{index}" for index in range(int(config.get("num_labels") or 2))}
    if not isinstance(named, dict) or set(map(str, named)) != {str(index) for index in range(count)}:
        raise CheckpointError(
            f"config.json: id2label must name the {count} labels of the classifier by 0 to {count - 1}",
            why=f"it is {named!r}",
        )
    names = {int(index): str(label) for index, label in named.items()}
    if len(set(names.values())) < count:
        raise CheckpointError(f"config.json: id2label has one name for several labels: {named!r}")
    return tuple(names[index] for index in range(count))
