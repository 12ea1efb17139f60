"""What GPTQ's and AWQ's checkpoints share: a directory that transformers loads by itself, with the integer
codes of every linear of the blocks packed into words, and what else the model has as it is stored.

Both name one scheme for the whole model. Codes, zero points and scales are those of the checkpoint, so that
the weights are its own bit by bit: scales that float16 does not hold are refused. A block at a time is in
memory.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor

from ...compress.model.block_anatomy import BlockAnatomy
from ...compress.model.checkpoint.block_sizes import BLOCK_SIZES
from ...compress.model.checkpoint.reader import CheckpointReader
from ...compress.model.checkpoint.shard_writer import copy_companions, join
from ...compress.model.family import looks_at_weights
from ...compress.numbers.qtensor import QTensor
from ...compress.numbers.scheme import Scheme
from ...errors import GateFailed, InputError, ShapeError
from ...files.storage import write_json
from ..format import ExportFormat, OpenedBy, OutputKind, Prepared, read_back
from ..job import ExportJob

# The parts of a model, and the model that they are joined to.
_COPIES = 2
_WORD = 32  # bits
_WAY_OUT = "export to onnx, or open the checkpoint itself in transformers"
_USE = """With transformers, torch and {packages}:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
prompt = tokenizer("The capital of France is", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=32)[0]))
```

{servers}"""


class PackedForm(Protocol):
    """How one of them stores a linear.

    Attributes:
        name: what people call it; packages: that transformers needs for it.
        bits: of its codes. group_sizes: of its groups; None is one scale per channel.
        families_not_opened: by transformers in this form, or with random numbers for what it expects there.
        families_served: that vLLM opened in this form, in benchmarks/lab/results/interop.md.
    """

    name: str
    packages: str
    bits: tuple[int, ...]
    group_sizes: tuple[int | None, ...]
    families_not_opened: tuple[str, ...]
    families_served: tuple[str, ...]

    def served_instead(self, scheme: Scheme) -> str:
        """What vLLM opens in this form, where weights in ``scheme`` are none of it; empty where they are."""

    def settings(self, scheme: Scheme, head: str | None) -> dict[str, Any]:
        """``quantization_config``; ``head`` is the module of the head, which stays as it is."""

    def pack(self, tensor: QTensor) -> dict[str, Tensor]:
        """The stored parts of a linear by their names."""

    def unpack(self, parts: Mapping[str, Tensor], scheme: Scheme) -> QTensor:
        """Inverse of :meth:`pack`."""


class PackedCheckpoint:
    """A directory for ``AutoModelForCausalLM.from_pretrained`` in a ``form``."""

    kind: OutputKind = "saved"
    graph = False
    encoder_decoders = False

    def __init__(self, form: PackedForm) -> None:
        self.form = form

    def opened_by(self, job: ExportJob) -> OpenedBy:
        """transformers, and the servers that know the form."""
        servers = _servers(self.form, _scheme(job), job.source.anatomy.model_type)
        return OpenedBy("transformers", _USE.format(packages=self.form.packages, servers=servers))

    def prepare(self, job: ExportJob, *, validate: bool) -> Prepared:
        """Look at family and schemes."""
        for refusal in self._refusals(job):
            raise InputError(f"{self.form.name}'s form does not hold {refusal}", fix=_WAY_OUT)
        bits = _scheme(job).bits
        for linear in job.source.anatomy.linears():
            if linear.in_features * bits % _WORD or linear.out_features * bits % _WORD:
                raise ShapeError(
                    f"{linear.name} has {linear.out_features} × {linear.in_features} codes of {bits} bits, "
                    f"and {self.form.name}'s form packs whole words of {_WORD} bits",
                    fix=_WAY_OUT,
                )
        return Prepared(_COPIES * job.stored_bytes)

    def _refusals(self, job: ExportJob) -> list[str]:
        source, form = job.source, self.form
        names = [linear.name for linear in source.anatomy.linears()]
        schemes = {source.schemes.get(name) for name in names}
        found = []
        if source.anatomy.kind != "decoder" or source.anatomy.has_experts:
            found.append("experts, or a model that is no decoder")
        if not source.anatomy.attends:
            found.append("blocks without attention, with which no reader was tried")
        family = source.anatomy.model_type
        cannot = source.conv1d or looks_at_weights(source.reader.config)
        if cannot or family in form.families_not_opened:
            found.append(f"a {family} that transformers would open")
        if source.reader.config.get(BLOCK_SIZES) is not None:
            found.append("blocks of unequal sizes")
        if None in schemes:
            found.append("a linear that is in float: quantize all of them with one scheme")
        elif len(schemes) > 1:
            said = ", ".join(sorted(scheme.name for scheme in schemes if scheme))
            found.append(f"several schemes ({said}): quantize all linears with one")
        else:
            found += [_lacks(scheme, form) for scheme in schemes if scheme and _lacks(scheme, form)]
        return found

    def write(self, job: ExportJob, prepared: Prepared, directory: Path) -> dict[str, Any]:
        """Write weights, config and the tokenizer's files."""
        source, work = job.source, directory / "parts"
        work.mkdir()
        parts = [self._write_outer(job, work / "outer.safetensors")]
        for block in source.anatomy.blocks:
            parts.append(self._write_block(job, block, work / f"{block.index:04d}.safetensors"))
        join(parts, directory)
        shutil.rmtree(work)
        copy_companions(source.reader, directory)
        settings = self.form.settings(_scheme(job), source.anatomy.head)
        write_json(directory / "config.json", {**source.reader.config, "quantization_config": settings})
        write_json(directory / "quantize_config.json", settings)
        notes = (
            [] if source.embedding_scheme is None else ["embedding and head are stored as in the checkpoint"]
        )
        if source.kv_scheme is not None:
            notes.append("the key/value cache is not quantized: the form has no place for its scales")
        return {"graph": {"notes": notes}}

    def _write_outer(self, job: ExportJob, file: Path) -> Path:
        anatomy = job.source.anatomy
        prefixes = tuple(f"{block.prefix}." for block in anatomy.blocks)
        names = [name for name in job.source.names() if not name.startswith(prefixes)]
        save_file({name: job.source.stored(name) for name in names if name not in anatomy.copies()}, file)
        return file

    def _write_block(self, job: ExportJob, block: BlockAnatomy, file: Path) -> Path:
        source, linears = job.source, {linear.name for linear in block.linears()}
        names = source.names(f"{block.prefix}.")
        tensors = {name: source.stored(name) for name in names if name.removesuffix(".weight") not in linears}
        for name, weight in source.quantized(block, torch.device("cpu")).items():
            if not torch.equal(weight.scale.to(torch.float16).to(torch.float32), weight.scale):
                raise ShapeError(
                    f"{name} has scales that float16 does not hold, and {self.form.name}'s form has no other",
                    fix=_WAY_OUT,
                )
            tensors |= {f"{name}.{part}": value for part, value in self.form.pack(weight).items()}
        save_file({name: value.contiguous() for name, value in sorted(tensors.items())}, file)
        return file

    def check(
        self, job: ExportJob, prepared: Prepared, directory: Path, sections: dict[str, Any], work: Path
    ) -> dict[str, Any]:
        """Unpack every linear and compare it with the checkpoint's."""
        reader, scheme = CheckpointReader.open(directory, as_stored=True), _scheme(job)
        for name in job.source.schemes:
            stored = [part for part in reader.shapes if part.rpartition(".")[0] == name]
            parts = {part.rpartition(".")[2]: value for part, value in reader.read(stored).items()}
            if not torch.equal(self.form.unpack(parts, scheme).dequantize(), job.source.dense(name)):
                raise GateFailed(f"{name} is not read back as it was written")
        return read_back()


def packed_checkpoint(form: PackedForm) -> ExportFormat[Prepared]:
    """The export format of a ``form``."""
    return PackedCheckpoint(form)


def _servers(form: PackedForm, scheme: Scheme, family: str) -> str:
    """What is known of vLLM."""
    if others := form.served_instead(scheme):
        return f"vLLM opens {others} in this form, and not these."
    if family in form.families_served:
        return "`vllm serve .` opens it too."
    return f"vLLM reads the form; that it opens a {family} in it was not seen."


def _scheme(job: ExportJob) -> Scheme:
    """The one that all linears have."""
    return next(iter(job.source.schemes.values()))


def _lacks(scheme: Scheme, form: PackedForm) -> str:
    """What of a scheme the form does not have; empty where it has all of it."""
    if scheme.format != "int" or scheme.activations or scheme.bits not in form.bits:
        bits = " or ".join(map(str, form.bits))
        return f"{scheme.name}: it has integer weights of {bits} bits, and activations that are not rounded"
    if scheme.group_size not in form.group_sizes:
        sizes = ", ".join(str(size) for size in form.group_sizes if size is not None)
        return f"groups of {scheme.group_size}: it has those of {sizes}, and one scale per channel"
    return ""
