"""torchao's checkpoints: what a packer stored code by code is read to the bit. torchao 0.18 with transformers
5.24 wrote the same parts and notes, and its ``dequantize`` gave the same weights.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError, RefusedByPolicy
from edgepress.files.storage import read_json, write_json

from .rewriting import BLOCK, Packer, Part, changed, metadata_of, noted, rewritten

Q = f"{BLOCK}self_attn.q_proj"
NAME = "IntxWeightOnlyConfig"
SETTINGS: dict[str, Any] = {"quant_method": "torchao", "quant_type": {"default": {"_type": NAME}}}
Notes = Callable[[tuple[int, int]], dict[str, Any]]


def integers(bits: int, rows: int, size: int, zero: str | None) -> tuple[Packer, Notes]:
    """``zero``: the type of zero points, or None where there are none; a ``size`` of 0 is all of a row."""

    def pack(module: str, weight: Part) -> tuple[dict[str, Part], Part]:
        generator = np.random.default_rng(len(module))
        half, columns = 1 << (bits - 1), size or weight.shape[1]
        codes = generator.integers(-half, half, weight.shape).astype(np.int8)
        shape = (weight.shape[0] // rows, weight.shape[1] // columns)
        scale = generator.uniform(0.01, 0.1, shape).astype(np.float16)
        points = generator.integers(-half, half, shape).astype(zero or np.int8)
        if zero is None:
            points[:] = 0
        value = np.empty(weight.shape, np.float32)
        for row, column in np.ndindex(value.shape):
            group = row // rows, column // columns
            value[row, column] = (np.float32(codes[row, column]) - np.float32(points[group])) * np.float32(
                scale[group]
            )
        parts = {"_weight_qdata": codes, "_weight_scale": scale}
        return parts | ({} if zero is None else {"_weight_zero_point": points}), value

    def notes(shape: tuple[int, int]) -> dict[str, Any]:
        block = {
            "block_size": [rows, size or shape[1]],
            "dtype": {"_type": "torch.dtype", "_data": "float32"},
        }
        if bits == 8:
            return {"_type": "Int8Tensor", "_data": {**block, "act_quant_kwargs": None}}
        kind = {"_type": "torch.dtype", "_data": f"int{bits}"}
        return {"_type": "IntxUnpackedToInt8Tensor", "_data": {**block, "target_dtype": kind}}

    return pack, notes


def int4(size: int) -> tuple[Packer, Notes]:
    def pack(module: str, weight: Part) -> tuple[dict[str, Part], Part]:
        generator = np.random.default_rng(len(module))
        codes = generator.integers(-8, 8, weight.shape)
        shape = (weight.shape[1] // size, weight.shape[0])
        scale = generator.uniform(0.01, 0.1, shape).astype(np.float16)
        zero = generator.uniform(-0.3, 0.3, shape).astype(np.float16)
        value = np.empty(weight.shape, np.float32)
        for row, column in np.ndindex(value.shape):
            group = column // size, row
            product = np.float32(codes[row, column]) * np.float32(scale[group])
            value[row, column] = product + np.float32(zero[group])
        packed = (codes[:, ::2] & 15 | (codes[:, 1::2] & 15) << 4).astype(np.uint8).view(np.int8)
        return {"_weight_qdata": packed, "_weight_scale": scale, "_weight_zero_point": zero}, value

    def notes(shape: tuple[int, int]) -> dict[str, Any]:
        return {"_type": "Int4Tensor", "_data": {"block_size": [1, size], "shape": list(shape)}}

    return pack, notes


def float8(size: int | None) -> tuple[Packer, Notes]:
    """A scale a row, or with no ``size`` one for all."""

    def pack(module: str, weight: Part) -> tuple[dict[str, Part], Part]:
        codes = (torch.from_numpy(weight) * 300).to(torch.float8_e4m3fn)
        scale = torch.rand(weight.shape[0] if size else 1, 1, generator=torch.Generator().manual_seed(1))
        return {"_weight_qdata": codes, "_weight_scale": scale}, (codes.float() * scale).numpy()

    def notes(shape: tuple[int, int]) -> dict[str, Any]:
        return {"_type": "Float8Tensor", "_data": {"block_size": [1, shape[1]] if size else list(shape)}}

    return pack, notes


def made(base: Path, folder: Path, form: tuple[Packer, Notes]) -> dict[str, Part]:
    packer, notes = form
    weights = rewritten(base, folder, packer, SETTINGS)
    texts = {f"{module}.weight": json.dumps(notes(value.shape)) for module, value in weights.items()}
    noted(folder, {**texts, "tensor_names": json.dumps(list(texts))})
    return weights


@pytest.mark.parametrize(
    ("form", "bits", "scheme"),
    [
        (integers(8, 1, 0, None), 8, "W8A16-channel"),
        (integers(8, 1, 32, "int8"), 8, "W8A16_ASYM-g32"),
        (integers(8, 16, 0, "int8"), 8, None),
        (integers(4, 1, 32, None), 4, "W4A16-g32"),
        (integers(4, 1, 16, "int8"), 4, "W4A16_ASYM-g16"),
        (integers(4, 1, 32, "float16"), 4, None),
        (integers(3, 1, 64, None), 3, "W3A16-channel"),
        (integers(2, 1, 0, None), 2, "W2A16-channel"),
        (integers(1, 1, 32, None), 1, None),
        (int4(32), 4, None),
        (float8(1), 8, None),
        (float8(None), 8, None),
    ],
)
def test_every_weight_is_read_to_the_bit(
    pico_llama: Path, tmp_path: Path, form: tuple[Packer, Notes], bits: int, scheme: str | None
) -> None:
    weights = made(pico_llama, tmp_path / "m", form)
    source = WeightSource.open(tmp_path / "m")
    assert source.reader.coded.described == f"{bits} bits (torchao, {NAME})" and len(weights) == 7
    for module, weight in weights.items():
        assert np.array_equal(source.dense(module).numpy(), weight)
        assert source.names(f"{module}.") == [f"{module}.weight"]
        if "down" not in module:  # it has more groups than the others
            found = source.schemes.get(module)
            assert (None if found is None else found.name) == scheme


def test_what_is_said_of_activations_is_left_out(pico_llama: Path, tmp_path: Path) -> None:
    weights = made(pico_llama, tmp_path / "m", integers(8, 1, 0, None))

    def edit(tensors: dict[str, Part]) -> None:
        tensors[f"{Q}._weight_act_quant_scale"] = np.ones((1, 1), np.float32)

    changed(tmp_path / "m", edit)
    source = WeightSource.open(tmp_path / "m")
    assert source.names(f"{Q}.") == [f"{Q}.weight"]
    assert np.array_equal(source.dense(Q).numpy(), weights[Q])


def test_pickled_ones_are_refused(pico_llama: Path, tmp_path: Path) -> None:
    made(pico_llama, tmp_path / "m", int4(32))
    (tmp_path / "m" / "model.safetensors").rename(tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(RefusedByPolicy, match="is a pickle file"):
        WeightSource.open(tmp_path / "m")


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("_weight_qdata", np.zeros((64, 33), np.int8), "does not divide"),
        ("_weight_qdata", np.zeros((64, 64), np.float16), "not I8"),
        ("_weight_qdata", np.full((64, 64), 8, np.int8), "none of 4 bits"),
        ("_weight_scale", np.zeros((64, 3), np.float16), "were expected"),
        ("_weight_scale", np.full((64, 2), np.nan, np.float16), "not finite"),
        ("_weight_scale", np.full((64, 2), 3, np.int32), "not F16"),
        ("_weight_scale", None, "has no _weight_scale"),
        ("_weight_zero_point", np.zeros((2, 64), np.int8), "were expected"),
        ("_weight_zero_point", np.full((64, 2), 9, np.int8), "none of 4 bits"),
        ("_weight_act_pre_scale", np.ones((1, 64), np.float16), "scales an activation"),
        ("_bias_qdata", np.ones((1, 64), np.int8), "of no matrix X.weight"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    pico_llama: Path, tmp_path: Path, part: str, value: Part | None, said: str
) -> None:
    made(pico_llama, tmp_path / "m", integers(4, 1, 32, "int8"))

    def edit(tensors: dict[str, Part]) -> None:
        tensors.pop(f"{Q}.{part}", None)
        if value is not None:
            tensors[f"{Q}.{part}"] = value

    changed(tmp_path / "m", edit)
    with pytest.raises(CheckpointError, match=said):
        WeightSource.open(tmp_path / "m").dense(Q)


@pytest.mark.parametrize("part", ["_weight_scale", "_weight_zero_point"])
def test_parts_of_int4_that_do_not_fit_are_refused(pico_llama: Path, tmp_path: Path, part: str) -> None:
    made(pico_llama, tmp_path / "m", int4(32))

    def edit(tensors: dict[str, Part]) -> None:
        tensors[f"{Q}.{part}"] = np.ones((64, 2), np.float16)

    changed(tmp_path / "m", edit)
    with pytest.raises(CheckpointError, match="groups of 32 were expected"):
        WeightSource.open(tmp_path / "m")


BLOCKS = {"block_size": [1, 32]}


@pytest.mark.parametrize(
    ("note", "said"),
    [
        ("", "does not say of which kind"),
        ("[" * 100_000, "does not say of which kind"),
        ("[]", "does not say of which kind"),
        ('{"_type": "Int8Tensor", "_data": 3}', "does not say of which kind"),
        ({"_type": "Int4TilePackedTo4dTensor", "_data": {}}, "Int4TilePackedTo4dTensor.*are read"),
        ({"_type": ["Int8Tensor"], "_data": BLOCKS}, "are read"),
        ({"_type": "Int8Tensor", "_data": {"block_size": [1, 0]}}, "which is no block"),
        ({"_type": "Int8Tensor", "_data": {"block_size": [1, 48]}}, "does not divide"),
        ({"_type": "Int8Tensor", "_data": {}}, "does not divide"),
        ({"_type": "Int8Tensor", "_data": {**BLOCKS, "target_dtype": {"_data": "int9"}}}, "of the type"),
        ({"_type": "Int8Tensor", "_data": {**BLOCKS, "target_dtype": "int4"}}, "of the type"),
        ({"_type": "Int4Tensor", "_data": {**BLOCKS, "shape": [64, 64]}}, "were expected"),
        ({"_type": "Float8Tensor", "_data": BLOCKS}, "not F8_E4M3"),
    ],
)
def test_notes_that_do_not_fit_are_refused(
    pico_llama: Path, tmp_path: Path, note: str | dict[str, Any], said: str
) -> None:
    made(pico_llama, tmp_path / "m", integers(4, 1, 32, "int8"))
    noted(tmp_path / "m", {f"{Q}.weight": note if isinstance(note, str) else json.dumps(note)})
    assert f"{Q}.weight" in metadata_of(tmp_path / "m")
    with pytest.raises(CheckpointError, match=said):
        WeightSource.open(tmp_path / "m").dense(Q)


@pytest.mark.parametrize("types", [None, 3, {"default": []}, {"default": {"_type": "x" * 999}}])
def test_settings_of_any_kind_have_a_name(pico_llama: Path, tmp_path: Path, types: Any) -> None:
    made(pico_llama, tmp_path / "m", int4(32))
    config = read_json(tmp_path / "m" / "config.json")
    config["quantization_config"]["quant_type"] = types
    write_json(tmp_path / "m" / "config.json", config)
    said = WeightSource.open(tmp_path / "m").reader.coded.described
    assert said.startswith("4 bits (torchao") and len(said) < 100
