"""HQQ's checkpoints: rows or columns of groups, packed part by part."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError

from .rewriting import BLOCK, Packer, Part, changed, rewritten

Q = f"{BLOCK}self_attn.q_proj"
SETTINGS: dict[str, Any] = {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4}}}
PACKINGS = {8: ("8bit_u8", 1), 4: ("4bit_u8", 2), 3: ("3bit_32", 10), 2: ("2bit_u8", 4), 1: ("1bit_u8", 8)}


def letters(text: str) -> Part:
    return np.array([ord(letter) for letter in text], np.uint8)


def packer(bits: int, size: int, axis: int) -> Packer:
    name, per_number = PACKINGS[bits]

    def pack(module: str, weight: Part) -> tuple[dict[str, Part], Part]:
        generator = np.random.default_rng(len(module))
        groups = weight.size // size
        shape = (groups, size) if axis else (size, groups)
        codes = generator.integers(0, 1 << bits, shape)
        along = (groups, 1) if axis else (1, groups)
        scale = generator.uniform(0.01, 0.1, along).astype(np.float16)
        zero = generator.uniform(0, 1 << bits, along).astype(np.float16)
        step = -(-len(codes) // per_number)
        packed = np.zeros((step, shape[1]), np.int64)
        for row, line in enumerate(codes):
            packed[row % step] |= line << bits * (per_number - 1 - row // step)
        value = np.empty(shape, np.float32)
        for row, column in np.ndindex(shape):
            group = (row, 0) if axis else (0, column)
            value[row, column] = (np.float32(codes[row, column]) - np.float32(zero[group])) * np.float32(
                scale[group]
            )
        numbers = {"nbits": bits, "group_size": size, "axis": axis}
        parts = {part: np.array(number, np.int32) for part, number in numbers.items()}
        parts |= {part: np.array(0, np.uint8) for part in ("quant_scale", "quant_zero", "view_as_float")}
        parts |= {"packing": letters(name), "compute_dtype": letters("torch.float16")}
        parts |= {"W_q": packed.astype(np.int32 if bits == 3 else np.uint8), "scale": scale, "zero": zero}
        return parts | {"shape": np.array(weight.shape)}, value.reshape(weight.shape)

    return pack


@pytest.mark.parametrize(
    ("bits", "size", "axis"),
    [(4, 32, 1), (8, 64, 1), (3, 32, 1), (2, 16, 1), (1, 32, 1), (4, 64, 0), (3, 64, 0), (4, 128, 1)],
)
def test_every_weight_is_read_to_the_bit(
    pico_llama: Path, tmp_path: Path, bits: int, size: int, axis: int
) -> None:
    weights = rewritten(pico_llama, tmp_path / "m", packer(bits, size, axis), SETTINGS)
    source = WeightSource.open(tmp_path / "m")
    assert source.reader.coded.described == f"{bits} bits (HQQ)" and len(weights) == 7
    for module, weight in weights.items():
        assert np.array_equal(source.dense(module).numpy(), weight)
        assert source.names(f"{module}.") == [f"{module}.weight"]


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("shape", np.array([64, 65]), "do not fit|groups of"),
        ("shape", np.array([2**40, 2**40]), "do not fit|groups of"),
        ("shape", np.array([64]), "no groups of 32"),
        ("shape", np.array([-64, -64]), "no groups of 32"),
        ("group_size", np.array(0, np.int32), "no groups of 0"),
        ("axis", np.array(2, np.int32), "along the axis 2"),
        ("packing", letters("5bit_u8"), "of its packings"),
        ("packing", letters("x" * 90), "of its packings"),
        ("quant_zero", np.array(1, np.uint8), "scales in floats"),
        ("view_as_float", np.array(1, np.uint8), "with view_as_float=False"),
        ("W_q", np.zeros((63, 32), np.uint8), "were expected"),
        ("W_q", np.zeros((64, 32), np.float16), "not U8"),
        ("zero", np.zeros((127, 1), np.float16), "were expected"),
        ("scale", np.full((128, 1), np.inf, np.float16), "not finite"),
        ("axis", np.zeros(3, np.int32), "one number"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    pico_llama: Path, tmp_path: Path, part: str, value: Part, said: str
) -> None:
    rewritten(pico_llama, tmp_path / "m", packer(4, 32, 1), SETTINGS)

    def edit(tensors: dict[str, Part]) -> None:
        tensors[f"{Q}.{part}"] = value

    changed(tmp_path / "m", edit)
    with pytest.raises(CheckpointError, match=said):
        WeightSource.open(tmp_path / "m").dense(Q)
