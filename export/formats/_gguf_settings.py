"""Sizes and factors of a model, under the names that llama.cpp reads.

What a GGUF file says of an encoder: that tokens see those behind them too, how states become one vector,
and what its labels are called; and of one before a decoder how that begins, and how many biases there are.
"""

from typing import Any

from ...compress.model.anatomy import Anatomy
from ...compress.model.block_anatomy import Attention, Rope
from ...compress.model.generation_tokens import GenerationTokens
from ...compress.model.gguf.architecture import LOCAL_ROPE, WAY_OUT
from ...compress.model.gguf.entry import sizes_of
from ...compress.model.gguf.features import architecture_of
from ...errors import InputError
from ..job import ExportJob

_SLOPES = 8.0  # the exponent of the least bias by distance


def describe(writer: Any, anatomy: Anatomy) -> None:
    """Give the ``writer`` of a file the settings of a model."""
    first, last = anatomy.blocks[0], anatomy.final_norm or anatomy.blocks[0].norm2
    writer.add_block_count(anatomy.layers()[0])
    sides = 2 if anatomy.kind == "encoder" else 1  # it counts the tokens on both
    windows = [sides * size for part in anatomy.attentions() if (size := part.sliding_window) is not None]
    if windows and architecture_of(anatomy).windows:
        writer.add_sliding_window(min(windows))
        windows = []
    # llama.cpp's own sees everything in most families: as far as no window begins, that is the same.
    writer.add_context_length(min([anatomy.max_positions, *windows]))
    writer.add_embedding_length(anatomy.hidden_size)
    # llama.cpp asks for some numbers of what a model may not have.
    writer.add_feed_forward_length(0 if first.feed_forward is None else first.mlp.up.out_features)
    _heads(writer, anatomy)
    _mixers(writer, anatomy)
    (writer.add_layer_norm_rms_eps if last.kind == "rms" else writer.add_layer_norm_eps)(last.eps)
    _positions(writer, anatomy)
    writer.add_vocab_size(anatomy.vocab_size)
    writer.add_parallel_residual(first.order == "parallel")
    _factors(writer, anatomy)
    _experts(writer, anatomy)


def _heads(writer: Any, anatomy: Anatomy) -> None:
    """The heads of attention: of keys none in blocks that do not attend, which llama.cpp knows by that."""
    parts = anatomy.attentions()
    writer.add_head_count(parts[0].heads if parts else 0)
    if not parts:
        return
    first = parts[0]
    each = [first.kv_heads if block.attends else 0 for block in anatomy.blocks]
    writer.add_head_count_kv(first.kv_heads if anatomy.attends else each)
    writer.add_key_length(first.head_dim)
    writer.add_value_length(first.value_dim)
    _latent(writer, first)


def _mixers(writer: Any, anatomy: Anatomy) -> None:
    for block in anatomy.blocks:
        if not isinstance(block.mixer, Attention):
            for name, size in sizes_of(block.mixer).items():
                writer.add_uint32(f"{writer.arch}.{name}", size)
            return


def _positions(writer: Any, anatomy: Anatomy) -> None:
    """The rope of all blocks; where those with a window have their own, that of the others and that one."""
    parts = anatomy.attentions()
    if any(part.slopes is not None for part in parts):
        writer.add_max_alibi_bias(_SLOPES)
    if not (ropes := anatomy.ropes()):
        return
    whole = [part.rope for part in parts if part.rope is not None and part.sliding_window is None]
    chosen = (whole or ropes)[0]
    writer.add_rope_dimension_count(chosen.dim)
    writer.add_rope_freq_base(chosen.theta)
    local = [part.rope for part in parts if part.rope is not None and part.sliding_window is not None]
    if local and LOCAL_ROPE in architecture_of(anatomy).holds:
        writer.add_rope_freq_base_swa(local[0].theta)
    _stretching(writer, chosen, architecture_of(anatomy).log_times or 1.0)


def _stretching(writer: Any, rope: Rope, log_times: float) -> None:
    from gguf import RopeScalingType

    scaling = rope.scaling
    if not scaling or scaling["rope_type"] == "llama3":  # whose angles are divided by numbers of the file
        return
    kind = RopeScalingType(scaling["rope_type"])
    writer.add_rope_scaling_type(kind)
    writer.add_rope_scaling_factor(float(scaling["factor"]))
    if kind is not RopeScalingType.YARN:
        return
    writer.add_rope_scaling_orig_ctx_len(int(scaling["original_max_position_embeddings"]))
    writer.add_rope_scaling_yarn_beta_fast(float(scaling.get("beta_fast") or 32.0))
    writer.add_rope_scaling_yarn_beta_slow(float(scaling.get("beta_slow") or 1.0))
    if scaling.get("mscale") and scaling.get("mscale_all_dim"):
        writer.add_rope_scaling_yarn_log_mul(log_times * float(scaling["mscale_all_dim"]))


def _factors(writer: Any, anatomy: Anatomy) -> None:
    """What embeddings, scores, residuals and logits are multiplied by, where they are, and their caps."""
    first, known, form = anatomy.blocks[0], architecture_of(anatomy), anatomy.logit_form
    if anatomy.embedding_scale != 1:
        writer.add_embedding_scale(anatomy.embedding_scale)
    for attention in anatomy.attentions()[:1]:
        if attention.scale is not None and known.scales_scores:
            writer.add_attention_scale(attention.scale)
        if attention.softcap is not None:
            writer.add_attn_logit_softcapping(attention.softcap)
    if first.residual_scale != 1:
        writer.add_residual_scale(first.residual_scale)
    if form is not None and form.softcap is not None:
        writer.add_final_logit_softcapping(form.softcap)
    elif form is not None and not known.folds_logits:
        # Granite's is a divisor there, as in its own config.
        writer.add_logit_scale(1 / form.scale if known.divides_logits else form.scale)


def _experts(writer: Any, anatomy: Anatomy) -> None:
    mixtures = [block for block in anatomy.blocks if block.experts is not None]
    if not mixtures or (experts := mixtures[0].experts) is None:
        return
    width, form = mixtures[0].mlp.up.out_features, experts.router_form
    writer.add_expert_count(experts.count)
    writer.add_expert_used_count(experts.chosen)
    writer.add_expert_feed_forward_length(width)
    if experts.shared is not None:
        writer.add_expert_shared_feed_forward_length(experts.shared.up.out_features)
    if form is None:
        return
    from gguf import ExpertGatingFuncType

    writer.add_leading_dense_block_count(mixtures[0].index)
    writer.add_expert_shared_count(0 if experts.shared is None else experts.shared.up.out_features // width)
    writer.add_expert_gating_func(ExpertGatingFuncType.SIGMOID)
    writer.add_expert_weights_norm(experts.normalized)
    writer.add_expert_weights_scale(form.scale)
    if form.chosen_groups < form.groups:  # all of them are as none, and llama.cpp ends at them
        writer.add_expert_group_count(form.groups)
        writer.add_expert_group_used_count(form.chosen_groups)


def _latent(writer: Any, attention: Attention) -> None:
    """Latent attention, of which the file keeps the projection of keys and values whole, with its codes."""
    latent = attention.latent
    if latent is None:
        return
    writer.add_q_lora_rank(0 if latent.q_a is None else latent.q_a.out_features)
    writer.add_kv_lora_rank(latent.kv_b.in_features)


def check_pairs(job: ExportJob) -> None:
    """Refuse a reranker whose token types tell two texts apart."""
    anatomy = job.source.anatomy
    labels, table = anatomy.classifier, anatomy.token_type_embedding
    if labels is None or table is None or len(labels.labels) > 1:
        return
    if job.source.shapes[f"{table}.weight"][0] > 1:
        raise InputError(
            f"{job.name} ranks pairs of texts that token types tell apart, which llama.cpp does not know",
            why="it gives every token the first type",
            fix=WAY_OUT,
        )


def describe_encoder(writer: Any, job: ExportJob) -> None:
    """Give the ``writer`` of a file what llama.cpp needs in addition of an encoder."""
    from gguf import PoolingType

    anatomy, pooling = job.source.anatomy, job.pooling
    if anatomy.kind == "encoder_decoder":
        writer.add_decoder_block_count(anatomy.layers()[1])
        writer.add_decoder_start_token_id(GenerationTokens.of(job.source).start())
        writer.add_relative_attn_buckets_count(job.source.shapes[f"{anatomy.position_biases[0]}.weight"][0])
    if anatomy.kind != "encoder":
        return
    writer.add_causal_attention(False)
    labels, mode = anatomy.classifier, None if pooling is None else pooling.mode
    kinds = {"mean": PoolingType.MEAN, "cls": PoolingType.CLS, "last": PoolingType.LAST}
    kind = PoolingType.RANK if labels is not None else kinds.get(mode or "", PoolingType.NONE)
    writer.add_pooling_type(kind)
    if labels is not None:
        writer.add_classifier_output_labels(list(labels.labels))
    table = anatomy.token_type_embedding
    writer.add_token_type_count(1 if table is None else job.source.shapes[f"{table}.weight"][0])
