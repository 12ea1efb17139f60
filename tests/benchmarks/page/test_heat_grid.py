"""Bits by layer: the grid of a mixed plan, none for one width, and the page that shows it."""

import pytest
from edgepress.benchmarks.page.heat_grid import SHADES, bits_of, widths
from edgepress.benchmarks.page.report import render_report
from edgepress.benchmarks.records.record import Measurement, Subject

pytestmark = pytest.mark.chain


def mixed(scheme: str = "4 bits allocate") -> Subject:
    bits = {("q", 0): "W4A16-g64", ("q", 1): "W8A16-g64", ("down", 0): "W2A16-g64", ("down", 1): "W4A16-g64"}
    layers = [
        {"name": f"model.layers.{block}.mlp.{kind}_proj", "scheme": name, "status": "ok", "error": 0.1}
        for (kind, block), name in bits.items()
    ]
    return Subject(
        name="m",
        manifest_sha256="c" * 64,
        kind="decoder",
        format="onnx",
        scheme=scheme,
        disk_bytes=1,
        layers=layers,
    )


def test_a_mixed_plan_is_a_grid_of_kinds_and_blocks() -> None:
    found = widths(mixed())
    assert found is not None and found.blocks == 2
    assert found.description == "1 linear of 2 bits, 2 linears of 4 bits, 1 linear of 8 bits"
    by_kind = dict(zip(found.kinds, found.levels, strict=True))
    assert by_kind == {"q_proj": (SHADES[4], SHADES[8]), "down_proj": (SHADES[2], SHADES[4])}


def test_one_width_is_no_grid() -> None:
    subject = mixed()
    for layer in subject.layers:
        layer["scheme"] = "W4A16-g64"
    assert widths(subject) is None


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("W2A16-g64", 2),
        ("W4A16_ASYM-g32", 4),
        ("W8A8", 8),
        ("FP8_DYNAMIC", 8),
        ("NVFP4A16", 4),
        ("50% sparse", None),
    ],
)
def test_bits_are_read_off_the_name_of_a_scheme(name: str, bits: int | None) -> None:
    assert bits_of(name) == bits


def test_the_page_shows_the_grid_where_bits_differ(measured: list[Measurement]) -> None:
    assert "Bits by layer" not in render_report(measured)
    lines = [line.model_copy(deep=True) for line in measured]
    for line in lines:
        if line.subject.scheme == "W4A16-g64 gptq":
            for index, layer in enumerate(line.subject.layers):
                layer["scheme"] = "W4A16-g64" if index else "W8A16-g64"
    page = render_report(lines)
    assert (
        "Bits by layer" in page and "W4A16-g64 gptq: bits of each linear" in page and "1 linear of 8" in page
    )
