"""The ``gguf`` format: one file for llama.cpp and all that read its files, of the families in
:mod:`._gguf_architecture`.

Quantized matrices keep their codes where GGUF has a type for them: its own types as they are, ternary ones as
``TQ2_0`` (2.06 bits a weight), 4-bit groups as ``Q4_0``, 8-bit ones as ``Q8_0``, whose groups are of 32 and
repeat the scale of a larger one; so do the embedding and the head. What is float stays so.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compress.bill_of_materials import license_name
from ...compress.model.block_anatomy import Attention
from ...compress.model.checkpoint.gguf_blocks import pack_blocks
from ...compress.numbers.qtensor import QTensor
from ...errors import GateFailed, ShapeError, require
from ...escaping import one_line
from ..format import ExportFormat, OpenedBy, OutputKind, Prepared, read_back
from ..job import ExportJob
from ._gguf_architecture import GgufArchitecture, architecture_of
from ._gguf_tokenizer import add_tokenizer
from ._ternary import block_scales, codes_and_scales, is_ternary, tq1_0, tq2_0

# The checkpoint may store in 8 bits what the file holds in 32.
_COPIES = 4
_BLOCK = 32  # weights that share a scale in Q4_0 and Q8_0


@dataclass(frozen=True)
class Place:
    """Where a stored tensor goes: its ``name`` there, its ``rows [out]`` in the order that they have there
    (None: as they are), and what is added to it.
    """

    name: str
    rows: NDArray[np.intp] | None = None
    added: float = 0.0

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """The tensor as it is there."""
        ordered = array if self.rows is None else array[self.rows]
        return ordered + np.float32(self.added) if self.added else ordered


class GgufFormat:
    """``NAME.gguf`` with ternary weights of the type ``ternary``: ``TQ1_0`` or ``TQ2_0``."""

    kind: OutputKind = "saved"
    graph = False

    def __init__(self, ternary: str) -> None:
        self.ternary = ternary

    def opened_by(self, job: ExportJob) -> OpenedBy:
        """llama.cpp, by its own program."""
        file = shlex.quote(one_line(f"{job.name}.gguf"))
        return OpenedBy(
            "gguf",
            "With the program `llama-cli` of llama.cpp, and in whatever else reads GGUF:\n\n"
            f'```\nllama-cli -m {file} -p "The capital of France is"\n```',
        )

    def prepare(self, job: ExportJob, *, validate: bool) -> Prepared:
        """Look at the family.

        Raises:
            InputError: another family, or what llama.cpp does not know of it.
            MissingDependency: the gguf package is not installed.
        """
        require("gguf", "compress")
        architecture_of(job.source.anatomy)
        return Prepared(_COPIES * job.stored_bytes)

    def write(self, job: ExportJob, prepared: Prepared, directory: Path) -> dict[str, Any]:
        """Write the file.

        Raises:
            InputError: a tokenizer that is no byte-level BPE, or that llama.cpp has none like.
            ShapeError: codes that GGUF has no type for.
        """
        from gguf import GGUFWriter

        writer = GGUFWriter(directory / f"{job.name}.gguf", architecture_of(job.source.anatomy).name)
        _describe(writer, job)
        licence = license_name(job.made.get("source", {}).get("license"))
        if licence is not None:
            writer.add_license(licence)
        add_tokenizer(writer, job.source.reader, job.source.anatomy.vocab_size)
        for stored, place in places(job).items():
            array, kind = _stored(job, stored, place, self.ternary)
            writer.add_tensor(place.name, array, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return {"graph": {"notes": []}}

    def check(
        self, job: ExportJob, prepared: Prepared, directory: Path, sections: dict[str, Any], work: Path
    ) -> dict[str, Any]:
        """Read the file back with the gguf package and compare every tensor with the checkpoint's.

        Raises:
            GateFailed: one differs.
        """
        from gguf import GGUFReader
        from gguf.quants import dequantize

        reader = GGUFReader(directory / f"{job.name}.gguf")
        kept = {tensor.name: tensor for tensor in reader.tensors}
        for stored, place in places(job).items():
            found = dequantize(kept[place.name].data, kept[place.name].tensor_type)
            if not np.array_equal(found, place.of(_dense(job, stored))):
                raise GateFailed(f"{place.name} of the file is not {stored} of the checkpoint")
        return read_back()


def _describe(writer: Any, job: ExportJob) -> None:
    """Sizes and factors of the model, under the names that llama.cpp reads."""
    anatomy = job.source.anatomy
    first, last = anatomy.blocks[0], anatomy.final_norm
    writer.add_name(job.name)
    writer.add_block_count(len(anatomy.blocks))
    windows = [size for part in anatomy.attentions() if (size := part.sliding_window) is not None]
    if windows and architecture_of(anatomy).windows:
        writer.add_sliding_window(min(windows))
        windows = []
    # llama.cpp's own sees everything in most families: as far as no window begins, that is the same.
    writer.add_context_length(min([anatomy.max_positions, *windows]))
    writer.add_embedding_length(anatomy.hidden_size)
    writer.add_feed_forward_length(first.mlp.up.out_features)
    writer.add_head_count(first.attention.heads)
    writer.add_head_count_kv(first.attention.kv_heads)
    writer.add_key_length(first.attention.head_dim)
    writer.add_value_length(first.attention.head_dim)
    if last is not None:
        (writer.add_layer_norm_rms_eps if last.kind == "rms" else writer.add_layer_norm_eps)(last.eps)
    for rope in anatomy.ropes():
        writer.add_rope_dimension_count(rope.dim)
        writer.add_rope_freq_base(rope.theta)
    writer.add_vocab_size(anatomy.vocab_size)
    writer.add_parallel_residual(first.order == "parallel")
    _describe_factors(writer, job)


def _describe_factors(writer: Any, job: ExportJob) -> None:
    """What embeddings, scores, residuals and logits are multiplied by, where they are."""
    anatomy, first = job.source.anatomy, job.source.anatomy.blocks[0]
    if anatomy.embedding_scale != 1:
        writer.add_embedding_scale(anatomy.embedding_scale)
    if first.attention.scale is not None and architecture_of(anatomy).scales_scores:
        writer.add_attention_scale(first.attention.scale)
    if first.residual_scale != 1:
        writer.add_residual_scale(first.residual_scale)
    if anatomy.logit_form is not None:
        scale = anatomy.logit_form.scale
        # Granite's is a divisor there, as in its own config.
        writer.add_logit_scale(1 / scale if anatomy.model_type == "granite" else scale)


def places(job: ExportJob) -> dict[str, Place]:
    """Where each stored tensor goes, by its name.

    Raises:
        InputError: as :func:`._gguf_architecture.architecture_of`.
    """
    anatomy = job.source.anatomy
    known = architecture_of(anatomy)
    name_of = known.names(len(anatomy.blocks))
    modules: list[tuple[str, Place]] = [(anatomy.embedding, Place(name_of(anatomy.embedding)))]
    if anatomy.position_embedding is not None:
        modules.append((anatomy.position_embedding, Place(name_of(anatomy.position_embedding))))
    if anatomy.head is not None and not anatomy.tied:
        modules.append((anatomy.head, Place(name_of(anatomy.head))))
    norms = [] if anatomy.final_norm is None else [anatomy.final_norm]
    for block in anatomy.blocks:
        norms += block.norms()
        orders = _orders(block.attention, known)
        for linear in block.linears():
            modules.append((linear.name, Place(name_of(linear.name), orders.get(linear.name))))
    modules += [(norm.name, Place(name_of(norm.name), added=norm.offset)) for norm in norms]
    shapes = job.source.shapes
    return {
        f"{module}.{part}": replace(
            place, name=f"{place.name}.{part}", added=place.added * (part == "weight")
        )
        for module, place in modules
        for part in ("weight", "bias")
        if f"{module}.{part}" in shapes
    }


def _orders(attention: Attention, known: GgufArchitecture) -> dict[str, NDArray[np.intp]]:
    """By projection, the order in which llama.cpp wants its rows, where that is another."""
    if (order := attention.row_order()) is not None:
        return {attention.projections[0].name: np.array(order)}
    rope = attention.rope
    if not known.neighbours or rope is None or rope.interleaved:
        return {}
    turned = np.arange(rope.dim).reshape(2, -1).T.reshape(-1)
    head = np.concatenate([turned, np.arange(rope.dim, attention.head_dim)])
    starts = np.arange(0, attention.q.out_features, attention.head_dim)[:, None]
    rows = {linear.name: linear.out_features for linear in (attention.q, attention.k)}
    return {name: (starts[: count // attention.head_dim] + head).reshape(-1) for name, count in rows.items()}


def _stored(job: ExportJob, stored: str, place: Place, ternary: str) -> tuple[NDArray[Any], Any]:
    """The tensor as GGUF keeps it, and its type."""
    module = stored.removesuffix(".weight")
    anatomy = job.source.anatomy
    if module in (anatomy.embedding, anatomy.head):
        weight: Any = job.source.table(module)
    else:
        weight = job.source.linear(module) if module in job.source.schemes else job.source.tensor(stored)
    if isinstance(weight, QTensor) and weight.scheme.of_gguf:
        return _own_blocks(weight, place)
    if isinstance(weight, QTensor):
        codes, scales = codes_and_scales(weight)
        return _blocks(weight, place.of(codes), place.of(scales), module, ternary)
    return np.ascontiguousarray(place.of(weight.numpy())), None


def _own_blocks(tensor: QTensor, place: Place) -> tuple[NDArray[Any], Any]:
    """A type of GGUF: rows of bytes."""
    from gguf import GGMLQuantizationType as Kind

    return np.ascontiguousarray(place.of(pack_blocks(tensor).numpy())), Kind[tensor.scheme.name]


def _blocks(
    tensor: QTensor, codes: NDArray[np.int8], scales: NDArray[np.float32], name: str, ternary: str
) -> tuple[NDArray[np.uint8], Any]:
    from gguf import GGMLQuantizationType as Kind

    scheme = tensor.scheme
    if is_ternary(tensor):
        pack = {"TQ1_0": tq1_0, "TQ2_0": tq2_0}[ternary]
        return pack(codes, block_scales(scales, codes.shape[1], name)), Kind[ternary]
    size = codes.shape[1] // scales.shape[1]
    if scheme.format != "int" or not scheme.symmetric or scheme.bits not in (4, 8) or size % _BLOCK:
        raise ShapeError(
            f"{name} is {scheme.name}, which GGUF has no type for here",
            fix="use 4 or 8 bits in groups of a multiple of 32, ternary weights with `scales: matrix`, or "
            "Q2_K to Q6_K or IQ4_NL",
        )
    repeated = np.repeat(scales, size // _BLOCK, axis=1)
    ends = repeated.astype(np.float16)[..., None].view(np.uint8)
    if scheme.bits == 8:
        grouped = codes.reshape(*repeated.shape, _BLOCK).view(np.uint8)
        return np.concatenate([ends, grouped], -1).reshape(len(codes), -1), Kind.Q8_0
    digits = (codes.reshape(*repeated.shape, 2, _BLOCK // 2) + 8).astype(np.uint8)
    packed = digits[..., 0, :] | digits[..., 1, :] << 4
    return np.concatenate([ends, packed], -1).reshape(len(codes), -1), Kind.Q4_0


def _dense(job: ExportJob, stored: str) -> NDArray[np.float32]:
    """The tensor that the checkpoint stands for, in float."""
    module = stored.removesuffix(".weight")
    table = module in (job.source.anatomy.embedding, job.source.anatomy.head)
    weight = job.source.table(module) if table else job.source.tensor(stored)
    return np.asarray((weight.dequantize() if isinstance(weight, QTensor) else weight).numpy())


FORMAT: ExportFormat[Prepared] = GgufFormat("TQ2_0")
