"""The ``bitnet`` format: a directory that transformers loads by itself, with ternary weights packed four rows
to a byte and activations rounded to int8 as it computes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...compress.model.anatomy import module_name
from ...compress.model.checkpoint.shard_writer import copy_companions
from ...compress.numbers.qtensor import QTensor
from ...errors import GateFailed, ShapeError
from ...files.storage import write_json
from ..format import ExportFormat, OpenedBy, OutputKind, Prepared, read_back
from ..job import ExportJob
from ._ternary import codes_and_scales, four_rows, is_ternary, one_scale

WEIGHTS = "model.safetensors"
# The checkpoint may store in 8 bits what the file holds in 32.
_COPIES = 4
_USE = """With transformers and torch:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
prompt = tokenizer("The capital of France is", return_tensors="pt")
print(tokenizer.decode(model.generate(prompt.input_ids, max_new_tokens=32)[0]))
```"""


class BitnetFormat:
    """A directory for ``AutoModelForCausalLM.from_pretrained``."""

    kind: OutputKind = "saved"
    graph = False
    encoder_decoders = False

    def opened_by(self, job: ExportJob) -> OpenedBy:
        """transformers, which knows the form."""
        return OpenedBy("transformers", _USE)

    def prepare(self, job: ExportJob, *, validate: bool) -> Prepared:
        """The room that the files take; what they cannot hold is found as they are written."""
        return Prepared(_COPIES * job.stored_bytes)

    def write(self, job: ExportJob, prepared: Prepared, directory: Path) -> dict[str, Any]:
        """Write weights, config and the tokenizer's files."""
        source = job.source
        save_file(_tensors(job), directory / WEIGHTS, {"format": "pt"})
        config = dict(source.reader.config)
        head = source.anatomy.head
        config["quantization_config"] = {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "offline",
            "modules_to_not_convert": [] if head is None else [module_name(source.anatomy, head)],
        }
        write_json(directory / "config.json", config)
        copy_companions(source.reader, directory)
        return {"graph": {"notes": ["transformers rounds activations to int8, a scale for each token"]}}

    def check(
        self, job: ExportJob, prepared: Prepared, directory: Path, sections: dict[str, Any], work: Path
    ) -> dict[str, Any]:
        """Unpack every matrix and compare it with the checkpoint's."""
        tensors = load_file(directory / WEIGHTS)
        for linear in job.source.anatomy.linears():
            packed = tensors[f"{linear.name}.weight"].numpy()
            rows = [(packed >> shift) & 3 for shift in (0, 2, 4, 6)]
            codes = np.concatenate(rows).astype(np.float32) - 1
            found = codes * float(tensors[f"{linear.name}.weight_scale"])
            if not np.array_equal(found, job.source.dense(linear.name).numpy()):
                raise GateFailed(f"{linear.name} is not read back as it was written")
        return read_back()


def _tensors(job: ExportJob) -> dict[str, Tensor]:
    """By stored name: every linear packed, with its scale, and the rest as the checkpoint stores it."""
    linears = [linear.name for linear in job.source.anatomy.linears()]
    names = [name for name in job.source.names() if name.removesuffix(".weight") not in linears]
    tensors = {name: job.source.stored(name) for name in names}
    for name in linears:
        packed, scale = _packed(job, name)
        tensors |= {f"{name}.weight": packed, f"{name}.weight_scale": scale}
    return {name: value.contiguous() for name, value in tensors.items()}


def _packed(job: ExportJob, name: str) -> tuple[Tensor, Tensor]:
    tensor = job.source.linear(name)
    if not isinstance(tensor, QTensor) or not is_ternary(tensor):
        raise ShapeError(
            f"{name} is not ternary, and the BitNet form holds nothing else",
            fix="train it with the pass `ternary`, `scales: matrix`",
        )
    packed = four_rows(codes_and_scales(tensor)[0])
    return torch.from_numpy(packed), torch.tensor([one_scale(tensor, name)])


FORMAT: ExportFormat[Prepared] = BitnetFormat()
