"""GPTQModel: GPTQ, symmetric groups."""

from pathlib import Path
from typing import Any

from ..contract import CompressionTask, QuantizerVariant
from ._dense import between, is_linear, write_dense

TITLE = "GPTQModel"
PACKAGES = (
    "gptqmodel==7.6.0",
    "optimum",
    "torch",
)
# On two cores it stops until it is given how many workers there may be.
ENVIRONMENT = {"GPTQMODEL_CPU_WORKERS": "2"}
DISTRIBUTIONS = ("gptqmodel", "transformers", "torch")
VARIANTS = {f"w{bits}": QuantizerVariant("GPTQ", bits) for bits in (4, 3, 2)} | between("GPTQ")


def quantize(task: CompressionTask, variant: str) -> None:
    """``quantize`` and ``save``; the packed file is then decoded."""
    from gptqmodel import GPTQModel, QuantizeConfig

    chosen = VARIANTS[variant]
    # It takes the groups in the order of their activations, and refuses to where there are no groups.
    grouped = chosen.group_size is not None
    config = QuantizeConfig(
        bits=chosen.bits,
        group_size=chosen.group_size or -1,
        sym=True,
        desc_act=False,
        act_group_aware=grouped,
    )
    model = GPTQModel.load(str(task.checkpoint), config, device="cpu")
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in task.tokens()]
    model.quantize(rows, batch_size=1)
    packed = task.output / "packed"
    model.save(str(packed))
    write_dense(task, chosen, decode(packed, chosen.bits))


def decode(directory: Path, bits: int) -> dict[str, Any]:
    """Float32 weights ``[out, in]`` of a GPTQ v1 checkpoint, by layer."""
    from safetensors.torch import load_file

    tensors: dict[str, Any] = {}
    for file in directory.glob("*.safetensors"):
        tensors |= load_file(file)
    names = [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]
    parts = ("qweight", "qzeros", "scales", "g_idx")
    return {
        name: decode_layer({part: tensors[f"{name}.{part}"] for part in parts}, bits)
        for name in names
        if is_linear(name)
    }


def decode_layer(parts: dict[str, Any], bits: int) -> Any:
    """``[out, in]`` from ``qweight [in·bits/32, out]``, ``qzeros [groups, out·bits/32]`` that are less by
    one, ``scales [groups, out]`` and ``g_idx [in]``.
    """
    codes = unpack(parts["qweight"], bits)
    zeros = unpack(parts["qzeros"].T.contiguous(), bits).T + 1
    group = parts["g_idx"].long()
    return ((codes - zeros[group]).float() * parts["scales"].float()[group]).T


def unpack(words: Any, bits: int) -> Any:
    """Codes ``[rows·32/bits, columns]`` from words ``[rows, columns]``: bits in a stream, lowest first."""
    import torch

    shifts = torch.arange(32).view(1, 32, 1)
    stream = ((words.long().unsqueeze(1) >> shifts) & 1).reshape(-1, words.shape[1])
    values = stream.reshape(-1, bits, words.shape[1])
    return (values << torch.arange(bits).view(1, bits, 1)).sum(1)
