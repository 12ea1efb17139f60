"""AWQ's checkpoints: what a packer stored code by code is read to the bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError

from .rewriting import BLOCK, Packer, Part, changed, on_grid, rewritten, stream

Q = f"{BLOCK}self_attn.q_proj"
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # of channels in a word, the lowest first
SETTINGS: dict[str, Any] = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}


def packer(size: int, *, symmetric: bool = False) -> Packer:
    def words(values: Part) -> Part:
        """``[in, out / 8]`` of ``values [out, in]``."""
        eights = values.T.reshape(values.shape[1], -1, 8)[..., ORDER]
        return np.stack([[stream(list(eight), 4)[0] for eight in line] for line in eights])

    def pack(module: str, weight: Part) -> tuple[dict[str, Part], Part]:
        inputs = weight.shape[1]
        group_of = np.arange(inputs) // (inputs if size == -1 else size)
        codes, zeros, scales, value = on_grid(weight, 4, group_of, symmetric, len(module))
        return {"qweight": words(codes), "qzeros": words(zeros), "scales": scales.T}, value

    return pack


@pytest.mark.parametrize(
    ("size", "symmetric", "scheme"),
    [
        (32, False, "W4A16_ASYM-g32"),
        (16, True, "W4A16-g16"),
        (-1, False, "W4A16_ASYM-channel"),
        (8, False, None),
    ],
)
def test_every_weight_is_read_to_the_bit(
    pico_llama: Path, tmp_path: Path, size: int, symmetric: bool, scheme: str | None
) -> None:
    given = {**SETTINGS, "group_size": size}
    weights = rewritten(pico_llama, tmp_path / "m", packer(size, symmetric=symmetric), given)
    source = WeightSource.open(tmp_path / "m")
    groups = "one scale per channel" if size == -1 else f"groups of {size}"
    assert source.reader.coded.described == f"4 bits (AWQ, {groups})"
    for module, weight in weights.items():
        assert np.array_equal(source.dense(module).numpy(), weight)
        found = source.schemes.get(module)
        assert (None if found is None else found.name) == scheme


def test_settings_in_a_file_of_their_own(pico_llama: Path, tmp_path: Path) -> None:
    own = {"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}
    weights = rewritten(pico_llama, tmp_path / "m", packer(32), own, "quant_config.json")
    source = WeightSource.open(tmp_path / "m")
    assert source.reader.coded.described == "4 bits (AWQ, groups of 32)"
    assert np.array_equal(source.dense(Q).numpy(), weights[Q])


@pytest.mark.parametrize("more", [{"version": "gemv"}, {"bits": 8}, {"version": ["gemm"]}, {"bits": "4"}])
def test_other_variants_are_refused_by_name(pico_llama: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    rewritten(pico_llama, tmp_path / "m", packer(32), {**SETTINGS, **more})
    with pytest.raises(CheckpointError, match="gemm with 4 bits is read"):
        WeightSource.open(tmp_path / "m")


@pytest.mark.parametrize(
    ("part", "shape", "said"),
    [
        ("qweight", (60, 8), "expected"),
        ("qweight", (64, 4), "do not fit"),
        ("qzeros", (2, 4), "do not fit"),
        ("qzeros", (64,), "2 dimensions"),
        ("scales", (3, 64), "do not fit"),
        ("scales", (0, 64), "of shape"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    pico_llama: Path, tmp_path: Path, part: str, shape: tuple[int, ...], said: str
) -> None:
    rewritten(pico_llama, tmp_path / "m", packer(32), SETTINGS)

    def edit(tensors: dict[str, Part]) -> None:
        tensors[f"{Q}.{part}"] = np.zeros(shape, tensors[f"{Q}.{part}"].dtype)

    changed(tmp_path / "m", edit)
    with pytest.raises(CheckpointError, match=said):
        WeightSource.open(tmp_path / "m")


def test_scales_that_are_no_numbers_and_those_of_activations(pico_llama: Path, tmp_path: Path) -> None:
    rewritten(pico_llama, tmp_path / "m", packer(32), SETTINGS)

    def infinite(tensors: dict[str, Part]) -> None:
        tensors[f"{Q}.scales"][0, 0] = np.inf

    def scaled(tensors: dict[str, Part]) -> None:
        tensors[f"{BLOCK}mlp.act.scales"] = np.ones(128, np.float16)

    changed(tmp_path / "m", infinite)
    with pytest.raises(CheckpointError, match="not finite"):
        WeightSource.open(tmp_path / "m").dense(Q)
    changed(tmp_path / "m", scaled)
    with pytest.raises(CheckpointError, match="scales an activation"):
        WeightSource.open(tmp_path / "m")
