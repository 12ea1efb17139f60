"""The ``gguf`` format: one file for llama.cpp and all that read its files. Llama and Mistral models.

Quantized matrices keep their codes where GGUF has a type for them: ternary ones as ``TQ2_0`` (2.06 bits a
weight), 4-bit groups of 32 as ``Q4_0``, 8-bit ones as ``Q8_0``; so do the embedding and the head. What is
float stays so.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compress.bill_of_materials import license_name
from ...compress.model.block_anatomy import Attention
from ...compress.numbers.qtensor import QTensor
from ...errors import GateFailed, InputError, ShapeError, require
from ...escaping import one_line
from ..format import ExportFormat, OpenedBy, OutputKind, Prepared, read_back
from ..job import ExportJob
from ._gguf_tokenizer import add_tokenizer
from ._ternary import block_scales, codes_and_scales, is_ternary, tq1_0, tq2_0

FAMILIES = ("llama", "mistral")
# The checkpoint may store in 8 bits what the file holds in 32.
_COPIES = 4
_NAMES = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output"}
_MLP = {"gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}


class GgufFormat:
    """``NAME.gguf`` with ternary weights of the type ``ternary``: ``TQ1_0`` or ``TQ2_0``."""

    kind: OutputKind = "saved"

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
        """Look at the family and its positions.

        Raises:
            InputError: another family, or scaled rotary positions.
            MissingDependency: the gguf package is not installed.
        """
        require("gguf", "compress")
        _check(job)
        return Prepared(_COPIES * job.stored_bytes)

    def write(self, job: ExportJob, prepared: Prepared, directory: Path) -> dict[str, Any]:
        """Write the file.

        Raises:
            InputError: a bias, or a tokenizer that is no byte-level BPE.
            ShapeError: codes that GGUF has no type for.
        """
        from gguf import GGUFWriter

        writer = GGUFWriter(directory / f"{job.name}.gguf", "llama")
        _describe(writer, job)
        licence = license_name(job.made.get("source", {}).get("license"))
        if licence is not None:
            writer.add_license(licence)
        add_tokenizer(writer, job.path)
        for stored, (name, heads) in _tensors(job).items():
            array, kind = _stored(job, stored, heads, self.ternary)
            writer.add_tensor(name, array, raw_dtype=kind)
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
        for stored, (name, heads) in _tensors(job).items():
            dense = _dense(job, stored)
            found = dequantize(kept[name].data, kept[name].tensor_type)
            if not np.array_equal(found, dense if heads is None else interleaved(dense, heads)):
                raise GateFailed(f"{name} of the file is not {stored} of the checkpoint")
        return read_back()


def _check(job: ExportJob) -> None:
    anatomy = job.source.anatomy
    if anatomy.model_type not in FAMILIES:
        raise InputError(
            f"a {anatomy.model_type} model cannot be written as GGUF yet",
            fix=f"known: {', '.join(FAMILIES)}; export to onnx instead",
        )
    if anatomy.rope is None or anatomy.rope.scaling:
        raise InputError("rotary positions that are scaled are not written as GGUF", fix="export to onnx")


def _describe(writer: Any, job: ExportJob) -> None:
    anatomy = job.source.anatomy
    first = anatomy.blocks[0]
    assert anatomy.rope is not None
    writer.add_name(job.name)
    writer.add_block_count(len(anatomy.blocks))
    # llama.cpp's Llama sees everything: as far as no window begins, that is the same.
    windows = (block.attention.sliding_window or anatomy.max_positions for block in anatomy.blocks)
    writer.add_context_length(min(anatomy.max_positions, *windows))
    writer.add_embedding_length(anatomy.hidden_size)
    writer.add_feed_forward_length(first.mlp.up.out_features)
    writer.add_head_count(first.attention.heads)
    writer.add_head_count_kv(first.attention.kv_heads)
    writer.add_key_length(first.attention.head_dim)
    writer.add_value_length(first.attention.head_dim)
    writer.add_layer_norm_rms_eps(first.norm1.eps)
    writer.add_rope_dimension_count(anatomy.rope.dim)
    writer.add_rope_freq_base(anatomy.rope.theta)
    writer.add_vocab_size(anatomy.vocab_size)


def _tensors(job: ExportJob) -> dict[str, tuple[str, int | None]]:
    """By stored name: what GGUF calls it, and the heads whose rows are interleaved, or None."""
    anatomy = job.source.anatomy
    found: dict[str, tuple[str, int | None]] = {
        f"{anatomy.embedding}.weight": ("token_embd.weight", None),
    }
    if anatomy.final_norm is not None:
        found[f"{anatomy.final_norm.name}.weight"] = ("output_norm.weight", None)
    if anatomy.head is not None and not anatomy.tied:
        found[f"{anatomy.head}.weight"] = ("output.weight", None)
    for block in anatomy.blocks:
        prefix = f"blk.{block.index}"
        found[f"{block.norm1.name}.weight"] = (f"{prefix}.attn_norm.weight", None)
        found[f"{block.norm2.name}.weight"] = (f"{prefix}.ffn_norm.weight", None)
        for linear in block.linears():
            name = (_NAMES | _MLP)[linear.role]
            found[f"{linear.name}.weight"] = (f"{prefix}.{name}.weight", _heads(block.attention, linear.role))
            if linear.bias:
                raise InputError(f"{linear.name} has a bias, which GGUF's llama has not")
    return found


def _heads(attention: Attention, role: str) -> int | None:
    return {"q": attention.heads, "k": attention.kv_heads}.get(role)


def interleaved(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Rows of a query or key projection in GGUF's order: the two halves of a head that rotate together
    alternate.
    """
    shape = (heads, 2, len(rows) // heads // 2, *rows.shape[1:])
    return rows.reshape(shape).swapaxes(1, 2).reshape(rows.shape)


def _stored(job: ExportJob, stored: str, heads: int | None, ternary: str) -> tuple[NDArray[Any], Any]:
    """The tensor as GGUF keeps it, and its type."""
    module = stored.removesuffix(".weight")
    anatomy = job.source.anatomy
    if module in (anatomy.embedding, anatomy.head):
        weight: Any = job.source.table(module)
    else:
        weight = job.source.linear(module) if module in job.source.schemes else job.source.tensor(stored)
    if isinstance(weight, QTensor):
        codes, scales = codes_and_scales(weight)
        if heads is not None:
            codes, scales = interleaved(codes, heads), interleaved(scales, heads)
        return _blocks(weight, codes, scales, module, ternary)
    array = weight.numpy()
    return (array if heads is None else interleaved(array, heads)), None


def _blocks(
    tensor: QTensor, codes: NDArray[np.int8], scales: NDArray[np.float32], name: str, ternary: str
) -> tuple[NDArray[np.uint8], Any]:
    from gguf import GGMLQuantizationType as Kind

    scheme = tensor.scheme
    if is_ternary(tensor):
        pack = {"TQ1_0": tq1_0, "TQ2_0": tq2_0}[ternary]
        return pack(codes, block_scales(scales, codes.shape[1], name)), Kind[ternary]
    if scheme.format == "int" and scheme.symmetric and (scheme.bits, scheme.group_size) == (8, 32):
        ends = scales.astype(np.float16)[..., None].view(np.uint8)
        grouped = codes.reshape(*scales.shape, 32).view(np.uint8)
        return np.concatenate([ends, grouped], -1).reshape(len(codes), -1), Kind.Q8_0
    if scheme.format == "int" and scheme.symmetric and (scheme.bits, scheme.group_size) == (4, 32):
        ends = scales.astype(np.float16)[..., None].view(np.uint8)
        digits = (codes.reshape(*scales.shape, 2, 16) + 8).astype(np.uint8)
        packed = digits[..., 0, :] | digits[..., 1, :] << 4
        return np.concatenate([ends, packed], -1).reshape(len(codes), -1), Kind.Q4_0
    raise ShapeError(
        f"{name} is {scheme.name}, which GGUF has no type for here",
        fix="use W4A16-g32, W8A16-g32, or ternary weights with `scales: matrix`",
    )


def _dense(job: ExportJob, stored: str) -> NDArray[np.float32]:
    """The tensor that the checkpoint stands for, in float."""
    module = stored.removesuffix(".weight")
    table = module in (job.source.anatomy.embedding, job.source.anatomy.head)
    weight = job.source.table(module) if table else job.source.tensor(stored)
    return np.asarray((weight.dequantize() if isinstance(weight, QTensor) else weight).numpy())


FORMAT: ExportFormat[Prepared] = GgufFormat("TQ2_0")
