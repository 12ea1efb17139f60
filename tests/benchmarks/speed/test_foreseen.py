"""Prediction and measurement: said where they are a quarter apart, and nowhere else."""

from collections.abc import Callable
from pathlib import Path

import pytest
from edgepress.benchmarks.records.record import Measurement, Metric, Subject
from edgepress.benchmarks.speed.foreseen import apart, foreseen, foreseen_on
from edgepress.benchmarks.speed.work.timed_work import TimedGeneration
from edgepress.devices.kernel_table.table import keep_table
from edgepress.devices.predict.prediction import Prediction, Quantity
from edgepress.export.api import export_bundle

from ...devices.kernel_table.tables import small_table


def metric(value: float | None) -> Metric:
    return Metric(value=value, unit="tok/s", n=10, better="higher")


def predicted(**values: float) -> Prediction:
    quantities = tuple(Quantity(name, value, "tok/s", 0.15) for name, value in values.items())
    return Prediction("m", "here", "measured table", "", 1, {}, quantities, "edgepress profile")


@pytest.mark.parametrize(
    ("measured", "words"),
    [(100.0, ""), (124.0, ""), (76.0, ""), (126.0, "26 % above"), (70.0, "30 % below"), (None, "")],
)
def test_a_quarter_apart_is_said(measured: float | None, words: str) -> None:
    said = apart(predicted(decode_tps=100.0), {"decode_tps": metric(measured)})
    assert [words in one for one in said] == ([True] if words else [])
    assert all("edgepress devices measure" in one for one in said)


def test_what_is_not_predicted_is_not_compared() -> None:
    assert apart(None, {"decode_tps": metric(1.0)}) == []
    assert apart(predicted(prefill_tps=100.0), {"decode_tps": metric(1.0)}) == []


def test_another_provider_has_no_table(tmp_path: Path) -> None:
    assert foreseen(tmp_path, TimedGeneration(8, 4), 1, "cuda") is None


@pytest.mark.chain
def test_a_device_is_compared_with_its_own_table(
    pico_llama: Path,
    tmp_path: Path,
    make_subject: Callable[..., Subject],
    make_latency: Callable[..., Measurement],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    bundle = export_bundle(pico_llama, output=tmp_path / "bundle", validate=False)
    keep_table("pi", small_table())
    work = {"kind": "generate", "prompt_tokens": 16, "new_tokens": 8}
    there = {"threads": 2, "providers": ["CPUExecutionProvider"]}
    line = make_latency(make_subject("fp32", 540), None, {}).model_copy(
        update={"workload": work, "runtime": there}
    )
    found = foreseen_on("pi", bundle, line)
    assert found is not None and (found.target, found.threads) == ("pi", 2) and found.value("decode_tps")
    assert foreseen_on("nobody", bundle, line) is None
    gpu = line.model_copy(update={"runtime": {**there, "providers": ["CUDAExecutionProvider"]}})
    assert foreseen_on("pi", bundle, gpu) is None
