"""The result of a quantizer as a plain checkpoint: the original, with float32 weights that lie on a grid.

Every tool stores its codes in a format of its own; this way one evaluation reads them all.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..contract import CompressionTask, QuantizerVariant

if TYPE_CHECKING:
    from torch import Tensor

_BETWEEN: dict[str, tuple[int, int | None]] = {
    "w3-channel": (3, None),
    "w3-g32": (3, 32),
    "w4-channel": (4, None),
}
_PARTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def between(method: str, **options: Any) -> dict[str, QuantizerVariant]:
    """Uniform schemes of about 3, 3.5 and 4 bits a weight, beside plans of widths of that size."""
    return {
        name: QuantizerVariant(method, bits, group_size=group_size, **options)
        for name, (bits, group_size) in _BETWEEN.items()
    }


def is_linear(name: str) -> bool:
    """Whether ``model.layers.0.mlp.up_proj`` is a layer that is quantized: not the embedding or the head."""
    return name.rpartition(".")[2] in _PARTS


def write_dense(
    task: CompressionTask,
    variant: QuantizerVariant,
    weights: Mapping[str, Tensor],
    norms: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the weights into ``task.result``.

    Args:
        weights: ``[out, in]`` by the name of the layer, for every quantized layer.
        norms: weights of norms by their names, of a tool that folds factors into them.
    """
    from safetensors.torch import load_file, save_file

    task.result.mkdir(exist_ok=True)
    pending = dict(weights)
    for file in sorted(task.checkpoint.iterdir()):
        if file.suffix != ".safetensors":
            if file.name.endswith(".index.json"):  # the shards are those of the original
                shutil.copyfile(file, task.result / file.name)
            continue
        tensors = load_file(file)
        for name in [name for name in tensors if is_linear(name.removesuffix(".weight"))]:
            layer = name.removesuffix(".weight")
            if layer not in pending:
                raise SystemExit(f"{layer} was not quantized")
            tensors[name] = _checked(layer, pending.pop(layer), tensors[name], variant)
        for name in tensors.keys() & (norms or {}).keys():
            assert norms is not None
            tensors[name] = norms[name].detach().float().contiguous()
        save_file(tensors, task.result / file.name, {"format": "pt"})
    if pending:
        raise SystemExit(f"quantized, but not in the checkpoint: {sorted(pending)[:3]}")


def _checked(layer: str, found: Any, original: Any, variant: QuantizerVariant) -> Any:
    if found.shape != original.shape:
        raise SystemExit(f"{layer} has the shape {list(found.shape)}, not {list(original.shape)}")
    found = found.detach().float().contiguous()
    size = variant.group_size or found.shape[1]
    groups = found[:8, : found.shape[1] // size * size].reshape(-1, size)
    most = max(len(group.unique()) for group in groups)
    if most > 2**variant.bits:
        raise SystemExit(
            f"{layer} has {most} values in a group, more than {variant.bits} bits can tell apart"
        )
    return found


def load_model(task: CompressionTask) -> Any:
    """The checkpoint as a float32 model of transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(task.checkpoint, dtype=torch.float32).eval()


def linears(model: Any) -> dict[str, Any]:
    """The modules of the quantized layers by name, whatever class they have by now."""
    return {name: module for name, module in model.named_modules() if is_linear(name)}
