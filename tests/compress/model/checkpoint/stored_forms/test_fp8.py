"""FP8 checkpoints of other tools: scales of blocks, of rows and of whole matrices."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError

from .rewriting import BLOCK, Packer, Part, changed, rewritten

Q = f"{BLOCK}self_attn.q_proj"


def packer(block: tuple[int, int] | None, part: str, kind: torch.dtype, shape: tuple[int, ...]) -> Packer:
    """``shape`` of the scales where they are not of blocks."""

    def pack(module: str, weight: Part) -> tuple[dict[str, Part], Part]:
        generator = torch.Generator().manual_seed(len(module))
        codes = (torch.from_numpy(weight) * 300).to(torch.float8_e4m3fn)
        rows, columns = weight.shape
        size = block or ((1, columns) if shape else (rows, columns))
        count = (-(-rows // size[0]), -(-columns // size[1]))
        scale = (2.0 ** torch.randint(-9, -3, count, generator=generator)).to(kind)
        if kind != torch.float8_e8m0fnu:
            scale = (scale.float() * 1.1).to(kind)
        value, plain, found = np.empty(weight.shape, np.float32), codes.float().numpy(), scale.float().numpy()
        for row, column in np.ndindex(value.shape):
            value[row, column] = plain[row, column] * found[row // size[0], column // size[1]]
        stored = scale if block else scale.reshape([rows if one == -1 else one for one in shape])
        return {"weight": codes, part: stored}, value

    return pack


@pytest.mark.parametrize(
    ("method", "block", "part", "kind", "shape"),
    [
        ("fp8", (16, 32), "weight_scale_inv", torch.float32, ()),
        ("fp8", (24, 48), "weight_scale_inv", torch.bfloat16, ()),
        ("fp8", (32, 32), "weight_scale_inv", torch.float8_e8m0fnu, ()),
        ("fp8", None, "weight_scale_inv", torch.float32, ()),
        ("fp8", None, "weight_scale", torch.float32, (-1, 1)),
        ("fp8", None, "weight_scale", torch.float16, (-1,)),
        ("fbgemm_fp8", None, "weight_scale", torch.float32, (-1, 1)),
    ],
)
def test_every_weight_is_read_to_the_bit(
    pico_llama: Path,
    tmp_path: Path,
    method: str,
    block: tuple[int, int] | None,
    part: str,
    kind: torch.dtype,
    shape: tuple[int, ...],
) -> None:
    settings: dict[str, Any] = {"quant_method": method, "weight_block_size": block and list(block)}
    weights = rewritten(pico_llama, tmp_path / "m", packer(block, part, kind, shape), settings)
    source = WeightSource.open(tmp_path / "m")
    said = "FP8" if block is None else f"FP8, blocks of {block[0]} × {block[1]}"
    assert source.reader.coded.described == f"8 bits ({said})" and not source.schemes
    assert len(weights) == 7
    for module, weight in weights.items():
        assert np.array_equal(source.dense(module).numpy(), weight)


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("weight", torch.zeros(64, 64, dtype=torch.int8), "not F8_E4M3"),
        ("weight", torch.full((64, 64), 0x7F, dtype=torch.uint8).view(torch.float8_e4m3fn), "not finite"),
        ("weight_scale_inv", torch.ones(2, 3), "do not fit"),
        ("weight_scale_inv", torch.ones(64, 1), "do not fit"),
        ("weight_scale_inv", torch.ones(0, 2), "of shape"),
        ("weight_scale_inv", torch.full((4, 2), torch.nan), "not finite"),
        ("weight_scale_inv", torch.full((4, 2), 3e38), "of magnitude 3e.38"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    pico_llama: Path, tmp_path: Path, part: str, value: torch.Tensor, said: str
) -> None:
    settings = {"quant_method": "fp8", "weight_block_size": [16, 32]}
    rewritten(pico_llama, tmp_path / "m", packer((16, 32), "weight_scale_inv", torch.float32, ()), settings)

    def edit(tensors: dict[str, Part]) -> None:
        tensors[f"{Q}.{part}"] = value

    changed(tmp_path / "m", edit)
    with pytest.raises(CheckpointError, match=said):
        WeightSource.open(tmp_path / "m").dense(Q)


@pytest.mark.parametrize("block", [[0, 16], [16], [16, 32, 1], "16", [16.0, 32], [-1, 32]])
def test_blocks_that_are_none_are_refused(pico_llama: Path, tmp_path: Path, block: Any) -> None:
    settings = {"quant_method": "fp8", "weight_block_size": block}
    rewritten(pico_llama, tmp_path / "m", packer((16, 32), "weight_scale_inv", torch.float32, ()), settings)
    with pytest.raises(CheckpointError, match="which is no block"):
        WeightSource.open(tmp_path / "m")
