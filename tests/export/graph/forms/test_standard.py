"""The look-up of an embedding in operators of ONNX alone gives what the codes say."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from edgepress.export.graph.forms.standard import to_plain_rows
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

ROWS, BLOCKS, BLOCK = 11, 3, 16


def lookup(packed: np.ndarray, scales: np.ndarray, bits: int, *more: np.ndarray) -> onnx.ModelProto:
    given = {"codes": packed, "scales": scales, **{f"zeros{index}": one for index, one in enumerate(more)}}
    names = ["codes", "ids", "scales", *list(given)[2:]]
    node = helper.make_node(
        "GatherBlockQuantized",
        names,
        ["out"],
        name="rows",
        domain="com.microsoft",
        bits=bits,
        block_size=BLOCK,
        gather_axis=0,
        quantize_axis=2,
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [2, None])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [2, None, BLOCKS, BLOCK])],
        [numpy_helper.from_array(array, name) for name, array in given.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rows_of_every_width(bits: int) -> None:
    generator = np.random.default_rng(bits)
    codes = generator.integers(0, 1 << bits, (ROWS, BLOCKS, BLOCK), dtype=np.uint8)
    scales = generator.normal(size=(ROWS, BLOCKS, 1)).astype(np.float32)
    each = 8 // bits
    shifted = codes.reshape(ROWS, BLOCKS, -1, each) << (bits * np.arange(each, dtype=np.uint8))
    packed = np.bitwise_or.reduce(shifted, axis=-1).astype(np.uint8)
    model = ir.from_proto(lookup(packed, scales, bits))
    to_plain_rows(model)
    assert not [node for node in model.graph if node.domain]
    ids = generator.integers(0, ROWS, (2, 5))
    session = InferenceSession(ir.to_proto(model).SerializeToString())
    (found,) = session.run(None, {"ids": ids})
    expected = (codes.astype(np.float32) - (1 << (bits - 1))) * scales
    np.testing.assert_array_equal(found, expected[ids])


def test_a_table_with_zero_points_stays() -> None:
    packed, scales = np.zeros((ROWS, BLOCKS, BLOCK), np.uint8), np.ones((ROWS, BLOCKS, 1), np.float32)
    model = ir.from_proto(lookup(packed, scales, 8, np.zeros((ROWS, BLOCKS, 1), np.uint8)))
    to_plain_rows(model)
    assert [node.op_type for node in model.graph] == ["GatherBlockQuantized"]
