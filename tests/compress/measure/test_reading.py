"""Precision is chosen by hardware: bfloat16, else float16 on CUDA with tensor cores, else float32."""

from contextlib import nullcontext

import pytest
import torch
from edgepress.compress.measure import reading
from edgepress.compress.measure.reading import autocast, chosen


@pytest.mark.parametrize(
    ("device", "bfloat16", "capability", "expected"),
    [
        ("cuda", True, (8, 0), "bfloat16"),
        ("cuda", False, (7, 5), "float16"),
        ("cuda", False, (6, 1), "float32"),
        ("cpu", True, None, "bfloat16"),
        ("cpu", False, None, "float32"),
    ],
)
def test_auto_is_what_the_hardware_has(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    bfloat16: bool,
    capability: tuple[int, int] | None,
    expected: str,
) -> None:
    monkeypatch.setattr(reading, "computes_in_bfloat16", lambda device: bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert chosen("auto", torch.device(device)) == expected
    assert chosen("float16", torch.device(device)) == "float16"


def test_products_are_computed_in_the_chosen_type() -> None:
    one = torch.ones(2, 2)
    for name, dtype in (("float16", torch.float16), ("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        with autocast(name, torch.device("cpu")):  # type: ignore[arg-type]
            assert (one @ one).dtype == dtype


def test_auto_outside_of_a_loop_is_never_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "computes_in_bfloat16", lambda device: False)
    assert isinstance(autocast("auto", torch.device("cuda")), nullcontext)
