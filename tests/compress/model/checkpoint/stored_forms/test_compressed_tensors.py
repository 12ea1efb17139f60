"""compressed-tensors' kinds that no scheme has, against a packer that goes code by code."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.compress.api import plan_model
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError

from .rewriting import BLOCK, Packer, Part, changed, on_grid, rewritten, stream

Q = f"{BLOCK}self_attn.q_proj"


def settings(format: str, weights: dict[str, Any], **more: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "format": format, **more}
    return {"quant_method": "compressed-tensors", "format": format, "config_groups": {"group_0": group}}


def padded(values: Any, bits: int) -> Part:
    """So many whole codes a word, as older versions packed."""
    per_word, found = 32 // bits, list[int]()
    for start in range(0, len(values), per_word):
        run = values[start : start + per_word]
        found.append(sum(int(value) << bits * index for index, value in enumerate(run)))
    return np.array(found, np.uint32).view(np.int32)


def integers(
    bits: int, size: int, *, whole: bool = False, ordered: bool = False, zeros: bool = False
) -> Packer:
    """``whole``: words hold whole codes."""

    def pack(module: str, weight: Part) -> tuple[dict[str, Part], Part]:
        inputs = weight.shape[1]
        group_of = np.arange(inputs) // (size if size > 0 else inputs)
        if ordered:
            group_of = np.random.default_rng(3).permutation(group_of)
        codes, points, scales, value = on_grid(weight, bits, group_of, not zeros, len(module))
        words = padded if whole else stream
        parts = {
            "weight_packed": np.stack([words(list(line), bits) for line in codes]),
            "weight_shape": np.array(weight.shape, np.int64),
            "weight_scale": scales,
        }
        if zeros:
            parts["weight_zero_point"] = np.stack([words(list(line), bits) for line in points.T], 1)
        if ordered:
            parts["weight_g_idx"] = group_of.astype(np.int32)
        return parts, value

    return pack


def fp8(block: tuple[int, int], exponents: bool = False) -> Packer:
    def pack(module: str, weight: Part) -> tuple[dict[str, Part], Part]:
        codes = (torch.from_numpy(weight) * 300).to(torch.float8_e4m3fn)
        count = [-(-size // step) for size, step in zip(weight.shape, block, strict=True)]
        exponent = np.random.default_rng(len(module)).integers(118, 124, count)
        scale = (2.0 ** (exponent - 127.0)).astype(np.float32)
        value, plain = np.empty(weight.shape, np.float32), codes.float().numpy()
        for row, column in np.ndindex(value.shape):
            value[row, column] = plain[row, column] * scale[row // block[0], column // block[1]]
        return {"weight": codes, "weight_scale": exponent.astype(np.uint8) if exponents else scale}, value

    return pack


def masked(start: str) -> Packer:
    def pack(module: str, weight: Part) -> tuple[dict[str, Part], Part]:
        value = np.where(np.random.default_rng(len(module)).random(weight.shape) < 0.5, weight, 0)
        mask = np.packbits(value != 0, axis=1, bitorder="little")
        parts = {"compressed": value[value != 0], "bitmask": mask, "shape": np.array(value.shape)[:, None]}
        return {f"{start}{name}": part for name, part in parts.items()}, value.astype(np.float32)

    return pack


def group(bits: int, size: int, **more: Any) -> dict[str, Any]:
    given = {"num_bits": bits, "type": "int", "strategy": "group", "group_size": size, "symmetric": True}
    return {**given, **more}


BLOCKS = {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [24, 32], "symmetric": True}
MX = {"num_bits": 8, "type": "float", "strategy": "group", "group_size": 32, "symmetric": True}
FLOAT_TOKENS = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "token", "dynamic": True}


@pytest.mark.parametrize(
    ("format", "weights", "packer", "more"),
    [
        ("pack-quantized", group(4, 8), integers(4, 8), {}),
        ("pack-quantized", group(7, 32), integers(7, 32), {}),
        ("pack-quantized", group(6, 8, symmetric=False), integers(6, 8, zeros=True), {}),
        ("pack-quantized", group(3, 32), integers(3, 32, whole=True), {}),
        ("pack-quantized", group(5, 32, symmetric=False), integers(5, 32, whole=True, zeros=True), {}),
        ("pack-quantized", group(4, 32, actorder="group"), integers(4, 32, ordered=True), {}),
        ("pack-quantized", group(4, 32), integers(4, 32), {"input_activations": FLOAT_TOKENS}),
        ("pack-quantized", group(7, 0, strategy="channel"), integers(7, 0), {}),
        ("float-quantized", BLOCKS, fp8((24, 32)), {"input_activations": FLOAT_TOKENS}),
        ("mxfp8-quantized", MX, fp8((1, 32), exponents=True), {}),
    ],
)
def test_every_weight_is_read_to_the_bit(
    pico_llama: Path,
    tmp_path: Path,
    format: str,
    weights: dict[str, Any],
    packer: Packer,
    more: dict[str, Any],
) -> None:
    found = rewritten(pico_llama, tmp_path / "m", packer, settings(format, weights, **more))
    source = WeightSource.open(tmp_path / "m")
    assert source.reader.coded.described == f"{weights['num_bits']} bits (compressed-tensors, {format})"
    assert not source.schemes and len(found) == 7
    for module, weight in found.items():
        assert np.array_equal(source.dense(module).numpy(), weight)


@pytest.mark.parametrize("bits", [4, 5, 6])
def test_what_has_a_scheme_is_read_as_codes(pico_llama: Path, tmp_path: Path, bits: int) -> None:
    given = settings("pack-quantized", group(bits, 32))
    weights = rewritten(pico_llama, tmp_path / "m", integers(bits, 32), given)
    source = WeightSource.open(tmp_path / "m")
    assert source.schemes[Q].name == f"W{bits}A16-g32" and not source.reader.coded.by_module
    assert np.array_equal(source.dense(Q).numpy(), weights[Q])


@pytest.mark.parametrize(("start", "format"), [("weight.", "sparse-bitmask"), ("", "sparse-24-bitmask")])
def test_masks_say_where_values_are_not_0(pico_llama: Path, tmp_path: Path, start: str, format: str) -> None:
    given = {"quant_method": "compressed-tensors", "format": "dense", "sparsity_config": {"format": format}}
    weights = rewritten(pico_llama, tmp_path / "m", masked(start), given)
    source = WeightSource.open(tmp_path / "m")
    for module, weight in weights.items():
        assert np.array_equal(source.dense(module).numpy(), weight)
    # Nothing of it is rounded, so that no word is needed.
    assert any(format in note for note in plan_model(str(tmp_path / "m"), scheme="W8A8").notes)

    def less(tensors: dict[str, Part]) -> None:
        tensors[f"{Q}.{start}compressed"] = tensors[f"{Q}.{start}compressed"][:-1]

    changed(tmp_path / "m", less)
    with pytest.raises(CheckpointError, match="values where its mask has"):
        WeightSource.open(tmp_path / "m").dense(Q)


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("weight_g_idx", np.full(64, 9, np.int32), "groups beyond"),
        ("weight_g_idx", np.zeros(63, np.int32), "of 64 inputs"),
        ("weight_scale", np.ones((64, 3), np.float16), "do not fit"),
        ("weight_scale", np.full((64, 2), np.nan, np.float16), "not finite"),
        ("weight_scale", np.full((64, 2), 255, np.uint8), "exponents that are none"),
        ("weight_shape", np.array([64, 2**40]), "weight_shape says"),
        ("weight_shape", np.array([64, 64, 1]), "weight_shape says"),
        ("weight_shape", np.array([64, -64]), "weight_shape says"),
        ("weight_packed", np.zeros((64, 9), np.int32), "weight_shape says"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    pico_llama: Path, tmp_path: Path, part: str, value: Part, said: str
) -> None:
    given = settings("pack-quantized", group(4, 32, actorder="group"))
    rewritten(pico_llama, tmp_path / "m", integers(4, 32, ordered=True), given)

    def edit(tensors: dict[str, Part]) -> None:
        tensors[f"{Q}.{part}"] = value

    changed(tmp_path / "m", edit)
    with pytest.raises(CheckpointError, match=said):
        WeightSource.open(tmp_path / "m").dense(Q)


@pytest.mark.parametrize(
    "weights",
    [
        {**MX, "num_bits": 6},
        group(9, 32),
        group(0, 32),
        group(4, 10**30),
        {**BLOCKS, "block_structure": [2**63, 1]},
        {"num_bits": "4", "type": "int"},
        {"num_bits": 4, "type": ["int"], "strategy": "group"},
    ],
)
def test_numbers_that_are_not_read_are_refused(
    pico_llama: Path, tmp_path: Path, weights: dict[str, Any]
) -> None:
    packer = integers(4, 32, ordered=True)
    rewritten(pico_llama, tmp_path / "m", packer, settings("pack-quantized", weights))
    with pytest.raises(CheckpointError):
        WeightSource.open(tmp_path / "m").dense(Q)
