"""The readers of what other tools have quantized, for :mod:`.fuzz`: a small model in each form, with random
codes.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .....files.storage import read_json, write_json
from ...same_bytes.pico_models import make_subjects
from .models import WORDS, Reader

_MODEL, _BLOCK, _SIZE = "llama-small", "model.layers.0.", 16
_MIXTURE, _CONFIG = "gpt_oss", "config.json"
# Settings that stand in a file of their own.
_BESIDE = {"quanto-4": "quanto_qmap.json"}
Parts = dict[str, Tensor]


def _words(*shape: int) -> Tensor:
    return torch.randint(-(1 << 31), 1 << 31, shape, dtype=torch.int64).to(torch.int32)


def _bytes(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape).to(torch.uint8)


def _letters(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def _number(value: int) -> Tensor:
    return torch.tensor(value, dtype=torch.int32)


def _gptq(out: int, inputs: int) -> Parts:
    groups = inputs // _SIZE
    order = torch.arange(inputs, dtype=torch.int32) // _SIZE
    scales = torch.rand(groups, out).to(torch.float16)
    return {"qweight": _words(inputs // 8, out), "qzeros": _words(groups, out // 8), "scales": scales} | {
        "g_idx": order.flip(0)
    }


def _awq(out: int, inputs: int) -> Parts:
    groups = inputs // _SIZE
    scales = torch.rand(groups, out).to(torch.float16)
    return {"qweight": _words(inputs, out // 8), "qzeros": _words(groups, out // 8), "scales": scales}


def _fp8(out: int, inputs: int) -> Parts:
    scale = torch.rand(-(-out // 32), -(-inputs // 32))
    return {"weight": torch.randn(out, inputs).to(torch.float8_e4m3fn), "weight_scale_inv": scale}


def _bitsandbytes(out: int, inputs: int) -> Parts:
    blocks = -(-out * inputs // 64)
    state = {"quant_type": "nf4", "blocksize": 64, "shape": [out, inputs]}
    state |= {"nested_blocksize": 16, "nested_offset": 0.1}
    return {
        "weight": _bytes(out * inputs // 2, 1),
        "weight.absmax": _bytes(blocks),
        "weight.quant_map": torch.rand(16),
        "weight.nested_absmax": torch.rand(-(-blocks // 16)),
        "weight.nested_quant_map": torch.rand(256),
        "weight.quant_state.bitsandbytes__nf4": _letters(json.dumps(state)),
    }


def _hqq(out: int, inputs: int) -> Parts:
    groups = out * inputs // _SIZE
    parts = {name: torch.rand(groups, 1).to(torch.float16) for name in ("scale", "zero")}
    parts |= {"W_q": _bytes(groups // 2, _SIZE), "packing": _letters("4bit_u8")}
    parts |= {"shape": torch.tensor([out, inputs]), "quant_scale": _number(0), "quant_zero": _number(0)}
    return parts | {"nbits": _number(4), "group_size": _number(_SIZE), "axis": _number(1)}


def _marlin(out: int, inputs: int) -> Parts:
    meta = torch.full((inputs // 32, 2 * out), 0x4444, dtype=torch.int16)
    if out % 64:
        return {"weight": torch.rand(out, inputs)}
    scales = torch.rand(1, out).to(torch.float16)
    return {"weight_packed": _words(inputs // 32, 2 * out), "scale_packed": scales, "meta": meta}


def _quanto(out: int, inputs: int) -> Parts:
    return {"weight._data": _bytes(out, inputs).view(torch.int8), "weight._scale": torch.rand(out, 1)}


def _quanto_of(bits: int) -> Callable[[int, int], Parts]:
    """Groups one below the other, several of which share bytes; shifts are floats, or of 2 bits integers."""

    def parts_of(out: int, inputs: int) -> Parts:
        groups = out * inputs // _SIZE
        shift = torch.rand(groups, 1) if bits == 4 else _bytes(groups, 1).view(torch.int8)
        packed = _bytes(groups * bits // 8, _SIZE)
        return {"weight._data._data": packed, "weight._scale": torch.rand(groups, 1), "weight._shift": shift}

    return parts_of


def _torchao(out: int, inputs: int) -> Parts:
    shape = (inputs // _SIZE, out)
    parts = {f"_weight_{part}": torch.rand(shape) for part in ("scale", "zero_point")}
    return parts | {"_weight_qdata": _bytes(out, inputs // 2)}


def _note(out: int, inputs: int) -> str:
    """What torchao says of a matrix in the header."""
    return json.dumps({"_type": "Int4Tensor", "_data": {"block_size": [1, _SIZE], "shape": [out, inputs]}})


def _packed(out: int, inputs: int) -> Parts:
    order = torch.arange(inputs, dtype=torch.int32) // _SIZE
    return {
        "weight_packed": _words(out, inputs // 8),
        "weight_shape": torch.tensor([out, inputs]),
        "weight_scale": torch.rand(out, inputs // _SIZE),
        "weight_g_idx": order,
    }


_GROUP = {
    "targets": ["re:.*proj$"],
    "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": _SIZE, "symmetric": True},
}
_GROUPS = {"config_groups": {"group_0": _GROUP}}
_PROJECTIONS = ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down")


def _every(kind: str) -> dict[str, Any]:
    """What optimum-quanto says of the linears of the first block."""
    return {f"{_BLOCK}{part}_proj": {"weights": kind, "activations": "none"} for part in _PROJECTIONS}


_FORMS: dict[str, tuple[dict[str, Any], Callable[[int, int], Parts]]] = {
    "gptq": ({"bits": 4, "group_size": _SIZE, "checkpoint_format": "gptq"}, _gptq),
    "awq": ({"bits": 4, "group_size": _SIZE, "version": "gemm"}, _awq),
    "auto-round": ({"bits": 4, "group_size": _SIZE, "packing_format": "auto_round:auto_awq"}, _awq),
    "fp8": ({"weight_block_size": [32, 32]}, _fp8),
    "bitsandbytes": ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, _bitsandbytes),
    "hqq": ({}, _hqq),
    "compressed-tensors": ({"format": "pack-quantized", **_GROUPS}, _packed),
    "marlin-24": ({"quant_method": "compressed-tensors", "format": "marlin-24", **_GROUPS}, _marlin),
    "quanto": ({"q": {"weights": "qint8"}}, _quanto),
    **{
        f"quanto-{bits}": ({"quant_method": "quanto", **_every(f"qint{bits}")}, _quanto_of(bits))
        for bits in (4, 2)
    },
    "torchao": ({"quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}}, _torchao),
}


def stored_forms(folder: Path) -> Reader:
    """Checkpoints that other tools quantized: what they say of their form, and every weight."""
    from .....compress.model.weights import WeightSource

    make_subjects(folder, [_MODEL, _MIXTURE])
    torch.manual_seed(0)
    files: dict[Path, str] = {}
    for method, (settings, parts_of) in _FORMS.items():
        made = folder / "forms" / method
        shutil.copytree(folder / "models" / _MODEL, made)
        beside = _BESIDE.get(method)
        _rewrite(made, {"quant_method": method, **settings}, parts_of, beside or _CONFIG)
        files |= {made / "config.json": "json", made / "model.safetensors": "safetensors"}
        files |= {} if beside is None else {made / beside: "json"}
    made = folder / "models" / _MIXTURE
    _in_mxfp4(made)
    files |= {made / "config.json": "json", made / "model.safetensors": "safetensors"}

    def read(path: Path) -> object:
        source = WeightSource.open(path.parent)
        return [source.dense(linear.name).shape for linear in source.anatomy.linears()]

    return Reader(files, read, WORDS)


def _rewrite(made: Path, settings: dict[str, Any], parts_of: Callable[[int, int], Parts], file: str) -> None:
    """Store the linears of the first block in the parts of a form, and its ``settings`` in ``file``."""
    tensors, notes = load_file(made / "model.safetensors"), {"format": "pt"}
    for name in [name for name in tensors if name.startswith(_BLOCK) and name.endswith("_proj.weight")]:
        module, shape = name.removesuffix(".weight"), tensors.pop(name).shape
        tensors |= {f"{module}.{part}": value for part, value in parts_of(*shape).items()}
        notes |= {f"{module}.weight": _note(*shape)} if parts_of is _torchao else {}
    save_file(tensors, made / "model.safetensors", metadata=notes)
    if file == _CONFIG:
        _say(made, settings)
    else:
        write_json(made / file, settings)


def _in_mxfp4(made: Path) -> None:
    """Store the experts of the first block as gpt-oss has them."""
    tensors = load_file(made / "model.safetensors")
    for name in [f"{_BLOCK}mlp.experts.{part}" for part in ("gate_up_proj", "down_proj")]:
        count, inputs, out = tensors.pop(name).shape
        tensors[f"{name}_blocks"] = _bytes(count, out, inputs // 32, 16)
        tensors[f"{name}_scales"] = torch.full((count, out, inputs // 32), 120, dtype=torch.uint8)
    save_file(tensors, made / "model.safetensors", metadata={"format": "pt"})
    _say(made, {"quant_method": "mxfp4"})


def _say(made: Path, settings: dict[str, Any]) -> None:
    config = read_json(made / _CONFIG)
    write_json(made / _CONFIG, {**config, "quantization_config": settings})
