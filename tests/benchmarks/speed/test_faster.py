"""The speed acceptance test around a made-up measurement, and each reason for a slow graph, planted alone."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.records import record
from edgepress.benchmarks.records.record import Measurement, Metric, Subject, Validity
from edgepress.benchmarks.speed import faster
from edgepress.benchmarks.speed.faster import slow_reasons
from edgepress.benchmarks.speed.protocol import Protocol
from edgepress.cli.entry import run
from edgepress.compress.api import compress_model
from edgepress.errors import GateFailed, InputError
from edgepress.export.api import export_bundle
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.bundle.graph_file import GraphFile, Node

pytestmark = pytest.mark.chain


Plant = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def w4(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("faster") / "w4"
    return compress_model(str(pico_llama), scheme="W4A16", group_size=32, output=output)


@pytest.fixture
def plant(
    monkeypatch: pytest.MonkeyPatch,
    make_latency: Callable[..., Measurement],
    make_subject: Callable[..., Subject],
    make_metric: Callable[..., Metric],
) -> Plant:
    """Replace the measurement by one with a given outcome; returns the calls that it got."""

    def install(verdict: str, ratio: float | None, reason: str = "", **changes: Any) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []
        interval = None if ratio is None else [ratio - 0.01, ratio + 0.01]
        compare = {"ratio_median": ratio, "ci95": interval, "verdict": verdict, "reason": reason}

        def profile(bundle: Path, *, baseline: Path, **options: Any) -> Measurement:
            opened = [Bundle.open(path) for path in (bundle, baseline)]
            calls.append({"schemes": [each.scheme for each in opened], "folder": bundle, **options})
            made = make_subject("W4A16-g32 rtn", 1)
            metrics = {"decode_tps": make_metric(9.0, 0)}
            compare["metric"] = "decode_tps"
            return make_latency(made, None, metrics, compare=compare, **changes)

        monkeypatch.setattr(faster, "profile_bundle", profile)
        return calls

    return install


def test_a_faster_bundle_is_published_and_its_line_recorded(
    w4: Path,
    plant: Plant,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    calls = plant("faster", 2.5)
    code = run(["export", str(w4), "-o", "out/bundle", "--no-validate", "--require-faster", "--json"])
    streams = capsys.readouterr()
    assert code == 0, streams.err
    [call] = calls
    assert call["schemes"] == ["W4A16-g32 rtn", "fp32"]
    assert (call["prompt_tokens"], call["new_tokens"]) == (64, 64)
    assert json.loads(streams.out)["faster_than_float"]["ratio_median"] == 2.5
    assert "2.50 × (2.49 – 2.51)" in streams.err
    [line] = record.read([tmp_path / "runs/bundle.jsonl"])
    assert line.compare is not None and line.compare["verdict"] == "faster"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bundle"]
    assert Bundle.open(tmp_path / "out/bundle").scheme == "W4A16-g32 rtn"


def test_a_slower_one_is_refused_with_the_reasons(
    w4: Path, plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant("slower", 0.8)
    run_file = tmp_path / "r.jsonl"
    arguments = ["--no-validate", "--require-faster", "--record", str(run_file), "-q", "--json"]
    assert run(["export", str(w4), "-o", str(tmp_path / "bundle"), *arguments]) == GateFailed.exit_code
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == GateFailed.code
    assert "not faster than float32 here: 0.80 × its decode_tps" in error["what"]
    assert "groups of 32 are small: the kernel reads" in error["why"]
    assert list(tmp_path.iterdir()) == []


def test_noise_is_no_pass(w4: Path, plant: Plant, tmp_path: Path) -> None:
    plant("invalid", 1.4, "noisy: the machine was disturbed")
    with pytest.raises(GateFailed, match=r"could not be shown .* \(1.40 × in the median\)") as caught:
        export_bundle(w4, output=tmp_path / "bundle", validate=False, gate=faster.require_faster)
    assert "noisy: the machine was disturbed" in str(caught.value)
    plant("faster", 9.0, validity=Validity(status="invalid", reasons=["impossible: above the ceiling"]))
    with pytest.raises(GateFailed, match="impossible"):
        export_bundle(w4, output=tmp_path / "bundle", validate=False, gate=faster.require_faster)
    assert list(tmp_path.iterdir()) == []


def test_float32_cannot_be_faster_than_itself(pico_llama: Path, plant: Plant, tmp_path: Path) -> None:
    calls = plant("faster", 2.0)
    with pytest.raises(InputError, match="is float32 already"):
        export_bundle(pico_llama, output=tmp_path / "bundle", gate=faster.require_faster)
    assert calls == [] and list(tmp_path.iterdir()) == []


def test_a_real_measurement_of_one_block_is_no_proof(w4: Path, tmp_path: Path) -> None:
    once = partial(faster.require_faster, protocol=Protocol(blocks=1, block_ms=1, warmup_seconds=0))
    with pytest.raises(GateFailed, match="could not be shown") as caught:
        export_bundle(w4, output=tmp_path / "bundle", validate=False, gate=once)
    assert "1 usable pairs" in str(caught.value) and "groups of 32 are small" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


VNNI = ("avx2", "avx512f", "avx512_vnni")
PACKED = {"N": 64, "K": 256, "bits": 4, "block_size": 128, "accuracy_level": 4}
BUSY = [{"op": "MatMulNBits", "share": 0.8}, {"op": "Softmax", "share": 0.2}]


def reasons(*nodes: Node, **changes: Any) -> list[str]:
    graph = GraphFile({f"n{index}": node for index, node in enumerate(nodes)})
    known: dict[str, Any] = {"isa": VNNI, "machine": "x86_64", "cache_bytes": 1 << 25, "float_bytes": 1 << 30}
    return slow_reasons(graph, **(known | {"time_by_op": BUSY} | changes))


def packed(**changes: int) -> Node:
    return Node("MatMulNBits", (), PACKED | changes)


def own(**changes: int) -> Node:
    attributes = {"bits": 4, "group": 128, "zero_points": 0, "scale_bits": 16, "shared": 1}
    return Node("QuantizedProduct", (), attributes | changes)


def test_nothing_to_say_of_a_good_graph() -> None:
    assert reasons(packed(), packed()) == []
    assert reasons(own(), own(bits=3), time_by_op=[{"op": "QuantizedProduct", "share": 0.8}]) == []


@pytest.mark.parametrize(
    "nodes, changes, expected",
    [
        ([packed(), packed(accuracy_level=0)], {}, "1 of 2 products compute on float activations"),
        ([packed(bits=2, block_size=256)], {}, "no integer kernel for 2 bits in groups of 256 (1 products)"),
        ([packed(block_size=16)], {}, "groups of 16 are small: the kernel reads 8 bits a weight where"),
        (
            [own(group=32)],
            {},
            "groups of 32 are small: the kernel reads 4.5 bits a weight where the codes have 4",
        ),
        (
            [own(bits=2, group=16, zero_points=1)],
            {},
            "the kernel reads 3.5 bits a weight where the codes have 2",
        ),
        ([packed()], {"isa": ("avx2",)}, "this CPU has no VNNI"),
        ([own()], {"isa": ("fma",)}, "this CPU has no AVX2"),
        ([packed()], {"isa": ("fma",)}, "this CPU has no AVX2"),
        ([packed()], {"isa": ("asimd",), "machine": "aarch64"}, "no dot product instructions"),
        ([Node("FusedMatMul", (), {})], {}, "1 of 1 products are in float32"),
        ([packed()], {"float_bytes": 1 << 20}, "1.0 MB of float32 weights fit the cache of 33.6 MB"),
        ([packed()], {"time_by_op": [{"op": "Softmax", "share": 0.9}]}, "matrix products are only 0 %"),
    ],
)
def test_one_reason_at_a_time(nodes: list[Node], changes: dict[str, Any], expected: str) -> None:
    [found] = reasons(*nodes, **changes)
    assert expected in found


def test_what_the_machine_does_not_tell_is_no_reason() -> None:
    assert reasons(packed(), isa=(), machine="aarch64", cache_bytes=None, time_by_op=[]) == []
