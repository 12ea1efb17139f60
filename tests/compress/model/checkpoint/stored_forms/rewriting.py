"""A pico model as another tool would have stored it: linears of its first block in parts, by a packer that
goes code by code.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from edgepress.files.storage import read_json, write_json
from safetensors import safe_open
from safetensors.torch import load_file, save_file

BLOCK = "model.layers.0."
# An array, or of types that numpy lacks a tensor.
Part = Any
# The module's name and its weight [out, in] in; its stored parts and the weight that they stand for out.
Packer = Callable[[str, Part], tuple[dict[str, Part], Part]]


def stream(values: Sequence[int], bits: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    """``values`` of ``bits`` as 32-bit words, lowest first."""
    whole = sum(int(value) << bits * index for index, value in enumerate(values))
    count = -(-len(values) * bits // 32)
    words = [(whole >> 32 * index) & 0xFFFFFFFF for index in range(count)]
    return np.array(words, np.uint32).view(np.int32)


def rewritten(
    base: Path, folder: Path, packer: Packer, settings: dict[str, Any], file: str | None = None
) -> dict[str, Part]:
    """Write the model ``base`` into ``folder`` with its first block stored by ``packer``; returns the weights
    that it then has, by module. ``settings`` go to config.json, or to the ``file`` beside it.
    """
    shutil.copytree(base, folder)
    tensors, weights = load_file(folder / "model.safetensors"), {}
    for name in [name for name in tensors if name.startswith(BLOCK) and name.endswith("_proj.weight")]:
        module = name.removesuffix(".weight")
        parts, weights[module] = packer(module, tensors.pop(name).to(torch.float32).numpy())
        tensors |= {f"{module}.{part}": _tensor(value) for part, value in parts.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if file is not None:
        write_json(folder / file, settings)
    else:
        config = read_json(folder / "config.json")
        write_json(folder / "config.json", {**config, "quantization_config": settings})
    return weights


def changed(folder: Path, change: Callable[[dict[str, Part]], None]) -> None:
    """Have ``change`` edit the stored tensors of the model in ``folder``; its metadata stay."""
    tensors: dict[str, Part] = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if tensor.element_size() > 1 or not tensor.is_floating_point():
            tensors[name] = tensor.numpy()
    change(tensors)
    found = {name: _tensor(value) for name, value in tensors.items()}
    save_file(found, folder / "model.safetensors", metadata=metadata_of(folder))


def metadata_of(folder: Path) -> dict[str, str]:
    """The texts beside the tensors of the model in ``folder``."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        return dict(file.metadata())


def noted(folder: Path, notes: dict[str, str]) -> None:
    """Put ``notes`` beside the tensors of the model in ``folder``, to those that are there."""
    metadata = {**metadata_of(folder), **notes}
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors", metadata=metadata)


def _tensor(value: Part) -> torch.Tensor:
    tensor = value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))
    return tensor.contiguous()


def on_grid(
    weight: Part, bits: int, group_of: Part, symmetric: bool, seed: int
) -> tuple[Part, Part, Part, Part]:
    """Random codes ``[out, in]`` and zero points ``[out, groups]`` from 0 on, float16 scales, and the weight
    that they stand for; some zero points are the least and the largest.
    """
    generator = np.random.default_rng(seed)
    out, inputs = weight.shape
    groups = int(group_of.max()) + 1
    codes = generator.integers(0, 1 << bits, (out, inputs))
    zeros = generator.integers(0, 1 << bits, (out, groups))
    if symmetric:
        zeros[:] = 1 << (bits - 1)
    scales = generator.uniform(0.01, 0.1, (out, groups)).astype(np.float16)
    value = np.empty(weight.shape, np.float32)
    for row, column in np.ndindex(weight.shape):
        group = group_of[column]
        value[row, column] = np.float32(codes[row, column] - zeros[row, group]) * np.float32(
            scales[row, group]
        )
    return codes, zeros, scales, value
