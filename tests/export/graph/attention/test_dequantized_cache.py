"""A prefill graph over a cache of codes: what is in the cache stays, and what comes is rounded as the
model's own graph rounds it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from edgepress.compress.model.kv_scheme import KVScheme
from edgepress.export.graph.attention.attention import SINK_AT
from edgepress.export.graph.attention.cache_io import CODE_ATTRIBUTES
from edgepress.export.graph.build import WeightView
from edgepress.export.graph.graph_writer import Opset
from edgepress.export.prefill.prefill_graph import write_prefill
from edgepress.export.proof.drive import presents
from edgepress.runtime.bundle.manifest import PrepackedLinear
from edgepress.runtime.prepack.int8_weights import opened_in_memory
from numpy.typing import NDArray

pytestmark = pytest.mark.chain


IDS = np.random.default_rng(5).integers(0, 300, (1, 60))
# How far codes move in the mean, of all that there are: by int8 products in the first layer; behind it also
# because the model's own graph reads back what it has just rounded, to which codes of four bits say less.
# Means of thousands of codes: which way single ties fall on a processor moves them by less than a hundredth.
FIRST, BEHIND = {"int8": 1 / 256, "uint8": 2 / 256}, {"int8": 4 / 256, "uint8": 12 / 256}

Case = tuple[Any, Any]
Cache = dict[str, NDArray[Any]]


@pytest.fixture(params=[(8, "per-channel"), (8, "per-tensor"), (4, "per-channel"), (4, "per-tensor")])
def case(request: Any, pico_llama: Path, export_graph: Callable[..., Any], opset: Opset) -> Case:
    """The graph of a model with a cache of codes, and a session over its prefill graph."""
    bits, granularity = request.param
    exported = export_graph(pico_llama, "W8A16-g32", kv=KVScheme(bits=bits, granularity=granularity))
    dtype = {8: "int8", 4: "uint8"}[bits]
    section = write_prefill(WeightView(exported.source, kv_dtype=dtype), opset, exported.path)
    linears = [PrepackedLinear(**linear) for linear in section["linears"]]
    graph = exported.path.with_name("prefill.onnx")
    return exported, opened_in_memory(graph, exported.path, linears, threads=1)


def off(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """The mean distance of two arrays of codes, of all codes that there are."""
    if found.dtype == np.int8:
        return float(np.abs(found.astype(int) - wanted.astype(int)).mean()) / 256
    halves = [np.stack([codes & 15, codes >> 4]).astype(int) for codes in (found, wanted)]
    return float(np.abs(halves[0] - halves[1]).mean()) / 16


def near(name: str, codes: NDArray[Any]) -> float:
    """How far off the codes of the layer may be."""
    return (FIRST if ".0." in name else BEHIND)[codes.dtype.name]


def filled(session: Any, cache: Cache, start: int, end: int) -> Cache:
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
        limits = np.iinfo(codes.dtype)
        codes[:, :, end:] = rng.integers(limits.min, limits.max + 1, codes[:, :, end:].shape)
    found = filled(filler, before, start, end)
    for name, codes in found.items():
        assert codes.dtype == before[name].dtype and codes.shape == before[name].shape
        assert np.array_equal(codes[:, :, :start], before[name][:, :, :start])
        assert np.array_equal(codes[:, :, end:], before[name][:, :, end:])
        new = slice(start, end)
        assert off(codes[:, :, new], wanted[name][:, :, new]) < near(name, codes)


def test_chunks_fill_as_one(case: Case) -> None:
    exported, filler = case
    with exported.driver() as driver:
        empty = driver.empty_cache(1, 60)
    whole = filled(filler, empty, 0, 60)
    parts = filled(filler, filled(filler, empty, 0, 35), 35, 60)
    for name, codes in whole.items():
        assert off(codes, parts[name]) < near(name, codes)
