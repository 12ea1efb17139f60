"""What bitsandbytes stores: 4 bits by table, with scales quantized too, and 8 bits by row."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError

from .rewriting import BLOCK, Part, changed, rewritten

Q = f"{BLOCK}self_attn.q_proj"
STATE = "weight.quant_state.bitsandbytes__nf4"
FOUR = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


def as_bytes(value: Any) -> Part:
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def four_bits(block: int, nested: int | None) -> Callable[[str, Part], tuple[dict[str, Part], Part]]:
    def pack(module: str, weight: Part) -> tuple[dict[str, Part], Part]:
        generator = np.random.default_rng(len(module))
        count = weight.size
        codes, points = generator.integers(0, 16, count), np.linspace(-1, 1, 16, dtype=np.float32)
        scale = generator.uniform(0.01, 0.1, -(-count // block)).astype(np.float32)
        state: dict[str, Any] = {"quant_type": "nf4", "blocksize": block, "shape": list(weight.shape)}
        parts: dict[str, Part] = {"weight.quant_map": points}
        if nested is None:
            parts["weight.absmax"] = scale
        else:
            table = np.linspace(-1, 1, 256, dtype=np.float32)
            outer = generator.uniform(0.01, 0.1, -(-len(scale) // nested)).astype(np.float32)
            inner = generator.integers(0, 256, len(scale)).astype(np.uint8)
            state |= {"nested_blocksize": nested, "nested_offset": 0.05}
            parts |= {"weight.absmax": inner, "weight.nested_absmax": outer, "weight.nested_quant_map": table}
            for index, code in enumerate(inner):
                scale[index] = table[code] * outer[index // nested] + np.float32(0.05)
        value = np.empty(count, np.float32)
        for index, code in enumerate(codes):
            value[index] = points[code] * scale[index // block]
        packed = (codes[::2] << 4 | codes[1::2]).astype(np.uint8)[:, None]
        return parts | {"weight": packed, STATE: as_bytes(state)}, value.reshape(weight.shape)

    return pack


def eight_bits(module: str, weight: Part) -> tuple[dict[str, Part], Part]:
    generator = np.random.default_rng(len(module))
    codes = generator.integers(-127, 128, weight.shape).astype(np.int8)
    largest = generator.uniform(0.1, 1, len(codes)).astype(np.float32)
    value = codes.astype(np.float32) * (largest / np.float32(127))[:, None]
    return {"weight": codes, "SCB": largest, "weight_format": np.zeros((), np.uint8)}, value


@pytest.mark.parametrize(("block", "nested"), [(64, None), (32, 16), (4096, None), (64, 256)])
def test_four_bits_are_read_to_the_bit(
    pico_llama: Path, tmp_path: Path, block: int, nested: int | None
) -> None:
    settings = {**FOUR, "bnb_4bit_use_double_quant": nested is not None}
    weights = rewritten(pico_llama, tmp_path / "m", four_bits(block, nested), settings)
    source = WeightSource.open(tmp_path / "m")
    more = "" if nested is None else ", scales quantized too"
    assert source.reader.coded.described == f"4 bits (bitsandbytes, nf4{more})"
    assert len(weights) == 7 and not source.schemes
    for module, weight in weights.items():
        assert np.array_equal(source.dense(module).numpy(), weight)


def test_eight_bits_are_read_to_the_bit_and_kept(pico_llama: Path, tmp_path: Path) -> None:
    settings = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    weights = rewritten(pico_llama, tmp_path / "m", eight_bits, settings)
    source = WeightSource.open(tmp_path / "m")
    assert source.reader.coded.described == "8 bits (bitsandbytes, int8)"
    for module, weight in weights.items():
        assert source.schemes[module].name == "W8A16-channel"
        assert np.array_equal(source.dense(module).numpy(), weight)


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        (STATE, as_bytes({"blocksize": 64, "shape": [64, 65]}), "codes in blocks"),
        (STATE, as_bytes({"blocksize": 0, "shape": [64, 64]}), "says no matrix"),
        (STATE, as_bytes({"blocksize": 64, "shape": [64, 2**70]}), "says no matrix"),
        (STATE, as_bytes({"blocksize": 64, "shape": [64]}), "says no matrix"),
        (STATE, as_bytes({"blocksize": 64, "shape": [2**20, 2**20]}), "codes in blocks"),
        (STATE, as_bytes([]), "says no matrix"),
        (STATE, np.full(9, 255, np.uint8), "says no matrix"),
        (STATE, np.full(5000, 91, np.uint8), "says no matrix"),
        (STATE, np.full(4000, 91, np.uint8), "says no matrix"),
        ("weight.absmax", np.ones(63, np.float32), "codes in blocks"),
        ("weight.absmax", np.full(64, np.inf, np.float32), "not finite"),
        ("weight.quant_map", np.ones(15, np.float32), "codes in blocks"),
        ("weight", np.ones((2047, 1), np.uint8), "codes in blocks"),
        ("weight", torch.ones(2048, 1, dtype=torch.bfloat16), "not U8"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    pico_llama: Path, tmp_path: Path, part: str, value: Part, said: str
) -> None:
    rewritten(pico_llama, tmp_path / "m", four_bits(64, None), FOUR)

    def edit(tensors: dict[str, Part]) -> None:
        tensors[f"{Q}.{part}"] = value

    changed(tmp_path / "m", edit)
    with pytest.raises(CheckpointError, match=said):
        WeightSource.open(tmp_path / "m").dense(Q)


def test_an_offset_that_no_float_holds_is_refused(pico_llama: Path, tmp_path: Path) -> None:
    rewritten(pico_llama, tmp_path / "m", four_bits(64, 16), {**FOUR, "bnb_4bit_use_double_quant": True})

    def edit(tensors: dict[str, Part]) -> None:
        said = json.loads(bytes(tensors[f"{Q}.{STATE}"].tolist()))
        tensors[f"{Q}.{STATE}"] = as_bytes({**said, "nested_offset": 10**400})

    changed(tmp_path / "m", edit)
    with pytest.raises(CheckpointError, match="says no matrix and no blocks"):
        WeightSource.open(tmp_path / "m")


def test_an_order_of_matrix_units_and_a_state_that_is_not_there(pico_llama: Path, tmp_path: Path) -> None:
    rewritten(pico_llama, tmp_path / "e", eight_bits, {"quant_method": "bitsandbytes", "load_in_8bit": True})

    def turing(tensors: dict[str, Part]) -> None:
        tensors[f"{Q}.weight_format"] = np.array(2, np.uint8)

    changed(tmp_path / "e", turing)
    with pytest.raises(CheckpointError, match="not the order of rows"):
        WeightSource.open(tmp_path / "e")
    rewritten(pico_llama, tmp_path / "f", four_bits(64, None), FOUR)

    def older(tensors: dict[str, Part]) -> None:
        del tensors[f"{Q}.{STATE}"]

    changed(tmp_path / "f", older)
    with pytest.raises(CheckpointError, match="no quant_state of nf4 or fp4"):
        WeightSource.open(tmp_path / "f")
