"""Whether a line's numbers may be used: planted faults, one at a time."""

from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.records.record import Measurement
from edgepress.benchmarks.speed.latency import ArmSamples
from edgepress.benchmarks.speed.latency_line import Conditions, MeasuredArm, measurement_line
from edgepress.benchmarks.speed.protocol import Protocol
from edgepress.benchmarks.speed.roofline import Roofline
from edgepress.benchmarks.speed.work.timed_work import TimedGeneration
from edgepress.devices.bandwidth import Bandwidth
from edgepress.devices.probe import Machine, probe
from edgepress.devices.state import State, read_state
from edgepress.export.api import export_bundle
from edgepress.runtime.bundle.bundle import Bundle

pytestmark = pytest.mark.chain


WORK = TimedGeneration(prompt_tokens=8, new_tokens=5)
CPU = {"provider": "CPUExecutionProvider", "ms": 1.0, "share": 1.0, "nodes": 9, "ops": ["MatMul"]}


@pytest.fixture(scope="module")
def bundle(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    output = tmp_path_factory.mktemp("line") / "bundle"
    return Bundle.open(export_bundle(pico_llama, output=output, validate=False))


@pytest.fixture(scope="module")
def machine() -> Machine:
    return probe()


def quiet() -> tuple[State, State]:
    before = read_state().model_copy(update={"at_seconds": 0.0})
    return before, before.model_copy(update={"at_seconds": 10.0})


def samples(token_ms: list[float | None]) -> ArmSamples:
    """One block per entry; None is a block in which the machine slept."""
    runs = [
        None if ms is None else [{"prefill": [10**7], "first": [10**7], "tokens": [int(ms * 1e6)] * 4}]
        for ms in token_ms
    ]
    return ArmSamples(blocks=runs, warm_loads=[0.1], cold_loads=[0.2], rss_peaks=[1 << 20])  # type: ignore[arg-type]


@pytest.fixture
def line(bundle: Bundle, machine: Machine) -> Any:
    """Makes the line of an arm: clean unless told otherwise."""

    def make(
        token_ms: list[float | None] | None = None,
        *,
        bandwidth: float = 1e12,
        placement: list[dict[str, Any]] | None = None,
        provider: str = "cpu",
        **after: Any,
    ) -> Measurement:
        found = Bandwidth(bandwidth, 1 << 20, 1, (bandwidth,))
        operators = {"time_by_op": [], "placement": placement or [CPU]}
        arm = MeasuredArm(
            bundle, samples(token_ms or [10.0] * 6), operators, Roofline(1_000_000, found, found)
        )
        start, end = quiet()
        states = (start, end.model_copy(update=after))
        return measurement_line(
            arm, Conditions(WORK, Protocol(blocks=6), 1, 1, provider, machine, *states, "edgepress")
        )

    return make


def test_a_clean_run_is_valid(line: Any) -> None:
    clean = line()
    assert (clean.validity.status, clean.validity.reasons) == ("valid", [])
    assert clean.metrics["decode_tps"].value == pytest.approx(100)
    assert clean.roofline["fraction"] == pytest.approx(1e-4)


@pytest.mark.parametrize("factor", [1.06, 1.1, 1.25, 1.5, 2, 3, 5, 10, 50, 1000])
def test_planted_rates_above_the_roof_are_invalid(line: Any, factor: float) -> None:
    found = line(bandwidth=100 * 1_000_000 / factor)
    assert found.validity.status == "invalid"
    assert found.validity.reasons[0].startswith("impossible")


def test_one_impossible_block_is_enough(line: Any) -> None:
    found = line([10.0] * 5 + [1.0], bandwidth=200 * 1_000_000)
    assert found.validity.status == "invalid"


@pytest.mark.parametrize("ops", [["MatMul"], ["Cast", "Softmax"], ["Attention"], ["Gelu"], ["MatMulNBits"]])
def test_planted_fallbacks_are_invalid_and_listed(line: Any, ops: list[str]) -> None:
    cuda = {**CPU, "provider": "CUDAExecutionProvider", "share": 0.9}
    found = line(placement=[cuda, {**CPU, "share": 0.1, "ops": ops}], provider="cuda")
    assert found.validity.status == "invalid"
    assert all(op in found.validity.reasons[0] for op in ops)


def test_shape_nodes_on_the_cpu_are_no_fallback(line: Any) -> None:
    cuda = {**CPU, "provider": "CUDAExecutionProvider", "share": 0.99}
    found = line(placement=[cuda, {**CPU, "share": 0.01, "ops": ["Shape"]}], provider="cuda")
    assert found.validity.status == "valid"


def test_times_of_a_gpus_nodes_say_that_they_are_the_processors(line: Any) -> None:
    cuda = [{**CPU, "provider": "CUDAExecutionProvider"}]
    assert "of a GPU what the processor does" in line(placement=cuda, provider="cuda").protocol["time_by_op"]
    assert "GPU" not in line().protocol["time_by_op"]


def test_a_node_that_computes_elsewhere_is_named_however_fast_it_is(line: Any) -> None:
    cuda = {**CPU, "provider": "CUDAExecutionProvider", "share": 0.999}
    names = [f"layers.{index}.norm" for index in range(10)]
    fell = {**CPU, "share": 0.001, "ops": ["Norm", "Shape"], "computing": names}
    found = line(placement=[cuda, fell], provider="cuda")
    assert found.validity.status == "invalid"
    assert "layers.0.norm" in found.validity.reasons[0] and "and 2 more" in found.validity.reasons[0]
    behind = [{**cuda, "provider": "TensorrtExecutionProvider"}, {**cuda, "share": 0.001, "computing": names}]
    assert line(placement=behind, provider="tensorrt").validity.status == "valid"


def test_doubts(line: Any) -> None:
    slept = line([10.0, None, *[10.0] * 5])
    assert slept.validity.status == "suspect"
    assert "slept during 1 of 7 blocks" in slept.validity.reasons[0]
    assert slept.protocol["runs_per_block"][1] is None
    few = line([10.0] * 4)
    assert few.validity.status == "suspect" and "only 4 blocks" in few.validity.reasons[0]
    wide = line([5.0, 20.0, 6.0, 19.0, 5.0, 21.0])
    assert wide.validity.status == "suspect" and "noisy" in wide.validity.reasons[0]


def test_a_disturbed_machine_is_a_doubt(line: Any) -> None:
    busy = read_state().cpu_busy_s + 1e6
    found = line(cpu_busy_s=busy)
    assert found.validity.status == "suspect"
    assert "other processes" in found.validity.reasons[0]
    assert found.state["between"]["other_cpu_pct"] > 10


def test_a_machine_that_slept_throughout_measured_nothing(line: Any) -> None:
    found = line([None] * 6)
    assert found.validity.status == "invalid"
    assert found.metrics["decode_tps"].value is None
    assert found.roofline["fraction"] is None
