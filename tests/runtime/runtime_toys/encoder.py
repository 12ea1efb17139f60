"""The toy encoder: embedding, masked mean and L2 normalisation, as an ONNX graph and in numpy; and a toy
classifier, whose logits are the first numbers of that vector.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .decoder import Array, int64

WIDTH = 16
LABELS = ("bad", "fair", "good")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def _table(vocab: int) -> Array:
    return np.random.default_rng(1).standard_normal((vocab, WIDTH)).astype(np.float32)


def reference_embedding(ids: list[int], vocab: int) -> Array:
    """The vector of one text."""
    summed = _table(vocab)[ids].sum(0)
    vector: Array = summed / np.linalg.norm(summed)
    return vector


def model(vocab: int, *, pooled: bool = True, labelled: bool = False) -> onnx.ModelProto:
    """The graph with the exporter's names."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "seq"]) for name in INPUTS]
    hidden = ["batch", "seq", WIDTH]
    outputs = [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, hidden)]
    nodes = [
        helper.make_node("Add", ["input_ids", "token_type_ids"], ["ids"]),
        helper.make_node("Gather", ["embedding", "ids"], ["last_hidden_state"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
    ]
    if pooled:
        pooled_shape = ["batch", WIDTH]
        outputs.append(helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, pooled_shape))
        nodes += [
            helper.make_node("Unsqueeze", ["mask", "axis2"], ["weights"]),
            helper.make_node("Mul", ["last_hidden_state", "weights"], ["masked"]),
            helper.make_node("ReduceSum", ["masked", "axis1"], ["summed"], keepdims=0),
            helper.make_node("LpNormalization", ["summed"], ["sentence_embedding"], axis=-1, p=2),
        ]
    if labelled:
        shape = ["batch", len(LABELS)]
        outputs[-1] = helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)
        nodes.append(helper.make_node("Split", ["sentence_embedding", "parts"], ["logits", "rest"], axis=1))
    initializers = [numpy_helper.from_array(_table(vocab), "embedding"), int64("axis1", 1), int64("axis2", 2)]
    initializers.append(int64("parts", len(LABELS), WIDTH - len(LABELS)))
    graph = helper.make_graph(nodes, "toy", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def section(**changes: Any) -> dict[str, Any]:
    """The manifest's section."""
    return {
        "pooling": "mean",
        "normalize": True,
        "max_length": 24,
        "hidden_size": WIDTH,
        "inputs": list(INPUTS),
        **changes,
    }
