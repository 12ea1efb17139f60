"""A prefill graph over a cache of int8 codes: what is in the cache stays, and what comes is rounded as the
model's own graph rounds it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from edgepress.compress.kv_scheme import KVScheme
from edgepress.export.graph.cache import CODE_ATTRIBUTES
from edgepress.export.graph.scores import SINK_AT
from edgepress.export.graph.view import WeightView
from edgepress.export.opset import Opset
from edgepress.export.prefill import write_prefill
from edgepress.export.proof.drive import presents
from edgepress.runtime.prefill_weights import opened_in_memory
from edgepress.runtime.remade_linear import RemadeLinear
from numpy.typing import NDArray

IDS = np.random.default_rng(5).integers(0, 300, (1, 60))
# How far int8 products move codes, of 255, in the mean: little in the first layer, more behind it.
FIRST, BEHIND = 1.0, 4.0

Case = tuple[Any, Any]


@pytest.fixture(params=["per-channel", "per-tensor"])
def case(request: Any, pico_llama: Path, export_graph: Callable[..., Any], opset: Opset) -> Case:
    """The graph of a model with a cache of codes, and a session over its prefill graph."""
    scheme = KVScheme(bits=8, granularity=request.param)
    exported = export_graph(pico_llama, "W8A16-g32", kv=scheme)
    section = write_prefill(WeightView(exported.source, kv_dtype="int8"), opset, exported.path)
    linears = [RemadeLinear(**linear) for linear in section["linears"]]
    graph = exported.path.with_name("prefill.onnx")
    return exported, opened_in_memory(graph, exported.path, linears, threads=1)


def filled(session: Any, cache: dict[str, NDArray[np.int8]], start: int, end: int) -> dict[str, NDArray[Any]]:
    feeds = {"input_ids": IDS[:, start:end], "attention_mask": np.ones((1, end), np.int64), **cache}
    return dict(zip(cache, session.run(presents(cache), feeds), strict=True))


def test_attention_in_it_is_over_floats(case: Case) -> None:
    exported, _ = case
    nodes = ir.load(exported.path.with_name("prefill.onnx")).graph
    attentions = [node for node in nodes if node.op_type == "GroupQueryAttention"]
    assert len(attentions) == 3
    for node in attentions:
        assert not set(CODE_ATTRIBUTES) & set(node.attributes)
        assert len(node.inputs) == SINK_AT + 1


@pytest.mark.parametrize(("start", "end"), [(0, 40), (0, 1), (25, 40), (39, 40), (25, 60)])
def test_what_was_there_stays_and_what_comes_is_near_what_the_own_graph_puts_there(
    case: Case, start: int, end: int
) -> None:
    exported, filler = case
    with exported.driver() as driver:
        before, wanted = driver.cache(IDS, start), driver.cache(IDS, end)
    rng = np.random.default_rng(1)
    for codes in before.values():  # what lies behind the last token is anything
        codes[:, :, end:] = rng.integers(-128, 128, codes[:, :, end:].shape)
    found = filled(filler, before, start, end)
    for name, codes in found.items():
        assert codes.dtype == np.int8 and codes.shape == before[name].shape
        assert np.array_equal(codes[:, :, :start], before[name][:, :, :start])
        assert np.array_equal(codes[:, :, end:], before[name][:, :, end:])
        new = slice(start, end)
        off = np.abs(codes[:, :, new].astype(int) - wanted[name][:, :, new].astype(int))
        assert off.mean() < (FIRST if ".0." in name else BEHIND)


def test_chunks_fill_as_one(case: Case) -> None:
    exported, filler = case
    with exported.driver() as driver:
        empty = driver.empty_cache(1, 60)
    whole = filled(filler, empty, 0, 60)
    parts = filled(filler, filled(filler, empty, 0, 35), 35, 60)
    for name, codes in whole.items():
        off = np.abs(codes.astype(int) - parts[name].astype(int))
        assert off.mean() < (FIRST if ".0." in name else BEHIND)
