"""The toy decoder: two layers with different numbers of heads, as an ONNX graph and in numpy.

Attention goes through the real ``GroupQueryAttention`` over a shared buffer; a ``Tanh`` stands for the MLP.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]

HIDDEN = 32
CONTEXT = 600
LAYERS = ((4, 2, 16), (4, 1, 32))  # heads, kv_heads, head_dim


@dataclass(frozen=True)
class ToyWeights:
    """``embedding [vocab, hidden]`` (the head is its transpose, scaled) and three matrices a layer."""

    embedding: Array
    layers: tuple[dict[str, Array], ...]

    @property
    def head(self) -> Array:
        """``[hidden, vocab]``."""
        return np.ascontiguousarray(self.embedding.T) * np.float32(HIDDEN**-0.5)


def random_weights(vocab: int, seed: int = 0) -> ToyWeights:
    """Weights scaled so that logits differ clearly between tokens."""
    generator = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> Array:
        return (generator.standard_normal((rows, columns)) * rows**-0.5).astype(np.float32)

    layers = tuple(
        {
            "qkv": matrix(HIDDEN, (heads + 2 * kv_heads) * dim) * 2,
            "o": matrix(heads * dim, HIDDEN),
            "mlp": matrix(HIDDEN, HIDDEN),
        }
        for heads, kv_heads, dim in LAYERS
    )
    return ToyWeights(generator.standard_normal((vocab, HIDDEN)).astype(np.float32), layers)


def _rope_tables(dim: int) -> tuple[Array, Array]:
    angles = np.outer(np.arange(CONTEXT), 10000.0 ** (-np.arange(0, dim, 2) / dim))
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _rotated(x: Array) -> Array:
    """Rotary embedding of ``x [seq, heads, dim]`` at positions 0…, halves paired."""
    cos, sin = (table[: x.shape[0], None] for table in _rope_tables(x.shape[-1]))
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def reference_logits(weights: ToyWeights, ids: list[int]) -> Array:
    """Logits ``[seq, vocab]`` of one sequence, without a cache."""
    hidden = weights.embedding[ids]
    size = len(ids)
    causal = np.where(np.tril(np.ones((size, size), bool)), 0, -np.inf)
    for (heads, kv_heads, dim), layer in zip(LAYERS, weights.layers, strict=True):
        qkv = (hidden @ layer["qkv"]).reshape(size, heads + 2 * kv_heads, dim)
        query, key, value = np.split(qkv, [heads, heads + kv_heads], axis=1)
        query, key = _rotated(query), np.repeat(_rotated(key), heads // kv_heads, axis=1)
        value = np.repeat(value, heads // kv_heads, axis=1)
        scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(dim) + causal
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        attended = np.einsum("hqk,khd->qhd", shares, value).reshape(size, heads * dim)
        hidden = hidden + attended @ layer["o"]
        hidden = hidden + np.tanh(hidden @ layer["mlp"])
    logits: Array = hidden @ weights.head
    return logits


def _layer(index: int, layer: dict[str, Array]) -> tuple[list[Any], list[Any]]:
    """Nodes and initializers of one layer."""
    heads, kv_heads, dim = LAYERS[index]
    at = f"layer{index}"
    past = [f"past_key_values.{index}.{part}" for part in ("key", "value")]
    present = [f"present.{index}.{part}" for part in ("key", "value")]
    cos, sin = _rope_tables(dim)
    tensors = {f"{at}.{name}": value for name, value in layer.items()} | {f"{at}.cos": cos, f"{at}.sin": sin}
    attention = helper.make_node(
        "GroupQueryAttention",
        [f"{at}.packed", "", "", *past, "seqlens_k", "total_length", f"{at}.cos", f"{at}.sin"],
        [f"{at}.attended", *present],
        domain="com.microsoft",
        num_heads=heads,
        kv_num_heads=kv_heads,
        do_rotary=1,
    )
    nodes = [
        helper.make_node("MatMul", [f"hidden{index}", f"{at}.qkv"], [f"{at}.packed"]),
        attention,
        helper.make_node("MatMul", [f"{at}.attended", f"{at}.o"], [f"{at}.projected"]),
        helper.make_node("Add", [f"hidden{index}", f"{at}.projected"], [f"{at}.residual"]),
        helper.make_node("MatMul", [f"{at}.residual", f"{at}.mlp"], [f"{at}.up"]),
        helper.make_node("Tanh", [f"{at}.up"], [f"{at}.active"]),
        helper.make_node("Add", [f"{at}.residual", f"{at}.active"], [f"hidden{index + 1}"]),
    ]
    return nodes, [numpy_helper.from_array(value, name) for name, value in tensors.items()]


def _length_nodes() -> list[Any]:
    """``seqlens_k [batch]`` and ``total_length`` from the attention mask."""
    return [
        helper.make_node("ReduceSum", ["attention_mask", "axis1"], ["tokens"], keepdims=0),
        helper.make_node("Sub", ["tokens", "one"], ["last"]),
        helper.make_node("Cast", ["last"], ["seqlens_k"], to=TensorProto.INT32),
        helper.make_node("Shape", ["attention_mask"], ["total_shape"], start=1, end=2),
        helper.make_node("Squeeze", ["total_shape"], ["total_scalar"]),
        helper.make_node("Cast", ["total_scalar"], ["total_length"], to=TensorProto.INT32),
    ]


def _head_nodes(last_hidden: str) -> list[Any]:
    # Slice from -n: for n = 0 that is from 0, so all positions.
    return [
        helper.make_node("Neg", ["logits_to_keep"], ["first_kept"]),
        helper.make_node("Slice", [last_hidden, "first_kept", "end", "axis1"], ["kept"]),
        helper.make_node("MatMul", ["kept", "head"], ["logits"]),
    ]


def int64(name: str, *values: int) -> Any:
    """A one-dimensional int64 initializer."""
    return numpy_helper.from_array(np.array(values, np.int64), name)


def model(weights: ToyWeights) -> onnx.ModelProto:
    """The toy decoder as a graph with the exporter's names."""
    vocab = weights.embedding.shape[0]
    nodes = [*_length_nodes(), helper.make_node("Gather", ["embedding", "input_ids"], ["hidden0"])]
    initializers = [
        numpy_helper.from_array(weights.embedding, "embedding"),
        numpy_helper.from_array(weights.head, "head"),
        *(int64("logits_to_keep", 1), int64("axis1", 1), int64("one", 1), int64("end", 2**62)),
    ]
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "seq"]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "total"]),
        helper.make_tensor_value_info("logits_to_keep", TensorProto.INT64, [1]),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "kept", vocab])]
    for index, layer in enumerate(weights.layers):
        more_nodes, more_initializers = _layer(index, layer)
        nodes += more_nodes
        initializers += more_initializers
        shape = ["batch", LAYERS[index][1], "capacity", LAYERS[index][2]]
        for part in ("key", "value"):
            past, present = f"past_key_values.{index}.{part}", f"present.{index}.{part}"
            inputs.append(helper.make_tensor_value_info(past, TensorProto.FLOAT, shape))
            outputs.append(helper.make_tensor_value_info(present, TensorProto.FLOAT, shape))
    nodes += _head_nodes(f"hidden{len(weights.layers)}")
    graph = helper.make_graph(nodes, "toy", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def section(vocab: int) -> dict[str, Any]:
    """The manifest's section."""
    return {
        "layers": [{"kv_heads": kv_heads, "head_dim": dim} for _, kv_heads, dim in LAYERS],
        "kv_dtype": "float32",
        "context_length": CONTEXT,
        "vocab_size": vocab,
        "bos_token_id": 1,
        "eos_token_ids": [2],
        "pad_token_id": 0,
    }
