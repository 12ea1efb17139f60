"""Int8 weights that a device makes of blocks of 2, 4 or 8 bits, against a loop over single weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from edgepress.errors import BundleError
from edgepress.runtime.bundle.manifest import PrepackedLinear
from edgepress.runtime.prepack.int8_weights import make_int8_weights, unpacked
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper


def save(path: Path, arrays: dict[str, np.ndarray], bits: int, block: int, shape: tuple[int, int]) -> Path:
    """A graph of one product ``p`` over the packed ``arrays``."""
    size = {"N": shape[0], "K": shape[1], "bits": bits, "block_size": block}
    node = helper.make_node("MatMulNBits", ["x", *arrays], ["y"], name="p", domain="com.microsoft", **size)
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    onnx.save(helper.make_model(helper.make_graph([node], "g", values[:1], values[1:], weights)), path)
    return path


def packed_arrays(
    seed: int, bits: int, block: int, shape: tuple[int, int], zeros: bool
) -> dict[str, np.ndarray]:
    generator, blocks = np.random.default_rng(seed), -(-shape[1] // block)
    arrays = {
        "codes": generator.integers(0, 256, (shape[0], blocks, block * bits // 8), dtype=np.uint8),
        "scales": generator.random((shape[0], blocks), dtype=np.float32) + np.float32(0.1),
    }
    if zeros:
        arrays["zeros"] = generator.integers(0, 256, (shape[0], -(-blocks * bits // 8)), dtype=np.uint8)
    return arrays


def weight(arrays: dict[str, np.ndarray], bits: int, block: int, row: int, column: int) -> float:
    """One weight, bit by bit."""

    def code(values: Any, index: int) -> int:
        return int(values[index * bits // 8]) >> (index * bits % 8) & ((1 << bits) - 1)

    number = column // block
    zero = code(arrays["zeros"][row], number) if "zeros" in arrays else 1 << (bits - 1)
    return float(arrays["scales"][row, number]) * (code(arrays["codes"][row, number], column % block) - zero)


@pytest.mark.chain
@given(
    seed=st.integers(0, 99),
    bits=st.sampled_from([2, 4, 8]),
    block=st.sampled_from([16, 32]),
    rows=st.integers(1, 5),
    columns=st.integers(1, 70),
    zeros=st.booleans(),
)
def test_each_weight_is_within_half_a_step(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    bits: int,
    block: int,
    rows: int,
    columns: int,
    zeros: bool,
) -> None:
    arrays = packed_arrays(seed, bits, block, (rows, columns), zeros)
    path = save(tmp_path_factory.mktemp("remade") / "m.onnx", arrays, bits, block, (rows, columns))
    first = seed % rows
    made = make_int8_weights(path, path, [PrepackedLinear("q", "p", first, rows - first, columns)])
    codes, scales = made["q.int8"], made["q.int8_scales"]
    assert codes.shape == (columns, rows - first) and codes.dtype == np.int8 and scales.dtype == np.float32
    for row in range(first, rows):
        want = [weight(arrays, bits, block, row, column) for column in range(columns)]
        found = codes[:, row - first].astype(np.float64) * scales[row - first]
        assert np.abs(found - want).max() <= 0.501 * scales[row - first]
        assert np.abs(codes[:, row - first]).max() == (127 if np.any(want) else 0)


def test_columns_of_a_smoothed_norm(tmp_path: Path) -> None:
    arrays = packed_arrays(5, 4, 32, (6, 64), False)
    path = save(tmp_path / "m.onnx", arrays, 4, 32, (6, 64))
    norm, factors = np.linspace(0, 2, 64, dtype=np.float32), np.linspace(0.5, 3, 64, dtype=np.float32)
    model, filler = onnx.load(path), onnx.ModelProto()
    model.graph.initializer.append(numpy_helper.from_array(norm, "n.weight"))
    filler.graph.initializer.append(numpy_helper.from_array(norm / factors, "n.weight.smoothed"))
    onnx.save(model, path)
    onnx.save(filler, tmp_path / "f.onnx")
    plain = make_int8_weights(tmp_path / "f.onnx", path, [PrepackedLinear("q", "p", 0, 6, 64)])
    made = make_int8_weights(tmp_path / "f.onnx", path, [PrepackedLinear("q", "p", 0, 6, 64, "n")])
    weight = plain["q.int8"] * plain["q.int8_scales"]
    want = weight * np.where(norm > 0, factors, 1)[:, None]
    found = made["q.int8"] * made["q.int8_scales"]
    assert np.abs(found - want).max() <= 0.51 * (made["q.int8_scales"] + 3 * plain["q.int8_scales"]).max()
    with pytest.raises(BundleError, match="'other'"):
        make_int8_weights(tmp_path / "f.onnx", path, [PrepackedLinear("q", "p", 0, 6, 64, "other")])


def test_rows_beyond_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = packed_arrays(1, 4, 32, (11, 64), False)
    path = save(tmp_path / "m.onnx", arrays, 4, 32, (11, 64))
    whole = make_int8_weights(path, path, [PrepackedLinear("q", "p", 0, 11, 64)])
    monkeypatch.setattr("edgepress.runtime.prepack.int8_weights._ROWS", 4)
    pieces = make_int8_weights(
        path, path, [PrepackedLinear("q", "p", 0, 3, 64), PrepackedLinear("r", "p", 3, 8, 64)]
    )
    np.testing.assert_array_equal(np.concatenate([pieces["q.int8"], pieces["r.int8"]], 1), whole["q.int8"])


def test_weights_in_a_file_beside_the_graph(tmp_path: Path) -> None:
    arrays = packed_arrays(2, 4, 32, (64, 128), True)
    path = save(tmp_path / "m.onnx", arrays, 4, 32, (64, 128))
    inside = make_int8_weights(path, path, [PrepackedLinear("q", "p", 0, 64, 128)])
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=64)
    outside = make_int8_weights(path, path, [PrepackedLinear("q", "p", 0, 64, 128)])
    np.testing.assert_array_equal(inside["q.int8"], outside["q.int8"])
    data = path.with_name("m.data")
    data.write_bytes(data.read_bytes()[:-100])
    with pytest.raises(BundleError, match="does not hold"):
        make_int8_weights(path, path, [PrepackedLinear("q", "p", 0, 64, 128)])


@pytest.mark.parametrize(
    "wrong",
    [
        PrepackedLinear("q", "other", 0, 4, 64),
        PrepackedLinear("q", "p", 1, 4, 64),
        PrepackedLinear("q", "p", 0, 4, 65),
    ],
)
def test_what_the_graph_does_not_have(tmp_path: Path, wrong: PrepackedLinear) -> None:
    path = save(tmp_path / "m.onnx", packed_arrays(3, 4, 32, (4, 64), False), 4, 32, (4, 64))
    with pytest.raises(BundleError):
        make_int8_weights(path, path, [wrong])


def test_codes_share_bytes_lowest_first() -> None:
    assert unpacked(np.array([0b11_10_01_00], np.uint8), 2).tolist() == [0, 1, 2, 3]
    assert unpacked(np.array([0xF0], np.uint8), 4).tolist() == [0, 15]
