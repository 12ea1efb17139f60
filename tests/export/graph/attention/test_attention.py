"""The kernel that computes attention: what it is chosen by changes nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from edgepress.compress.model.kv_scheme import KVScheme
from edgepress.export.graph.attention.attention import NO_SINK, SINK_AT, without_sinks
from edgepress.runtime.session.session import open_session
from numpy.typing import NDArray

HEADS, KV_HEADS, SIZE, TOTAL = 4, 2, 16, 40


def attentions(path: Path) -> list[ir.Node]:
    return [node for node in ir.load(path).graph if node.op_type == "GroupQueryAttention"]


def sinks(path: Path) -> list[NDArray[Any] | None]:
    found: list[NDArray[Any] | None] = []
    for node in attentions(path):
        value = node.inputs[SINK_AT] if len(node.inputs) > SINK_AT else None
        found.append(None if value is None or value.const_value is None else value.const_value.numpy())
    return found


def factors(path: Path) -> list[float]:
    return [node.attributes["scale"].as_float() for node in attentions(path)]


@pytest.mark.parametrize(
    ("model_type", "changes", "factor"),
    [
        ("llama", {}, 1.0),
        ("qwen3", {}, 1.0),
        ("gpt_neox", {}, None),  # rotates a part of each head
        ("gpt2", {}, None),  # has no rope
    ],
)
def test_every_layer_has_a_sink_without_weight(
    model_type: str, changes: Any, factor: float | None, make_decoder: Any, export_graph: Any, tmp_path: Path
) -> None:
    exported = export_graph(make_decoder(tmp_path / "model", model_type, **changes), None)
    blocks = exported.source.anatomy.blocks
    for block, found in zip(blocks, sinks(exported.path), strict=True):
        assert found is not None
        assert np.array_equal(found, np.full(block.attention.heads, NO_SINK, np.float32))
    whole = {block.attention.head_dim**-0.5 for block in blocks}
    assert set(np.float32(factors(exported.path))) == {np.float32(factor or whole.pop())}


@pytest.mark.chain
def test_windows_softcaps_and_codes_are_left_to_the_kernel(
    make_decoder: Any, export_graph: Any, pico_llama: Path, tmp_path: Path
) -> None:
    window = export_graph(make_decoder(tmp_path / "window", "mistral", sliding_window=24), None)
    assert set(sinks(window.path)) == {None} and set(factors(window.path)) == {1.0}
    capped = export_graph(make_decoder(tmp_path / "capped", "gemma2"), None)
    assert set(sinks(capped.path)) == {None}
    codes = export_graph(pico_llama, None, kv=KVScheme())
    assert set(sinks(codes.path)) == {None}
    head_dim = codes.source.anatomy.blocks[0].attention.head_dim
    assert set(np.float32(factors(codes.path))) == {np.float32(head_dim**-0.5)}


def test_the_sinks_can_be_taken_out(pico_llama: Path, export_graph: Any) -> None:
    exported = export_graph(pico_llama, None)
    ids = np.random.default_rng(2).integers(0, 300, (3, 33), dtype=np.int64)
    with exported.driver() as driver:
        before = driver.logits(ids), driver.logits(ids[:1], depth=20)
    model = ir.load(exported.path)
    without_sinks(model)
    ir.save(model, exported.path)
    assert set(sinks(exported.path)) == {None}
    assert not [name for name in model.graph.initializers if "sink" in str(name)]
    with exported.driver() as driver:
        np.testing.assert_allclose(driver.logits(ids), before[0], atol=1e-5)
        np.testing.assert_allclose(driver.logits(ids[:1], depth=20), before[1], atol=1e-5)


def attend(query: NDArray[Any], key: NDArray[Any], value: NDArray[Any]) -> NDArray[Any]:
    """The naive reference: of ``query [seq, heads, size]`` over ``key, value [total, kv_heads, size]``."""
    found = np.empty_like(query)
    start = len(key) - len(query)
    for row, head in np.ndindex(query.shape[:2]):
        seen = slice(start + row + 1)
        scores = key[seen, head // (HEADS // KV_HEADS)].astype(np.float64) @ query[row, head]
        weights = np.exp(scores - scores.max())
        found[row, head] = weights / weights.sum() @ value[seen, head // (HEADS // KV_HEADS)]
    return found


@pytest.mark.parametrize("rows", [1, 7, TOTAL])
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_a_sink_of_no_weight_is_no_sink(rows: int, size: float, tmp_path: Path) -> None:
    """Also where every score is far below zero, or far above."""
    rng = np.random.default_rng(rows)
    key, value = (rng.standard_normal((TOTAL, KV_HEADS, SIZE)).astype(np.float32) for _ in range(2))
    query = (rng.standard_normal((rows, HEADS, SIZE)) * size).astype(np.float32)
    session = open_session(_attention(tmp_path / "model.onnx", rows), threads=1)
    new = TOTAL - rows
    past = [np.zeros((1, KV_HEADS, TOTAL, SIZE), np.float32) for _ in range(2)]
    for cache, whole in zip(past, (key, value), strict=True):
        cache[0, :, :new] = whole[:new].transpose(1, 0, 2)
    packed = [part.reshape(1, rows, -1) for part in (query, key[new:], value[new:])]
    feeds = {"qkv": np.concatenate(packed, axis=-1), "past_key": past[0], "past_value": past[1]}
    (found,) = session.run(["out"], feeds)
    wanted = attend(query, key, value).reshape(1, rows, -1)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def _attention(path: Path, rows: int) -> Path:
    def value(name: str, *shape: int) -> ir.Value:
        return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))

    def constant(name: str, array: NDArray[Any]) -> ir.Value:
        tensor = ir.tensor(array, name=name)
        return ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)

    cache = (1, KV_HEADS, TOTAL, SIZE)
    inputs = [value("qkv", 1, rows, (HEADS + 2 * KV_HEADS) * SIZE), value("past_key", *cache)]
    inputs.append(value("past_value", *cache))
    last, total = constant("last", np.array([TOTAL - 1], np.int32)), constant("total", np.int32(TOTAL))
    sink = constant("sink", np.full(HEADS, NO_SINK, np.float32))
    given = [inputs[0], None, None, *inputs[1:], last, total, *[None] * 4, sink]
    sizes: dict[str, Any] = {"num_heads": HEADS, "kv_num_heads": KV_HEADS, "scale": 1.0}
    node = ir.node("GroupQueryAttention", given, sizes, domain="com.microsoft", num_outputs=3)
    shapes: Callable[..., Any] = ir.Shape
    named = (("out", (1, rows, HEADS * SIZE)), ("key", cache), ("value", cache))
    for output, (name, shape) in zip(node.outputs, named, strict=True):
        output.name, output.shape, output.type = name, shapes(shape), ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        inputs,
        node.outputs,
        nodes=[node],
        initializers=[last, total, sink],
        opset_imports={"": 21, "com.microsoft": 1},
        name="attention",
    )
    ir.save(ir.Model(graph, ir_version=10), path)
    return path
