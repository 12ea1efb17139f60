"""Whatever can change a bit of an answer changes the hash under which answers are kept."""

from __future__ import annotations

import pytest
from edgepress.benchmarks.records import arithmetic
from edgepress.benchmarks.records.arithmetic import arithmetic_of

RUNTIME = {"name": "torch", "threads": 1}


def test_it_is_the_same_for_the_same() -> None:
    assert arithmetic_of("a", RUNTIME) == arithmetic_of("a", dict(RUNTIME))


def test_model_and_runtime_count() -> None:
    others = [("b", RUNTIME), ("a", {**RUNTIME, "threads": 2}), ("a", {**RUNTIME, "streamed": True})]
    found = {arithmetic_of(model, runtime) for model, runtime in [("a", RUNTIME), *others]}
    assert len(found) == 4


@pytest.mark.parametrize(
    "name", ["MKL_CBWR", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "EDGEPRESS_KERNELS"]
)
def test_variables_that_choose_instructions_count(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name, raising=False)
    before = arithmetic_of("a", RUNTIME)
    monkeypatch.setenv(name, "avx2")
    assert arithmetic_of("a", RUNTIME) != before


def test_a_missing_library_is_none() -> None:
    assert arithmetic._version("edgepress-of-nowhere") is None
    assert arithmetic._version("numpy")


@pytest.mark.parametrize("part", ["_version", "_processor", "_code", "library"])
def test_libraries_processor_and_code_count(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = arithmetic_of("a", RUNTIME)
    monkeypatch.setattr(arithmetic, part, lambda *_: None)
    if part == "library" and arithmetic_of("a", RUNTIME) == before:
        pytest.skip("there is no library of operators here")
    assert arithmetic_of("a", RUNTIME) != before
