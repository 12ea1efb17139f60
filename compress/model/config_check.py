"""``config.json`` held against the weights before anything is built from it: numbers are within bounds, names
are known ones, and sizes are those that the tensors have.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import CheckpointError, UnknownName
from .anatomy import Anatomy, Shapes
from .block_anatomy import Attention, BlockAnatomy
from .checkpoint.block_sizes import BLOCK_SIZES
from .families._config import MAX_POSITIONS, SizeKeys
from .families._tensors import ANOTHER, integer, number, text
from .family import size_keys

Config = Mapping[str, Any]

MAX_LAYERS = 4096

# Read by some families or by transformers; null and absent are what they are to a family.
_COUNTS = (
    *("moe_intermediate_size", "num_experts_per_tok", "num_labels", "n_ctx"),
    *("relative_attention_num_buckets", "relative_attention_max_distance"),
    *("original_max_position_embeddings", "word_embed_proj_dim", "decoder_sparse_step"),
    *("no_rope_layer_interval", "rotary_dim", "embedding_size"),
    *("local_attention", "global_attn_every_n_layers", "num_kv_heads"),
    *("num_mel_bins", "max_source_positions"),
    "pretraining_tp",  # into how many parts training split a sum: the same function, whatever it is
)
_COUNTS_FROM_ZERO = ("sliding_window", "max_window_layers", "type_vocab_size")
_NUMBERS = (
    *("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "rope_theta", "rotary_emb_base", "rotary_pct"),
    *("partial_rotary_factor", "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping"),
    *("norm_epsilon", "rope_local_base_freq", "embedding_multiplier", "residual_multiplier"),
    *("attention_multiplier", "logits_scaling", "logit_scale", "norm_eps"),
    *("global_rope_theta", "local_rope_theta"),
)
_FLAGS = (
    *("tie_word_embeddings", "use_sliding_window", "use_parallel_residual", "qk_layernorm", "attention_bias"),
    *("use_bias", "use_qkv_bias", "use_qk_norm", "norm_bias", "classifier_bias"),
    *("alibi", "parallel_attn", "new_decoder_architecture", "multi_query"),
    *("mlp_bias", "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "is_decoder", "norm_topk_prob"),
    *("is_encoder_decoder", "add_cross_attention", "use_bidirectional_attention", "do_layer_norm_before"),
    *("_remove_final_layer_norm", "is_gated_act", "scale_decoder_outputs"),
    *("scale_embedding", "share_encoder_decoder_embeddings"),
)
DTYPES = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "auto")
# Functions of transformers that are one function of one number, without weights of their own.
ACTIVATIONS = frozenset(
    "gelu gelu_10 gelu_accurate gelu_fast gelu_new gelu_python gelu_python_tanh gelu_pytorch_tanh hardswish "
    "laplace leaky_relu linear mish quick_gelu relu relu2 relu6 sigmoid silu sqrtsoftplus swish tanh".split()
)


def check_settings(config: Config) -> None:
    """Refuse a ``config.json`` whose values make no sense for any weights."""
    keys = size_keys(config)
    for key in (*_size_names(keys), *_COUNTS):
        if config.get(key) is not None:
            integer(config, key)
    limits = {keys.layers: MAX_LAYERS, keys.decoder_layers: MAX_LAYERS, keys.positions: MAX_POSITIONS}
    for name, limit in limits.items():
        if name is not None and config.get(name) is not None:
            integer(config, name, largest=limit)
    pattern = isinstance(config.get("sliding_window_pattern"), str)  # as LLLG in EXAONE, beside layer_types
    for key in (*_COUNTS_FROM_ZERO, *([] if pattern else ["sliding_window_pattern"])):
        if config.get(key) not in (None, 0) or isinstance(config.get(key), bool | float):
            integer(config, key)
    for key in _NUMBERS:
        number(config, key, 1.0)
    for key in _FLAGS:
        if not isinstance(config.get(key), bool | None):
            raise CheckpointError(
                f"config.json: {key} must be true or false, not {config[key]!r:.80}", fix=ANOTHER
            )
    for key, kind, said in (("architectures", str, "names"), ("mlp_only_layers", int, "numbers of layers")):
        value = config.get(key)
        if value is not None and not (isinstance(value, list) and all(type(one) is kind for one in value)):
            raise CheckpointError(
                f"config.json: {key} must be a list of {said}, not {value!r:.80}", fix=ANOTHER
            )
    for key, value in config.items():
        rate = "dropout" in key or key.endswith(("pdrop", "layerdrop", "drop_path_rate"))
        if rate and isinstance(value, int | float) and not 0 <= value <= 1:
            raise CheckpointError(f"config.json: {key} must be from 0 to 1, not {value!r:.80}", fix=ANOTHER)
    text(config, "problem_type", "")
    for key in ("dtype", "torch_dtype"):
        if (name := text(config, key, DTYPES[0])) not in DTYPES:
            raise UnknownName(f"{key} in config.json:", name, DTYPES)


def _size_names(keys: SizeKeys) -> Iterator[str]:
    yield from (keys.hidden, keys.layers, keys.query_heads, keys.positions, "vocab_size")
    yield from keys.experts
    yield from keys.heads or ()
    others = (keys.ffn, keys.decoder_layers, keys.decoder_ffn, keys.decoder_query_heads)
    yield from (key for key in others if key is not None)


def check_sizes(config: Config, anatomy: Anatomy, shapes: Shapes) -> None:
    """Refuse a ``config.json`` that says another size than the tensors have.

    A model with an own section for the sizes of its blocks keeps the entries of the model that it was made
    from: of that one the section is what counts (:mod:`.checkpoint.block_sizes`).
    """
    for block in anatomy.blocks:
        for name in block.activations():
            if name not in ACTIVATIONS:
                raise UnknownName("activation in config.json:", name, ACTIVATIONS)
    found = dict(_outer_sizes(config, anatomy, shapes))
    if config.get(BLOCK_SIZES) is None:
        found |= _block_sizes(config, anatomy)
    for key, sizes in found.items():
        stated = config.get(key)
        if stated is not None and any(size != stated for size in sizes):
            other = next(size for size in sizes if size != stated)
            raise CheckpointError(
                f"config.json: {key} is {stated}, the weights have {other}",
                why="config and weights are from different models, or one of them was changed",
                fix=ANOTHER,
            )


def _outer_sizes(config: Config, anatomy: Anatomy, shapes: Shapes) -> Iterator[tuple[str, set[int]]]:
    keys = size_keys(config)
    yield keys.hidden, {anatomy.hidden_size}
    yield "vocab_size", {anatomy.vocab_size}
    if anatomy.position_embedding is not None:
        rows = anatomy.max_positions + (anatomy.position_offset if anatomy.kind == "encoder" else 0)
        yield keys.positions, {rows}
    if anatomy.token_type_embedding is not None:
        yield "type_vocab_size", {shapes[f"{anatomy.token_type_embedding}.weight"][0]}


def _block_sizes(config: Config, anatomy: Anatomy) -> dict[str, set[int]]:
    keys, attentions = size_keys(config), list(_attentions(anatomy))
    decoder_heads = keys.decoder_query_heads or keys.query_heads
    for key in (keys.query_heads, decoder_heads):
        heads = config.get(key)
        if isinstance(heads, int) and (keys.heads is None or config.get(keys.heads[2]) is None):
            _check_divides(keys.hidden, anatomy.hidden_size, key, heads)
    found: dict[str, set[int]] = {}
    for block in anatomy.blocks:
        key = keys.query_heads if block.cross is None else decoder_heads
        found.setdefault(key, set()).update(attention.heads for attention in _attentions_of(block))
    if keys.heads is not None:
        found[keys.heads[1]] = {attention.kv_heads for attention in attentions}
        found[keys.heads[2]] = {attention.head_dim for attention in attentions}
    expert_size = "moe_intermediate_size" if "moe_intermediate_size" in config else keys.ffn
    for block in anatomy.blocks:
        width = keys.ffn if block.experts is None else expert_size
        width = width if block.cross is None else keys.decoder_ffn or width
        if width is not None and block.feed_forward is not None:
            found.setdefault(width, set()).add(block.mlp.up.out_features)
        if block.experts is not None:
            for name in keys.experts:
                found.setdefault(name, set()).add(block.experts.count)
    return found


def _attentions(anatomy: Anatomy) -> Iterator[Attention]:
    for block in anatomy.blocks:
        yield from _attentions_of(block)


def _attentions_of(block: BlockAnatomy) -> Iterator[Attention]:
    if isinstance(block.mixer, Attention):
        yield block.mixer
    if block.cross is not None:
        yield block.cross


def _check_divides(whole_key: str, whole: int, part_key: str, part: int) -> None:
    if whole % part:
        raise CheckpointError(
            f"config.json: {part_key} is {part}, which does not divide the {whole} of {whole_key}"
        )
