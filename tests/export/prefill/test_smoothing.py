"""Smoothing of norms for 8-bit integers: factors against a loop, peaks against torch, and that it helps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from edgepress.compress.model.block_anatomy import Linear
from edgepress.export.graph.build import WeightView
from edgepress.export.graph.graph_writer import Opset
from edgepress.export.prefill import prefill_graph
from edgepress.export.prefill.prefill_graph import write_prefill
from edgepress.export.proof.distances import divergence, log_softmax
from edgepress.runtime.bundle.manifest import PrepackedLinear
from edgepress.runtime.prepack.int8_weights import opened_in_memory
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.chain


IDS = np.random.default_rng(5).integers(0, 300, (1, 100))


@given(seed=st.integers(0, 99), channels=st.integers(1, 9), silent=st.booleans())
def test_factors_are_roots_of_peaks(seed: int, channels: int, silent: bool) -> None:
    values = np.random.default_rng(seed).standard_normal((1, 5, channels)).astype(np.float32)
    values[..., 0] *= 0 if silent else 40
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(prefill_graph, "_outputs", lambda *_: {"n": values})
        found = prefill_graph.smoothing_factors(Path("m"), ["n"], IDS)["n"]
    peaks = [max(abs(float(value)) for value in values[0, :, channel]) for channel in range(channels)]
    roots = [max(peak, 0.01 * max(peaks)) ** 0.5 if max(peaks) else 1.0 for peak in peaks]
    mean = float(np.prod(roots)) ** (1 / channels)
    np.testing.assert_allclose(found, [root / mean for root in roots], rtol=1e-4)
    assert np.isfinite(found).all() and (found > 0).all()


def test_without_norms_to_smooth_there_are_no_factors(pico_llama: Path, export_graph: Any) -> None:
    assert prefill_graph.smoothing_factors(export_graph(pico_llama).path, [], IDS) == {}


def test_peaks_are_those_of_torch(pico_llama: Path, export_graph: Any) -> None:
    exported = export_graph(pico_llama)
    names = [block.norm2.name for block in exported.source.anatomy.blocks[:-1]]
    found = prefill_graph._outputs(exported.path, names, IDS)
    assert not exported.path.with_name("peaks.onnx").exists()
    seen: dict[str, np.ndarray] = {}
    model = exported.source.model(activations=False)
    for name in names:
        hook: Callable[..., None] = lambda _, __, out, name=name: seen.update({name: out.numpy()})  # noqa: E731
        model.get_submodule(name).register_forward_hook(hook)
    with torch.no_grad():
        model(torch.from_numpy(IDS))
    for name in names:
        np.testing.assert_allclose(found[name], seen[name], atol=1e-4)


def loud(checkpoint: Path) -> Path:
    """The checkpoint with a channel of its norms that drowns the others, as its linears know."""
    tensors = load_file(checkpoint / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith("layernorm.weight"):
            tensor[3] *= 60
        elif any(part in name for part in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")):
            tensor[:, 3] /= 60
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    return checkpoint


def test_a_loud_channel_no_longer_drowns_the_others(
    make_decoder: Callable[..., Path], export_graph: Any, opset: Opset, tmp_path: Path
) -> None:
    exported = export_graph(loud(make_decoder(tmp_path / "model")), "W8A16-g16")
    view, distances = WeightView(exported.source), []
    # The graph itself rounds nothing, so the distance is the prefill's own. It goes with the square of the
    # step, which 60 times the size makes 60 times longer, smoothed √60 times: about 1/60 of it stays.
    with exported.driver(exact=True) as driver:
        own = log_softmax(driver.logits(IDS, depth=60)[0])
        for ids in (None, IDS):
            section = write_prefill(view, opset, exported.path, ids)
            linears = [PrepackedLinear(**linear) for linear in section["linears"]]
            assert {bool(linear.norm) for linear in linears} == {False, ids is not None}
            prefill = exported.path.with_name("prefill.onnx")
            filler = opened_in_memory(prefill, exported.path, linears, threads=1)
            found = log_softmax(driver.logits(IDS, depth=60, filler=filler)[0])
            distances.append(float(divergence(own, found).mean()))
    assert distances[1] < 0.1 * distances[0]


def test_norms_that_feed_something_else_too_are_left_alone(
    pico_llama: Path, export_graph: Any, opset: Opset
) -> None:
    kept = {"0.self_attn.k_proj": None, "1.mlp.up_proj": "W8A8"}

    def scheme_of(linear: Linear) -> str | None:
        return kept.get(linear.name.removeprefix("model.layers."), "W4A16-g32")

    exported = export_graph(pico_llama, scheme_of)
    section = write_prefill(WeightView(exported.source), opset, exported.path, IDS)
    smoothed = {linear["norm"] for linear in section["linears"]} - {""}
    assert smoothed == {
        "model.layers.0.post_attention_layernorm",
        "model.layers.1.input_layernorm",
        "model.layers.2.input_layernorm",
    }
    names = set(ir.load(exported.path.with_name("prefill.onnx")).graph.initializers)
    assert {f"{name}.weight.smoothed" for name in smoothed} <= names
