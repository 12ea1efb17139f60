"""The GPU check without a GPU: it refuses before any work, and every case runs with the CPU as its device."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from edgepress.benchmarks.lab.gpu import gpu_cases, gpu_check
from edgepress.benchmarks.lab.gpu.gpu_cases import BlockTimes, equal_codes, profile_on
from edgepress.benchmarks.lab.gpu.gpu_check import card, check, run_parts
from edgepress.benchmarks.lab.gpu.gpu_parts import (
    GpuPlan,
    both_devices,
    kernels,
    profiled,
    served,
    tensorrt,
    wide_blocks,
)
from edgepress.benchmarks.speed.protocol import Protocol
from edgepress.compress.api import compress_model
from edgepress.devices.kernel_table import gpu
from edgepress.devices.probe import Gpu
from edgepress.errors import InputError, MissingDependency
from edgepress.terminal.progress import Progress, Silent

from ....devices.kernel_table.tables import small_table

pytestmark = pytest.mark.chain


@pytest.fixture
def plan(pico_llama: Path, pico_text: Path) -> GpuPlan:
    options = {"scheme": "W4A16", "group_size": 32, "calibration": str(pico_text)}
    return GpuPlan(
        device="cpu",
        model=str(pico_llama),
        options={**options, "samples": 8, "length": 32},
        wide_hidden=64,
        wide_ffn=128,
        wide_blocks=2,
    )


def test_refuses_before_any_work_without_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu_check, "run_tests", lambda: pytest.fail("work was done"))
    with pytest.raises(MissingDependency, match="check-gpu") as caught:
        check(tmp_path, tmp_path, Silent())
    assert caught.value.exit_code == 4 and list(tmp_path.iterdir()) == []


def test_one_device_against_itself_agrees_in_everything(plan: GpuPlan, tmp_path: Path) -> None:
    rows = {row[1]: row[2:] for row in both_devices(plan, tmp_path, Silent())}
    assert rows["fraction of equal codes"] == ["100.0000%", "reference"]
    assert rows["same most likely token"][0] == "100.00%"
    assert float(rows["largest absolute difference"][0]) == 0
    assert float(rows["seconds"][0]) > 0 and rows["peak VRAM, GB"] == ["–", "–"]


def test_codes_of_two_roundings_differ(plan: GpuPlan, tmp_path: Path) -> None:
    rounded = compress_model(plan.model, scheme="W4A16-g32", output=tmp_path / "rtn")
    solved = compress_model(plan.model, output=tmp_path / "gptq", **plan.options)
    coarse = compress_model(plan.model, scheme="W2A16-g32", output=tmp_path / "coarse")
    assert 0.1 < equal_codes(rounded, solved) < 0.99
    with pytest.raises(InputError, match="equal set"):
        equal_codes(rounded, coarse)


def test_wide_blocks_are_timed(plan: GpuPlan, tmp_path: Path) -> None:
    rows = wide_blocks(plan, tmp_path, Silent())
    assert all("hidden 64, ffn 128, 2 blocks" in row[0] for row in rows)
    assert [row[1] for row in rows] == ["seconds", "median seconds per block", "peak VRAM, GB"]


def test_block_times_ignore_other_tasks() -> None:
    times = BlockTimes(Silent())
    with times.task("compressing blocks", 2) as task:
        task.advance(0)  # a fresh sweep resumes after no block
        task.advance(1)
        task.advance(1)
    with times.task("hashing the model", 1) as task:
        task.advance(1)
    assert len(times.seconds) == 2 and min(times.seconds) >= 0


def test_profile_of_the_exported_result(plan: GpuPlan, tmp_path: Path) -> None:
    compressed = compress_model(plan.model, scheme="W4A16-g32", output=tmp_path / "device")
    quick = Protocol(blocks=1, block_ms=1, warmup_seconds=0)
    line = profile_on("cpu", compressed, tmp_path / "bundle", Silent(), quick)
    assert {"prefill_tps", "decode_tps", "ttft_ms"} <= set(line.metrics)
    assert line.metrics["decode_tps"].value and line.command.startswith("edgepress profile bundle")


def test_a_runtime_without_the_provider_says_so(plan: GpuPlan, tmp_path: Path) -> None:
    for part in (profiled, kernels, tensorrt):
        (row,) = part(GpuPlan(provider=None, tensorrt=None), tmp_path, Silent())
        assert row[1] == "skipped" and "this ONNX Runtime has no" in row[2]
    (row,) = tensorrt(replace(plan, tensorrt="tensorrt"), tmp_path, Silent())
    assert row[1] == "skipped", "it is known, and not installed"


def test_the_small_llama_is_exported_proven_and_timed(plan: GpuPlan, tmp_path: Path) -> None:
    rows = tensorrt(replace(plan, tensorrt="cpu"), tmp_path, Silent())
    assert [row[1].split()[0] for row in rows] == ["prefill_tps", "decode_tps", "ttft_ms"]
    assert all(float(row[2]) > 0 for row in rows)
    proof = json.loads((tmp_path / "small-bundle" / "manifest.json").read_text())["parity"]
    assert proof["status"] == "passed"


def test_a_bundle_is_of_the_provider_that_measures_it(
    plan: GpuPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[tuple[str, str]]()
    monkeypatch.setattr(
        gpu_cases, "export_bundle", lambda checkpoint, **how: asked.append(("export", how["provider"]))
    )
    monkeypatch.setattr(
        gpu_cases, "profile_bundle", lambda bundle, **how: asked.append(("profile", how["provider"]))
    )
    profile_on("cuda", tmp_path / "small", tmp_path / "bundle", Silent())
    assert asked == [("export", "cuda"), ("profile", "cuda")]


def test_the_table_of_kernels_is_held_against_the_profile(
    plan: GpuPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = compress_model(plan.model, scheme="W4A16-g32", output=tmp_path / "small")
    quick = Protocol(blocks=1, block_ms=1, warmup_seconds=0)
    profile_on("cpu", checkpoint, tmp_path / "bundle", Silent(), quick)
    monkeypatch.setattr(gpu, "gpu_key", lambda provider: small_table().key)
    monkeypatch.setattr(gpu, "measure_gpu", lambda key, path, progress: small_table())
    rows = kernels(replace(plan, provider="cpu"), tmp_path, Silent())
    ratios = {row[1]: float(row[2]) for row in rows if "predict" in row[0]}
    assert set(ratios) == {"prefill_tps, measured ÷ predicted", "decode_tps, measured ÷ predicted"}
    assert all(ratio > 0 for ratio in ratios.values())


def test_without_vllm_its_row_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRESS_VLLM", "/nowhere/vllm")
    (row,) = served(GpuPlan(), tmp_path, Silent())
    assert row[1] == "skipped" and "vLLM is not installed" in row[2]


def test_no_part_begins_when_the_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late_part(plan: GpuPlan, work: Path, progress: Progress) -> list[list[str]]:
        pytest.fail("it was begun")

    monkeypatch.setattr(gpu_check, "PARTS", ((late_part, 60.0),))
    whole, rows = run_parts(GpuPlan(), tmp_path, Silent(), time.monotonic())
    assert not whole and rows[0][:2] == ["late part", "failed"] and "no time was left" in rows[0][2]
    assert gpu_check.DEADLINE_S < gpu_check.LIMIT


def test_a_part_has_no_more_time_than_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_part(plan: GpuPlan, work: Path, progress: Progress) -> list[list[str]]:
        threading.Event().wait(60)
        return []

    monkeypatch.setattr(gpu_check, "PARTS", ((slow_part, 60.0),))
    whole, rows = run_parts(GpuPlan(), tmp_path, Silent(), time.monotonic() + 0.05)
    assert not whole and "slow part was stopped after" in rows[0][2]


def test_a_part_that_lasts_too_long_or_fails_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_part(plan: GpuPlan, work: Path, progress: Progress) -> list[list[str]]:
        threading.Event().wait(60)
        return []

    def wrong_part(plan: GpuPlan, work: Path, progress: Progress) -> list[list[str]]:
        raise InputError("no model", why="of this name")

    def good_part(plan: GpuPlan, work: Path, progress: Progress) -> list[list[str]]:
        return [["good", "", "", ""]]

    monkeypatch.setattr(gpu_check, "PARTS", ((slow_part, 0.05), (wrong_part, 60), (good_part, 60)))
    whole, rows = run_parts(GpuPlan(), tmp_path, Silent(), time.monotonic() + 60)
    assert not whole
    assert [row[:3] for row in rows] == [
        ["slow part", "failed", "slow part was stopped after 0.05 s"],
        ["wrong part", "failed", "no model of this name"],
        ["good", "", ""],
    ]


@pytest.mark.parametrize(
    ("gpus", "slug", "words"),
    [
        ([], "unknown", "shows none"),
        (
            [
                Gpu(
                    name="NVIDIA L40S",
                    memory_mib=46068,
                    driver="570.1",
                    power_limit_w=350,
                    ecc=None,
                    mig=None,
                )
            ],
            "l40s",
            "45 GiB, driver 570.1, power limit 350 W",
        ),
    ],
)
def test_the_card_names_the_file(gpus: list[Gpu], slug: str, words: str) -> None:
    name, note = card(gpus)
    assert name == slug and words in note


def test_the_whole_check_writes_its_table(
    plan: GpuPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything but the tests and the profile, in the order of the real check."""
    row = ["`pytest -m cuda`", "outcome", "3 passed", "–"]
    monkeypatch.setattr(gpu_check, "require_cuda", lambda: None)
    monkeypatch.setattr(gpu_check, "run_tests", lambda: (True, row))
    monkeypatch.setattr(gpu_check, "installed", lambda provider: None)
    monkeypatch.setattr(gpu_check, "read_gpus", list)
    monkeypatch.setenv("EDGEPRESS_VLLM", "/nowhere/vllm")
    assert check(tmp_path / "results", tmp_path, Silent(), plan) == 0
    text = (tmp_path / "results" / "gpu-unknown.md").read_text(encoding="utf-8")
    assert "3 passed" in text and "fraction of equal codes" in text and "make check-gpu" in text
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
