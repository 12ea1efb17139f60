"""Predictions of encoders whose queries share keys and values: a product of q, k and v is taken apart into
widths that differ, and attention is looked up by the size of its heads.
"""

from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest
from edgepress.benchmarks.lab.same_bytes.pico_embedders import save_embedder
from edgepress.compress.api import compress_model
from edgepress.devices.predict.run import Run, split_widths
from edgepress.devices.predict.subject import bundle_subject
from edgepress.errors import BundleError
from edgepress.export.api import export_bundle
from edgepress.runtime.bundle.graph_file import GraphFile, Node, Weight
from edgepress.runtime.kernels.library import library

HEADS, SHARED, DIM = 4, 2, 16  # of the pico models
TEXTS, LENGTH = 2, 16
PARTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def split(count: int, *inputs: str) -> Node:
    return Node("Split", inputs, {"axis": -1}, tuple(f"part.{index}" for index in range(count)))


def test_a_split_is_as_wide_as_it_says() -> None:
    graph = GraphFile({}, {"sizes": Weight((3,), 64, (64, 32, 32)), "unread": Weight((3,), 64)})
    assert split_widths(graph, split(3, "packed", "sizes"), 128) == [64, 32, 32]
    assert split_widths(graph, split(2, "packed"), 128) == [64, 64]
    for names in (("packed", "unread"), ("packed", "elsewhere")):
        with pytest.raises(BundleError, match="into 3 parts has the sizes"):
            split_widths(graph, split(3, *names), 128)
    with pytest.raises(BundleError, match="into 2 parts"):
        split_widths(graph, split(2, "packed", "sizes"), 128)


def layers_and_work(model: Path) -> tuple[int, int]:
    """Blocks of a checkpoint, and multiply-adds of all their linears for one token."""
    from safetensors import safe_open

    with safe_open(model / "model.safetensors", "pt") as file:
        names = [name for name in file.keys() if name.endswith(tuple(f"{one}.weight" for one in PARTS))]  # noqa: SIM118
        work = sum(prod(file.get_slice(name).get_shape()) for name in names)
    return len(names) // len(PARTS), work


@pytest.mark.chain
@pytest.mark.skipif(library() is None, reason="the packed product is edgepress's own operator")
@pytest.mark.parametrize("family", ["eurobert", "qwen3"])
def test_operations_of_an_encoder_in_four_bits(
    family: str, make_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """Counted by hand: of each text every head of 16 channels meets every pair of tokens twice."""
    model = tmp_path / "model"
    if family == "eurobert":
        make_encoder(model, family, num_key_value_heads=SHARED)
    else:
        save_embedder(model, family, {})
    compressed = compress_model(str(model), output=tmp_path / "checkpoint", scheme="W4A16")
    bundle = export_bundle(compressed, output=tmp_path / "bundle", validate=False)
    found = bundle_subject(bundle).does(Run(TEXTS * LENGTH, length=LENGTH)).counts
    layers, work = layers_and_work(model)
    ((attention, times),) = [(one, count) for one, count in found.items() if one.op == "Attention"]
    assert (attention.form, attention.sizes, times) == (f"float, {DIM}", (TEXTS * HEADS, LENGTH), layers)
    assert attention.work == sum(2 * DIM for _ in range(TEXTS * HEADS) for _ in range(LENGTH**2))
    assert attention.moved == 4 * TEXTS * LENGTH * DIM * (HEADS + SHARED + SHARED + HEADS)  # q, k, v, output
    products = [(one, count) for one, count in found.items() if one.op == "QuantizedProduct"]
    assert sum(count * one.work for one, count in products) == TEXTS * LENGTH * work
    packed = {one.sizes for one, _ in products if one.sizes[1] == 64 and one.sizes[2] == 128}
    assert packed == {(TEXTS * LENGTH, 64, (HEADS + 2 * SHARED) * DIM)}
