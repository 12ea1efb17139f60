"""The ``gguf`` format: one file for llama.cpp and all that read its files, of the families in
:mod:`edgepress.compress.model.gguf.families`.

Quantized matrices keep their codes where GGUF has a type for them (:mod:`._gguf_blocks`); so do the embedding
and the head. What is float stays so.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compress.bill_of_materials import license_name
from ...compress.model.checkpoint.gguf_settings.positions import DIVISORS, divisors
from ...compress.model.gguf.entry import Entry, Part
from ...compress.model.gguf.features import architecture_of, refuse_rounded
from ...compress.model.gguf.places import entries
from ...compress.numbers.qtensor import QTensor
from ...errors import GateFailed, ShapeError, require
from ...files.escaping import one_line
from ..format import ExportFormat, OpenedBy, OutputKind, Prepared, read_back
from ..job import ExportJob
from ._gguf_blocks import packed
from ._gguf_encoder import check_pairs, describe_encoder
from ._gguf_settings import describe
from ._gguf_tokenizer import add_tokenizer

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
