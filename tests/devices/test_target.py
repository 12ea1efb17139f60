"""Targets: every file loads, every number has its evidence, and the ceilings are those of arithmetic."""

from pathlib import Path
from typing import Any

import pytest
from edgepress.devices.target import Target, target, target_names
from edgepress.errors import InputError, UnknownName

EXPECTED = """
h100-sxm h200 a100-sxm-80gb l40s l4 t4 b200 rtx-4090 rtx-4060-laptop
macbook-m2 macbook-pro-m3-pro macbook-m4 core-ultra-155h core-ultra-258v ryzen-hx370 ryzen-7840u
snapdragon-x-elite plain-laptop-8gb raspberry-pi-5
"""

MINIMAL = """
title: A board
kind: board
source: its page
confidence: high
memory: {value: 4, unit: GB}
bandwidth: {value: 10, unit: GB/s, up_to: 20, source: arithmetic, confidence: low}
power: {value: 5, unit: W}
providers: {names: [CPUExecutionProvider]}
"""


def numbers(value: Any) -> list[dict[str, Any]]:
    """Every mapping in a dumped target that holds a number."""
    if isinstance(value, list | tuple):
        return [found for item in value for found in numbers(item)]
    if not isinstance(value, dict):
        return []
    here = [value] if isinstance(value.get("value"), float) else []
    return here + [found for item in value.values() for found in numbers(item)]


def write(folder: Path, text: str) -> Path:
    (folder / "board.yaml").write_text(text, encoding="utf-8")
    return folder


def test_the_machines_that_edgepress_serves_are_there() -> None:
    assert set(EXPECTED.split()) <= set(target_names())


@pytest.mark.parametrize("name", target_names())
def test_every_number_has_source_and_confidence(name: str) -> None:
    found = numbers(target(name).model_dump())
    assert len(found) >= 3
    for number in found:
        assert number["source"].strip()
        assert number["confidence"] in ("high", "medium", "low")


@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [
        ("raspberry-pi-5", 0.5e9, 34),
        ("plain-laptop-8gb", 1.1e9, 35),
        ("macbook-m2", 2.2e9, 45),
        ("l4", 4.9e9, 61),
        ("rtx-4090", 0.5e9, 2016),
        ("b200", 1.1e9, 7273),
    ],
)
def test_decode_ceiling_is_bandwidth_over_weights(name: str, weights: float, expected: int) -> None:
    assert round(target(name).decode_ceiling(weights)) == expected


def test_peak_by_dtype_and_unit() -> None:
    lunar = target("core-ultra-258v")
    best, npu = lunar.peak("int8"), lunar.peak("int8", on="npu")
    assert best is not None and npu is not None
    assert (best.on, best.value, npu.value) == ("gpu", 64, 47)
    assert target("t4").peak("bf16") is None


def test_names_are_forgiving_about_case_and_underscores() -> None:
    assert target("H100_SXM").title == target("h100-sxm").title


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'rtx-4090'"):
        target("rtx-4091")


def test_evidence_is_inherited_and_overridden(tmp_path: Path) -> None:
    board = target("board", write(tmp_path, MINIMAL))
    assert (board.memory.source, board.memory.confidence) == ("its page", "high")
    assert (board.bandwidth.source, board.bandwidth.confidence) == ("arithmetic", "low")
    assert board.providers.source == "its page"


BROKEN = {
    "no evidence": (MINIMAL.replace("source: its page\n", ""), "memory.source"),
    "unknown key": (MINIMAL + "colour: red\n", "colour"),
    "wrong unit": (MINIMAL.replace("value: 5, unit: W", "value: 5, unit: kW"), "power.unit"),
    "negative": (MINIMAL.replace("value: 4,", "value: -4,"), "memory.value"),
    "range upside down": (MINIMAL.replace("up_to: 20", "up_to: 5"), "bandwidth"),
    "confidence": (MINIMAL.replace("confidence: high", "confidence: sure"), "confidence"),
    "no provider": (MINIMAL.replace("[CPUExecutionProvider]", "[]"), "providers.names"),
    "not a mapping": ("- 1\n", "mapping"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_names_the_field(name: str, tmp_path: Path) -> None:
    text, field = BROKEN[name]
    with pytest.raises(InputError, match=field) as caught:
        target("board", write(tmp_path, text))
    assert "board.yaml" in str(caught.value)


def test_targets_are_values() -> None:
    one = target("l4")
    assert one == Target.model_validate_json(one.model_dump_json())


def test_a_chipset_says_what_its_laptops_do_not(tmp_path: Path) -> None:
    laptop = """
title: A laptop
kind: laptop
chipset: apple-m4
source: its page
confidence: high
memory: {value: 24, unit: GB}
power: {value: 25, unit: W}
"""
    found, sold = target("board", write(tmp_path, laptop)), target("macbook-m4")
    assert (found.bandwidth, found.cores, found.providers) == (sold.bandwidth, sold.cores, sold.providers)
    assert found.memory.source == "its page" and found.bandwidth.source != "its page"
    own = laptop + "bandwidth: {value: 100, unit: GB/s}\n"
    assert target("board", write(tmp_path, own)).bandwidth.value == 100
    for wrong in ("nothing", "../targets/h100-sxm"):
        with pytest.raises(InputError, match="there is no"):
            target("board", write(tmp_path, laptop.replace("apple-m4", wrong)))
