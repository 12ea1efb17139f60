"""optimum-quanto's checkpoints of 8 bits, as version 0.2.7 wrote them: its ``dequantize`` gave the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError

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


def test_fewer_bits_are_refused_with_a_way_out(pico_llama: Path, tmp_path: Path) -> None:
    rewritten(pico_llama, tmp_path / "m", packer(torch.int8), settings("qint4"), FILE)

    def edit(tensors: dict[str, Part]) -> None:
        del tensors[f"{Q}.weight._data"]
        tensors[f"{Q}.weight._data._data"] = np.zeros((16, 128), np.uint8)

    changed(tmp_path / "m", edit)
    with pytest.raises(CheckpointError, match="how many rows a matrix has") as refused:
        WeightSource.open(tmp_path / "m")
    assert "dequantize()" in refused.value.fix


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
