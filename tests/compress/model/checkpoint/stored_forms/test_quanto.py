"""optimum-quanto's checkpoints, as version 0.2.7 wrote them: its ``dequantize`` gave the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError
from edgepress.files.storage import read_json, write_json

from .rewriting import BLOCK, Packer, Part, changed, rewritten

Q = f"{BLOCK}self_attn.q_proj"
FILE = "quanto_qmap.json"


def settings(name: str) -> dict[str, Any]:
    return {Q: {"weights": name, "activations": "none"}}


def packer(kind: torch.dtype, *, by_row: bool = True) -> Packer:
    def pack(module: str, weight: Part) -> tuple[dict[str, Part], Part]:
        generator = torch.Generator().manual_seed(len(module))
        codes = torch.randint(-127, 128, weight.shape, generator=generator).to(kind)
        scale = torch.rand((weight.shape[0], 1) if by_row else (), generator=generator)
        value, rows = np.empty(weight.shape, np.float32), scale.expand(weight.shape[0], 1).numpy()
        for row, column in np.ndindex(value.shape):
            value[row, column] = np.float32(codes[row, column].item()) * rows[row, 0]
        parts: dict[str, Part] = {"weight._data": codes, "weight._scale": scale}
        return parts | {"input_scale": np.float32(1), "output_scale": np.float32(1)}, value

    return pack


@pytest.mark.parametrize(
    ("name", "form", "scheme"),
    [
        ("qint8", packer(torch.int8), "W8A16-channel"),
        ("qint8", packer(torch.int8, by_row=False), None),
        ("qfloat8_e4m3fn", packer(torch.float8_e4m3fn), None),
    ],
)
def test_every_weight_is_read_to_the_bit(
    pico_llama: Path, tmp_path: Path, name: str, form: Packer, scheme: str | None
) -> None:
    weights = rewritten(pico_llama, tmp_path / "m", form, settings(name), FILE)
    source = WeightSource.open(tmp_path / "m")
    assert source.reader.coded.described == f"8 bits (optimum-quanto, {name})" and len(weights) == 7
    for module, weight in weights.items():
        assert np.array_equal(source.dense(module).numpy(), weight)
        assert source.names(f"{module}.") == [f"{module}.weight"]
        found = source.schemes.get(module)
        assert (None if found is None else found.name) == scheme


def few_bits(bits: int, size: int | None, *, whole: bool = False) -> Packer:
    """Groups of ``size`` inputs, or rows, one below the other, whose numbers share bytes."""

    def pack(module: str, weight: Part) -> tuple[dict[str, Part], Part]:
        generator = np.random.default_rng(len(module))
        columns = size or weight.shape[1]
        groups = weight.size // columns
        codes = generator.integers(0, 1 << bits, (groups, columns))
        scale = generator.random((groups, 1)).astype(np.float32)
        shift = generator.integers(0, 1 << bits, (groups, 1)).astype(np.int8)
        if not whole:
            shift = generator.random((groups, 1)).astype(np.float32)
        rows = -(-groups * bits // 8)
        packed, value = np.zeros((rows, columns), np.uint8), np.empty((groups, columns), np.float32)
        for row, column in np.ndindex(value.shape):
            code = int(codes[row, column])
            packed[row % rows, column] |= code << bits * (row // rows)
            if whole:
                value[row, column] = np.float32(code - int(shift[row, 0])) * scale[row, 0]
            else:
                value[row, column] = np.float32(code) * scale[row, 0] - shift[row, 0]
        parts = {"weight._data._data": packed, "weight._scale": scale, "weight._shift": shift}
        return parts, value.reshape(weight.shape)

    return pack


def of_all(base: Path, name: str) -> dict[str, Any]:
    """``name`` of every linear of the first block, as the file beside config.json says it."""
    names = WeightSource.open(base).names(BLOCK)
    modules = [one.removesuffix(".weight") for one in names if one.endswith("_proj.weight")]
    return {module: {"weights": name, "activations": "none"} for module in modules}


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("qint4", few_bits(4, 32)),
        ("qint4", few_bits(4, None)),
        ("qint4", few_bits(4, 32, whole=True)),
        ("qint2", few_bits(2, 32)),
    ],
)
def test_rows_of_fewer_bits_are_those_of_the_model(
    pico_llama: Path, tmp_path: Path, name: str, form: Packer
) -> None:
    weights = rewritten(pico_llama, tmp_path / "m", form, of_all(pico_llama, name), FILE)
    source = WeightSource.open(tmp_path / "m")
    assert source.reader.coded.described == f"{name[-1]} bits (optimum-quanto, {name})" and len(weights) == 7
    for module, weight in weights.items():
        assert np.array_equal(source.dense(module).numpy(), weight)
        assert source.schemes.get(module) is None


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"architectures": ["os"]}, "does not have"),
        ({"architectures": None}, "does not have"),
        ({"num_hidden_layers": 10**9}, "10+, and there are"),
        ({"hidden_size": 128, "head_dim": 32}, "were expected"),
    ],
)
def test_a_config_that_says_no_shapes_is_refused(
    pico_llama: Path, tmp_path: Path, edit: dict[str, Any], said: str
) -> None:
    folder = tmp_path / "m"
    rewritten(pico_llama, folder, few_bits(4, 32), of_all(pico_llama, "qint4"), FILE)
    write_json(folder / "config.json", {**read_json(folder / "config.json"), **edit})
    with pytest.raises(CheckpointError, match=said):
        WeightSource.open(folder)


def test_linears_that_the_model_does_not_have_are_refused(pico_llama: Path, tmp_path: Path) -> None:
    folder, settings = tmp_path / "m", of_all(pico_llama, "qint4")
    rewritten(pico_llama, folder, few_bits(4, 32), {**settings, Q: {"weights": "qint9"}}, FILE)
    with pytest.raises(CheckpointError, match="no such linear"):
        WeightSource.open(folder)


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("weight._data", np.zeros((64, 64), np.float16), "not I8"),
        ("weight._data", np.zeros(64, np.int8), "not I8"),
        ("weight._scale", np.ones((1, 64), np.float32), "was expected"),
        ("weight._scale", np.full((64, 1), np.inf, np.float32), "not finite"),
        ("weight._scale", np.ones((64, 1), np.int64), "not F16"),
        ("weight._scale", None, "has no weight._scale"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    pico_llama: Path, tmp_path: Path, part: str, value: Part | None, said: str
) -> None:
    rewritten(pico_llama, tmp_path / "m", packer(torch.int8), settings("qint8"), FILE)

    def edit(tensors: dict[str, Part]) -> None:
        del tensors[f"{Q}.{part}"]
        if value is not None:
            tensors[f"{Q}.{part}"] = value

    changed(tmp_path / "m", edit)
    with pytest.raises(CheckpointError, match=said):
        WeightSource.open(tmp_path / "m").dense(Q)
