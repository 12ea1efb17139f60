"""The row of a model among the families that are written as GGUF, and whether it is what the row computes."""

from collections.abc import Iterator, Mapping
from math import isclose, sqrt
from typing import Any

from ....errors import InputError
from ..anatomy import Anatomy
from ..block_anatomy import Attention, BlockAnatomy, Experts, Mlp, Norm
from ..families._latent_attention import temperature
from . import architecture as names
from .architecture import WAY_OUT, GgufArchitecture
from .entry import features_of
from .families import ARCHITECTURES, WITHOUT

_NEAR = 1e-6


def architecture_of(anatomy: Anatomy) -> GgufArchitecture:
    """The row of a model."""
    found = ARCHITECTURES.get(anatomy.model_type)
    if found is None:
        raise InputError(
            f"a {anatomy.model_type} model cannot be written as GGUF yet",
            why=WITHOUT.get(anatomy.model_type, ""),
            fix=f"known: {', '.join(ARCHITECTURES)}; {WAY_OUT} instead",
        )
    whole = list(_of_model(anatomy, found))
    parts = [list(_of_block(anatomy, block, found)) for block in anatomy.blocks]
    for feature in (*whole, *(feature for part in parts for feature in part)):
        if feature not in found.holds:
            raise InputError(f"llama.cpp's {found.name} does not know {feature}", fix=WAY_OUT)
    for feature in sorted(found.needs.difference(whole)):
        if not all(feature in part for part in parts):
            raise InputError(
                f"llama.cpp's {found.name} has {feature} in any case, and this model has not in every block",
                fix=WAY_OUT,
            )
    return found


def refuse_rounded(known: GgufArchitecture, called: str, fix: str) -> None:
    """Refuse a model in few bits, ``called`` so in the message, of a ``known`` family of which llama.cpp's
    logits are far from ours then.
    """
    if known.misses:
        raise InputError(
            f"{called} is in few bits, and llama.cpp misses the logits of a {known.name} then by "
            f"{known.misses}",
            why="it rounds what products read too, which states carry on and routers choose experts by",
            fix=fix,
        )


def _of_model(anatomy: Anatomy, found: GgufArchitecture) -> Iterator[str]:
    """What the model has around its blocks beyond the plainest of llama.cpp's."""
    yield from _of_ropes(anatomy, found)
    yield from encoder_features(anatomy, found)
    if len(anatomy.blocks) == found.windowed_at:
        yield f"{found.windowed_at} blocks that see everything"
    if (anatomy.position_embedding is not None) != found.table:
        yield "positions without a table" if found.table else "a table of positions"
    if anatomy.embedding_norm is not None:
        yield names.EMBEDDING_NORM
    if found.bare_norms and any(norm.bias for norm in norms_of(anatomy)):
        yield "biases of norms"
    if anatomy.tied and found.head == "own":
        yield "a head that is the embedding"
    if not anatomy.tied and found.head == "embedding":
        yield "a head that is not the embedding"
    if names.ROOT_SCALED in found.holds and _near(anatomy.embedding_scale, sqrt(anatomy.hidden_size)):
        yield names.ROOT_SCALED
    elif anatomy.embedding_scale != 1:
        yield names.SCALED_EMBEDDINGS
    if (form := anatomy.logit_form) is not None:
        if form.softcap is not None:
            yield names.CAPPED_LOGITS
        if form.softcap is None or form.scale != 1:
            yield names.SCALED_LOGITS
    attentions = anatomy.attentions()
    if found.square and any(part.q.out_features != anatomy.hidden_size for part in attentions):
        yield "heads that together are not as wide as the model"
    if found.square_keys and any(part.k.out_features != anatomy.hidden_size for part in attentions):
        yield "fewer heads of keys than of queries"
    narrow = any(part.latent is not None and part.latent.q_a is not None for part in attentions)
    if narrow and len(anatomy.blocks) in found.lite_at:
        yield f"{len(anatomy.blocks)} blocks whose queries come from a narrow state"
    mixed = [block.experts is not None for block in anatomy.blocks]
    if found.dense_first and mixed != sorted(mixed):
        yield "a block without experts behind one with them"


def _of_ropes(anatomy: Anatomy, found: GgufArchitecture) -> Iterator[str]:
    ropes = anatomy.ropes()
    for rope in ropes:
        kind = rope.scaling.get("rope_type")
        if kind is not None and kind not in found.stretches:
            yield "rotary positions that are scaled"
        if kind == "yarn" and not _rounded_yarn(rope.scaling, found):
            yield "yarn with factors of its own, or whose range is not rounded"
        if rope.interleaved and not found.neighbours:
            yield "positions that turn neighbouring channels"
    if len(ropes) < 2:
        return
    local = {part.rope for part in anatomy.attentions() if part.sliding_window is not None}
    whole = {part.rope for part in anatomy.attentions() if part.sliding_window is None}
    alike = len(local) == len(whole) == 1 and not any(rope and rope.scaling for rope in local)
    yield names.LOCAL_ROPE if alike else "positions that differ from block to block"


def _rounded_yarn(scaling: Mapping[str, Any], found: GgufArchitecture) -> bool:
    """Whether it is llama.cpp's form: what scores are multiplied by follows from the factor, and the channels
    where the two forms of angles meet are whole. DeepSeek's has one multiplier of the logarithm for both.
    """
    one, other = scaling.get("mscale"), scaling.get("mscale_all_dim")
    plain = not (one and other) or one == 1
    alike = plain if found.log_times is None else bool(one) and one == other
    own = scaling.get("attention_factor") is not None or not alike
    return not own and scaling.get("truncate", True) is not False


def _of_block(anatomy: Anatomy, block: BlockAnatomy, found: GgufArchitecture) -> Iterator[str]:
    mixer = block.mixer
    biased = {linear.role for linear in block.linears() if linear.bias}
    of_heads = (getattr(mixer, "q_norm", None), getattr(mixer, "k_norm", None))
    norms = [norm for norm in block.norms() if norm not in of_heads]
    has = {
        names.ATTENTION_BIASES: bool(biased & {"q", "k", "v", "qkv"}),
        names.BIASES: bool(biased - {"q", "k", "v", "qkv"}),
        names.LAYER_NORMS: any(norm.kind == "layer" for norm in norms),
        names.OFFSET_NORMS: any(norm.offset for norm in norms),
        "norms before o or down": block.normed_inside,
        names.BEHIND: block.order == "behind",
        names.NORMED_SUMS: block.order == "post",
        names.LATE: block.order == "late",
        names.AROUND: block.attention_norm is not None or block.mlp_norm is not None,
        names.PARALLEL: block.order == "parallel",
        names.NO_MLP: block.feed_forward is None,
        names.SCALED_RESIDUALS: block.residual_scale != 1,
    }
    yield from (feature for feature, present in has.items() if present)
    if isinstance(mixer, Attention):
        yield from _of_attention(anatomy, block, mixer, found)
    else:
        yield from features_of(mixer, anatomy.hidden_size)
    if block.feed_forward is not None:
        yield from _of_mlp(block, block.feed_forward, found)


def _of_attention(
    anatomy: Anatomy, block: BlockAnatomy, attention: Attention, found: GgufArchitecture
) -> Iterator[str]:
    number, rotary = block.index + 1, not (found.table or {names.SLOPES, names.DISTANCES} & found.needs)
    plain = not rotary or (found.plain_every and number % found.plain_every == 0)
    windowed = attention.sliding_window is not None
    counted = block.index if found.first_whole else number
    has = {
        names.HEAD_NORMS: attention.q_norm is not None and not attention.normed_over_heads,
        names.NORMS_OVER_HEADS: attention.normed_over_heads,
        names.FUSED_QKV: attention.qkv is not None,
        names.PART: attention.rope is not None and attention.rope.dim != attention.head_dim,
        f"block {block.index} {'with' if plain else 'without'} rotary positions": (attention.rope is None)
        != bool(plain),
        f"the window, or none, of block {block.index}": found.windows > 0
        and windowed != bool(counted % found.windows),
        names.CAPPED_SCORES: attention.softcap is not None,
        names.SLOPES: attention.slopes is not None,
        names.SINKS: attention.sinks is not None,
        names.LATENT: attention.latent is not None,
        names.SCALED_SCORES: not _near(
            attention.scale or attention.head_dim**-0.5, _scale(anatomy, attention, found)
        ),
    }
    yield from (feature for feature, present in has.items() if present)


def _of_mlp(block: BlockAnatomy, mlp: Mlp, found: GgufArchitecture) -> Iterator[str]:
    if mlp.gate is None:
        yield names.NO_GATE
    if mlp.activation != (found.ungated if mlp.gate is None and found.ungated else found.activation):
        yield f"an MLP with {mlp.activation}"
    if mlp.gate_up is not None and not mlp.interleaved:
        yield names.FUSED_MLP
    if mlp.interleaved:
        yield names.ALTERNATING
    if mlp.limit is not None:
        yield names.CLAMPED if mlp.limit == found.limit else f"gates that are clamped at {mlp.limit}"
    if block.experts is not None:
        yield from _of_experts(block.experts, mlp, found)


def _of_experts(experts: Experts, mlp: Mlp, found: GgufArchitecture) -> Iterator[str]:
    yield names.EXPERTS
    if experts.normalized:
        yield names.NORMALIZED
    if experts.shared is not None:
        yield names.SHARED
        if experts.shared.up.out_features % mlp.up.out_features and names.ROUTER_FORM in found.holds:
            yield "an expert for all tokens that is no multiple of the others"
    if experts.shared_gate is not None:
        yield names.SHARED_GATE
    if experts.router_form is not None:
        yield names.ROUTER_FORM


def _scale(anatomy: Anatomy, attention: Attention, found: GgufArchitecture) -> float:
    """What llama.cpp multiplies scores by where the file names nothing."""
    if found.score_scale is not None:
        return found.score_scale
    if len(anatomy.blocks) == found.wide_at:
        return float((anatomy.hidden_size // attention.heads) ** -0.5)
    if found.log_times is not None and attention.rope is not None:
        return float(attention.head_dim**-0.5) * temperature(attention.rope)
    return float(attention.head_dim**-0.5)


def _near(one: float, other: float) -> bool:
    return isclose(one, other, rel_tol=_NEAR)


def norms_of(anatomy: Anatomy) -> Iterator[Norm]:
    """Every norm of a model of one stack."""
    inner = None if anatomy.classifier is None else anatomy.classifier.norm
    yield from filter(None, (anatomy.embedding_norm, anatomy.final_norm, inner))
    for block in anatomy.blocks:
        yield from block.norms()


def encoder_features(anatomy: Anatomy, found: GgufArchitecture) -> Iterator[str]:
    """What an encoder has before its first block and behind its last one, alone or before a decoder."""
    kinds = {"encoder": names.ENCODES, "encoder_decoder": names.TWO_STACKS}
    if anatomy.kind in kinds:
        yield kinds[anatomy.kind]
    if anatomy.position_biases:
        yield names.DISTANCES
        if anatomy.farthest_bias != found.farthest:
            yield f"biases of distances up to {anatomy.farthest_bias}"
    if anatomy.embedding_projection is not None:
        yield "a projection of the embedding"
    if anatomy.token_type_embedding is not None:
        yield names.TOKEN_TYPES
    labels = anatomy.classifier
    if labels is None:
        return
    yield "labels of tokens" if labels.by_token else names.LABELS
    normed = (labels.norm is not None) == found.label_norm
    if labels.dense is None or not normed or labels.activation != found.label_activation:
        between = f"{found.label_activation}{', a norm' * found.label_norm}"
        yield f"labels by another head than a linear, {between} and a linear"
    if labels.pooling != found.label_pooling:
        wanted = "those of first tokens" if found.label_pooling == "first" else "the mean of all"
        yield f"labels of other states than {wanted}"
