"""What a GGUF file says of an encoder: that tokens see those behind them too, how states become one vector,
and what its labels are called; and of one before a decoder how that begins, and how many biases there are.
"""

from __future__ import annotations

from typing import Any

from ...compress.model.generation_tokens import GenerationTokens
from ...compress.model.gguf.architecture import WAY_OUT
from ...errors import InputError
from ..job import ExportJob


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
