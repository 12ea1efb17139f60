"""Q1_0 and Q2_0: against a reading of bit after bit, and kept as codes from the file to the bundle."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from edgepress.compress.model.checkpoint.gguf_header import read_gguf_header
from edgepress.compress.model.checkpoint.gguf_source import materialise
from edgepress.compress.model.gguf.few_bits import EARLIER_Q2_0, KINDS, codes_of, floats_of
from edgepress.compress.model.models import resolve
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError
from edgepress.export.api import export_bundle
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.terminal.progress import Silent
from hypothesis import given
from hypothesis import strategies as st

from .test_read_mixtures import Stored, exported, rewritten

pytestmark = [
    pytest.mark.chain,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.usefixtures("tokenizers_made_here"),
]
LAYOUTS = [("Q1_0", 128, 18), ("Q2_0", 64, 18), ("Q2_0", *EARLIER_Q2_0)]


def bit_by_bit(row: bytes, kind: str, block: int, width: int) -> list[float]:
    """The numbers of one row."""
    found: list[float] = []
    for start in range(0, len(row), width):
        scale = float(np.frombuffer(row[start : start + 2], np.float16)[0])
        bits = int.from_bytes(row[start + 2 : start + width], "little")
        if kind == "Q1_0":
            found += [scale if bits >> index & 1 else -scale for index in range(block)]
        else:
            found += [((bits >> 2 * index & 3) - 1) * scale for index in range(block)]
    return found


@pytest.mark.parametrize(("kind", "block", "width"), LAYOUTS)
def test_numbers_are_those_of_the_bits(kind: str, block: int, width: int) -> None:
    stored = np.random.default_rng(3).integers(0, 256, (5, 3, width), dtype=np.uint8)
    stored[..., 1] &= 0x3F  # no NaN, no infinity
    stored = stored.reshape(5, -1)
    expected = [bit_by_bit(row.tobytes(), kind, block, width) for row in stored]
    np.testing.assert_array_equal(floats_of(stored, kind, block), np.array(expected, np.float32))


@given(st.integers(1, 4), st.integers(1, 3), st.sampled_from([64, 128]), st.integers(0, 1000))
def test_ternary_weights_are_codes_and_no_others(rows: int, groups: int, size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scale = random.uniform(1e-3, 1, (rows, groups, 1)).astype(np.float16).astype(np.float32)
    weight = torch.from_numpy((random.integers(-1, 2, (rows, groups, size)) * scale).reshape(rows, -1))
    found = codes_of(weight.float(), size)
    assert found is not None and set(found.codes.unique().tolist()) <= {-1, 0, 1}
    assert torch.equal(found.dequantize(), weight.float())
    weight[0, :2] = torch.tensor([2.0, -1.0]) * float(scale[0, 0, 0])  # the fourth code of Q2_0
    assert codes_of(weight.float(), size) is None


def packed(weight: np.ndarray, kind: str, block: int, largest: int) -> np.ndarray:
    """``weight [out, in]`` rounded to signs, or to codes from −1 to ``largest``."""
    groups = weight.astype(np.float32).reshape(len(weight), -1, block)
    scale = np.abs(groups).mean(-1, keepdims=True).astype(np.float16)
    if kind == "Q1_0":
        codes = np.packbits((groups >= 0).astype(np.uint8), axis=-1, bitorder="little")
    else:
        each = np.clip(np.round(groups / scale.astype(np.float32)), -1, largest).astype(np.uint8) + 1
        codes = (each.reshape(*groups.shape[:2], -1, 4) << np.array([0, 2, 4, 6], np.uint8)).sum(-1)
    return np.concatenate([scale.view(np.uint8), codes.astype(np.uint8)], -1).reshape(len(weight), -1)


def in_few_bits(tensor: Any, kind: str, block: int, largest: int = 1) -> Iterator[Stored]:
    """The linears of blocks, those that have whole blocks."""
    whole = len(tensor.shape) == 2 and tensor.shape[0] % block == 0
    if not tensor.name.startswith("blk.") or not whole:
        yield tensor.name, tensor.data, tensor.tensor_type
        return
    weight = gguf.dequantize(tensor.data, tensor.tensor_type)
    yield tensor.name, packed(weight, kind, block, largest), KINDS[kind][0]


@pytest.fixture
def file_in(
    make_decoder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """A Llama in a GGUF file of a kind."""

    def make(kind: str, block: int, width: int, largest: int = 1) -> Path:
        monkeypatch.setitem(gguf.constants.GGML_QUANT_SIZES, KINDS[kind][0], (block, width))  # type: ignore[call-overload]
        model = make_decoder(tmp_path / "m", "llama", hidden_size=128, head_dim=32, intermediate_size=256)
        stored = partial(in_few_bits, kind=kind, block=block, largest=largest)
        return rewritten(exported(model, tmp_path / "g"), tmp_path / "few.gguf", stored=stored)

    return make


@pytest.mark.parametrize(("kind", "block", "width"), LAYOUTS)
def test_linears_are_kept_as_codes(
    kind: str, block: int, width: int, file_in: Callable[..., Path], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    file = file_in(kind, block, width)
    assert {one.block for one in read_gguf_header(file).tensors.values() if one.kind == kind} == {block}
    original = WeightSource.open(tmp_path / "m")
    found = resolve(str(file), Silent())
    read = WeightSource.open(found.path)
    assert found.described == f"few, codes of {kind}"
    linears = list(read.anatomy.linears())
    assert {read.schemes[linear.name].name for linear in linears} == {f"W2A16-g{block}"}
    for linear in linears:
        rows = packed(original.dense(linear.name).numpy(), kind, block, 1)
        expected = [bit_by_bit(row.tobytes(), kind, block, width) for row in rows]
        np.testing.assert_array_equal(read.dense(linear.name).numpy(), np.array(expected, np.float32))
    bundle = Bundle.open(export_bundle(str(file), output=tmp_path / "b"))
    assert bundle.manifest["scheme"] == f"W2A16-g{block}"


def test_weights_of_four_codes_stay_floats(file_in: Callable[..., Path], tmp_path: Path) -> None:
    read = WeightSource.open(materialise(file_in("Q2_0", 64, 18, largest=2), tmp_path / "read"))
    linears = list(read.anatomy.linears())
    assert not read.schemes
    for linear in linears:
        groups = read.dense(linear.name).reshape(linear.out_features, -1, 64)
        assert {len(group.unique()) for group in groups.flatten(0, 1)} <= {2, 3, 4}


def test_what_fits_neither_size_of_blocks_is_refused(file_in: Callable[..., Path], tmp_path: Path) -> None:
    data = file_in("Q2_0", 64, 18).read_bytes()
    (tmp_path / "cut.gguf").write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(CheckpointError, match="bytes of data"):
        read_gguf_header(tmp_path / "cut.gguf")
