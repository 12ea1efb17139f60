"""The ``gguf`` format: one file for llama.cpp and all that read its files, of the families in
:mod:`edgepress.compress.model.gguf.families`.

Quantized matrices keep their codes where GGUF has a type for them (:mod:`.gguf`); so do the embedding
and the head. What is float stays so.

Weights as GGUF keeps them: its own types as they are, ternary ones as ``TQ2_0`` or ``TQ1_0``, groups of
4, 5 and 8 bits as ``Q4_0``, ``Q5_0`` and ``Q8_0``, which are of 32 and repeat the scale of a larger one.
"""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compress.bill_of_materials import license_name
from ...compress.model.checkpoint.gguf_settings.positions import DIVISORS, divisors
from ...compress.model.checkpoint.packed_codes import pack_blocks
from ...compress.model.gguf.entry import Entry, Part
from ...compress.model.gguf.features import architecture_of, refuse_rounded
from ...compress.model.gguf.places import entries
from ...compress.model.gguf.types import BLOCK, WAY_OUT, type_of
from ...compress.numbers.qtensor import QTensor
from ...errors import GateFailed, ShapeError, require
from ...files.escaping import one_line
from ..format import ExportFormat, OpenedBy, OutputKind, Prepared, read_back
from ..job import ExportJob
from ._gguf_settings import check_pairs, describe, describe_encoder
from ._gguf_tokenizer import add_tokenizer
from ._ternary import block_scales, codes_and_scales, is_ternary, tq1_0, tq2_0

# The checkpoint may store in 8 bits what the file holds in 32.
_COPIES = 4


class GgufFormat:
    """``NAME.gguf`` with ternary weights of the type ``ternary``: ``TQ1_0`` or ``TQ2_0``."""

    kind: OutputKind = "saved"
    graph = False
    encoder_decoders = True

    def __init__(self, ternary: str) -> None:
        self.ternary = ternary

    def opened_by(self, job: ExportJob) -> OpenedBy:
        """llama.cpp, by its own program."""
        program = "llama-embedding" if job.source.anatomy.kind == "encoder" else "llama-cli"
        file = shlex.quote(one_line(f"{job.name}.gguf"))
        return OpenedBy(
            "gguf",
            f"With the program `{program}` of llama.cpp, and in whatever else reads GGUF:\n\n"
            f'```\n{program} -m {file} -p "The capital of France is"\n```',
        )

    def prepare(self, job: ExportJob, *, validate: bool) -> Prepared:
        """Look at the family, and at whether the model is rounded."""
        require("gguf", "compress")
        known = architecture_of(job.source.anatomy)
        check_pairs(job)
        if job.source.schemes:
            refuse_rounded(known, job.name, "export the model in float to gguf, or this one to onnx")
        return Prepared(_COPIES * job.stored_bytes)

    def write(self, job: ExportJob, prepared: Prepared, directory: Path) -> dict[str, Any]:
        """Write the file."""
        from gguf import GGUFWriter

        known = architecture_of(job.source.anatomy)
        writer = GGUFWriter(directory / f"{job.name}.gguf", known.name)
        writer.add_name(job.name)
        describe(writer, job.source.anatomy)
        describe_encoder(writer, job)
        licence = license_name(job.made.get("source", {}).get("license"))
        if licence is not None:
            writer.add_license(licence)
        encodes = job.source.anatomy.kind == "encoder"
        add_tokenizer(writer, job.source.reader, job.source.anatomy.vocab_size, encodes)
        for entry in entries(job.source.anatomy, job.source.shapes, known):
            array, kind = _stored(job, entry, self.ternary)
            writer.add_tensor(entry.name, array, raw_dtype=kind)
        for rope in job.source.anatomy.ropes():
            if rope.scaling.get("rope_type") == "llama3":
                divided_by = divisors(rope.theta, rope.dim, rope.scaling)
                writer.add_tensor(DIVISORS, np.array(divided_by, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        labels = job.source.anatomy.classifier
        purpose = {"labels": [] if labels is None else list(labels.labels)}
        return {"graph": {"notes": []}, job.source.anatomy.kind: purpose}

    def check(
        self, job: ExportJob, prepared: Prepared, directory: Path, sections: dict[str, Any], work: Path
    ) -> dict[str, Any]:
        """Read the file back with the gguf package and compare every tensor with the checkpoint's."""
        from gguf import GGUFReader
        from gguf.quants import dequantize

        reader, known = GGUFReader(directory / f"{job.name}.gguf"), architecture_of(job.source.anatomy)
        kept = {tensor.name: tensor for tensor in reader.tensors}
        for entry in entries(job.source.anatomy, job.source.shapes, known):
            found = dequantize(kept[entry.name].data, kept[entry.name].tensor_type)
            if not np.array_equal(found, entry.of(_dense(job, part) for part in entry.parts)):
                raise GateFailed(f"{entry.name} of the file is not {entry.parts[0].stored} of the checkpoint")
        return read_back()


def _stored(job: ExportJob, entry: Entry, ternary: str) -> tuple[NDArray[Any], Any]:
    """The tensor as GGUF keeps it, and its type."""
    found = [_part(job, part, ternary) for part in entry.parts]
    kinds = {kind for _, kind in found}
    if len(kinds) > 1:
        of = "all experts" if entry.stacked else "q, k and v"
        raise ShapeError(
            f"{entry.name} is one tensor of {of} in GGUF, and some of them have another type",
            fix=f"give {of} of a block one scheme",
        )
    return np.ascontiguousarray(entry.of(array for array, _ in found)), kinds.pop()


def _part(job: ExportJob, part: Part, ternary: str) -> tuple[NDArray[Any], Any]:
    module = part.stored.removesuffix(".weight")
    anatomy = job.source.anatomy
    if module in (anatomy.embedding, anatomy.head):
        weight: Any = job.source.table(module)
    else:
        weight = job.source.linear(module) if module in job.source.schemes else job.source.tensor(part.stored)
    return packed(weight, part, ternary) if isinstance(weight, QTensor) else (part.of(weight.numpy()), None)


def _dense(job: ExportJob, part: Part) -> NDArray[np.float32]:
    """The tensor that the checkpoint stands for, in float."""
    module = part.stored.removesuffix(".weight")
    table = module in (job.source.anatomy.embedding, job.source.anatomy.head)
    weight = job.source.table(module) if table else job.source.tensor(part.stored)
    return part.of(np.asarray((weight.dequantize() if isinstance(weight, QTensor) else weight).numpy()))


FORMAT: ExportFormat[Prepared] = GgufFormat("TQ2_0")


def packed(tensor: QTensor, part: Part, ternary: str) -> tuple[NDArray[np.uint8], Any]:
    """Rows of bytes, and their type."""
    from gguf import GGMLQuantizationType as Kind

    if tensor.scheme.of_gguf:
        return np.ascontiguousarray(part.of(pack_blocks(tensor).numpy())), Kind[tensor.scheme.name]
    codes, scales = (part.of(array) for array in codes_and_scales(tensor))
    if is_ternary(tensor):
        pack = {"TQ1_0": tq1_0, "TQ2_0": tq2_0}[ternary]
        return pack(codes, block_scales(scales, codes.shape[1], part.stored)), Kind[ternary]
    return _groups(tensor, codes, scales, part.stored)


def _groups(
    tensor: QTensor, codes: NDArray[np.int8], scales: NDArray[np.float32], name: str
) -> tuple[NDArray[np.uint8], Any]:
    from gguf import GGMLQuantizationType as Kind

    kind = type_of(tensor.scheme, codes.shape[1])
    if kind not in ("Q4_0", "Q5_0", "Q8_0"):
        raise ShapeError(
            f"{name.removesuffix('.weight')} is {tensor.scheme.name}, which GGUF has no type for here",
            fix=WAY_OUT,
        )
    repeated = np.repeat(scales, codes.shape[1] // scales.shape[1] // BLOCK, axis=1)
    ends = repeated.astype(np.float16)[..., None].view(np.uint8)
    if kind == "Q8_0":
        grouped = codes.reshape(*repeated.shape, BLOCK).view(np.uint8)
        return np.concatenate([ends, grouped], -1).reshape(len(codes), -1), Kind.Q8_0
    digits = (codes.reshape(*repeated.shape, 2, BLOCK // 2) + (1 << tensor.scheme.bits - 1)).astype(np.uint8)
    low = digits & 15
    parts = [ends, low[..., 0, :] | low[..., 1, :] << 4]
    if kind == "Q5_0":  # the fifth bits of the 32 before the others
        fifth = digits.reshape(*repeated.shape, BLOCK) >> 4
        parts.insert(1, np.packbits(fifth, axis=-1, bitorder="little"))
    return np.concatenate(parts, -1).reshape(len(codes), -1), Kind[kind]
