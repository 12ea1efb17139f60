"""``marlin-24``: what a packer stored code by code is read to the bit, and so was what the compressor of
compressed-tensors 0.10.2 wrote, of 4 and 8 bits, with a scale a row and in groups of 128.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError

from .rewriting import BLOCK, Packer, Part, changed, rewritten

GATE, DOWN = f"{BLOCK}mlp.gate_proj", f"{BLOCK}mlp.down_proj"


def settings(bits: int) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "group", "group_size": 128}
    group = {"targets": ["Linear"], "weights": weights}
    return {"quant_method": "compressed-tensors", "format": "marlin-24", "config_groups": {"group_0": group}}


def packed(there: Part, bits: int) -> Part:
    """``there [in / 2, out]`` from 0 on as words: the order within a tile is that of the threads of a warp,
    of which each takes pairs of rows of two halves, four columns on.
    """
    rows, out = there.shape
    words = []
    for tile in np.ndindex(rows // 16, out // 64):
        codes = []
        for lane, step, half, pair in np.ndindex(32, 4, 2, 2):
            column = tile[1] * 64 + lane // 8 * 16 + lane // 4 % 2 * 8 + half * 4 + step
            start = tile[0] * 16 + lane % 4 * 2 + pair * 8
            codes += [int(there[start, column]), int(there[start + 1, column])]
        per_word = 32 // bits
        for start in range(0, len(codes), per_word):
            own = codes[start : start + per_word]
            words.append(sum(code << bits * place for place, code in enumerate(own[::2] + own[1::2])))
    return np.array(words, np.uint32).view(np.int32).reshape(rows // 16, -1)


def meta(places: Part) -> Part:
    """``places [out, in / 4, 2]`` as CUTLASS keeps them: four to a number, numbers of two columns side by
    side, blocks of 2 × 2 of them turned, rows of 64 in an order of their own.
    """
    out, fours, _ = places.shape
    stored = np.zeros(out * fours // 4, np.uint16)
    for row, column in np.ndindex(out, fours // 4):
        own = places[row, 4 * column : 4 * column + 4]
        number = sum(
            (int(first) | int(second) << 2) << 4 * index for index, (first, second) in enumerate(own)
        )
        moved = row - row % 64 + row % 64 // 8 * 4 + row % 2 * 2 + row % 4 // 2 * 32 + row % 8 // 4
        pair = column // 2 * out * 2
        stored[pair + (moved - moved % 2 + column % 2) * 2 + moved % 2] = number
    return stored.view(np.int16).reshape(fours // 8, 2 * out)


def packer(bits: int) -> Packer:
    def pack(module: str, weight: Part) -> tuple[dict[str, Part], Part]:
        out, inputs = weight.shape
        if out % 64:
            return {"weight": weight}, weight
        generator = np.random.default_rng(len(module))
        there = generator.integers(0, 1 << bits, (inputs // 2, out))
        places = np.sort(generator.random((out, inputs // 4, 4)).argsort(-1)[..., :2], -1)
        groups = max(1, inputs // 128)
        scale = generator.uniform(0.01, 0.1, (groups, out)).astype(np.float16)
        value = np.zeros(weight.shape, np.float32)
        for row, four, index in np.ndindex(places.shape):
            column = 4 * four + places[row, four, index]
            code = there[2 * four + index, row] - (1 << (bits - 1))
            value[row, column] = np.float32(code) * np.float32(scale[column * groups // inputs, row])
        stored = scale
        if groups > 2:
            stored = scale.reshape(-1, 8)[:, [0, 4, 1, 5, 2, 6, 3, 7]].reshape(groups, out)
        return {"weight_packed": packed(there, bits), "scale_packed": stored, "meta": meta(places)}, value

    return pack


@pytest.mark.parametrize("bits", [4, 8])
def test_every_weight_is_read_to_the_bit(
    make_decoder: Callable[..., Path], tmp_path: Path, bits: int
) -> None:
    base = make_decoder(tmp_path / "base", "llama", intermediate_size=384)
    weights = rewritten(base, tmp_path / "m", packer(bits), settings(bits))
    source = WeightSource.open(tmp_path / "m")
    assert source.reader.coded.described == f"{bits} bits (compressed-tensors, marlin-24)"
    for module, weight in weights.items():
        assert np.array_equal(source.dense(module).numpy(), weight)
    assert source.schemes[DOWN].name == f"W{bits}A16-g128"
    assert source.schemes[GATE].name == f"W{bits}A16-channel"


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("meta", np.zeros((2, 256), np.int16), "no two of four"),
        ("meta", np.zeros((2, 255), np.int16), "were expected"),
        ("meta", np.zeros((2, 256), np.int32), "not I16"),
        ("meta", None, "has no meta"),
        ("weight_packed", np.zeros((2, 255), np.int32), "were expected"),
        ("weight_packed", np.zeros((1 << 20, 1), np.int32), "were expected"),
        ("weight_packed", None, "has no weight_packed"),
        ("scale_packed", np.ones((2, 128), np.float16), "were expected"),
        ("scale_packed", np.ones((1, 96), np.float16), "were expected"),
        ("scale_packed", np.full((1, 128), np.inf, np.float16), "not finite"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    pico_llama: Path, tmp_path: Path, part: str, value: Part | None, said: str
) -> None:
    rewritten(pico_llama, tmp_path / "m", packer(4), settings(4))

    def edit(tensors: dict[str, Part]) -> None:
        del tensors[f"{GATE}.{part}"]
        if value is not None:
            tensors[f"{GATE}.{part}"] = value

    changed(tmp_path / "m", edit)
    with pytest.raises(CheckpointError, match=said):
        WeightSource.open(tmp_path / "m").dense(GATE)


def test_other_bits_are_refused(pico_llama: Path, tmp_path: Path) -> None:
    rewritten(pico_llama, tmp_path / "m", packer(4), settings(2))
    with pytest.raises(CheckpointError, match="of 4 or 8 bits, were expected"):
        WeightSource.open(tmp_path / "m")
