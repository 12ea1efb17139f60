"""The parts of the GPU check: each gets a plan and a folder, and gives rows of the table. The device is the
plan's, so that every part but the server runs, and is tested, on a machine without a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ....errors import MissingDependency
from ....terminal.progress import Progress
from ...speed.protocol import Protocol

if TYPE_CHECKING:
    from ....devices.kernel_table.table import KernelTable
    from ...records.record import Measurement
    from .gpu_cases import DeviceCost

BUNDLE = "bundle"
GPTQ: dict[str, Any] = {
    "scheme": "W4A16",
    "group_size": 64,
    "calibration": "wikipedia",
    "samples": 16,
    "length": 512,
}


@dataclass(frozen=True)
class GpuPlan:
    """What is measured, and on which device; the defaults are the check, other values serve its test.

    Attributes:
        model: the model compressed on both devices; wide_hidden, wide_ffn, wide_blocks: the size of the
            random Llama compressed on the device alone (the default has the blocks of a 7B model).
        provider: the execution provider of profile and kernel table, or None where the runtime lacks it.
        tensorrt: that of the small Llama's bundle, in the same way.
        concurrency: requests at once, of the server.
    """

    device: str = "cuda"
    model: str = "smollm2"
    options: dict[str, Any] = field(default_factory=lambda: dict(GPTQ))
    wide_hidden: int = 4096
    wide_ffn: int = 11008
    wide_blocks: int = 3
    provider: str | None = "cuda"
    tensorrt: str | None = "tensorrt"
    concurrency: tuple[int, ...] = (1, 8, 32)


def gigabytes(size: int | None) -> str:
    """Bytes for a table; a dash where there are none."""
    return "–" if size is None else f"{size / 1e9:.2f}"


def cost_rows(what: str, there: DeviceCost, here: DeviceCost | None) -> list[list[str]]:
    """Seconds, seconds per block and peak VRAM of one compression."""
    return [
        [what, "seconds", f"{there.seconds:.1f}", f"{here.seconds:.1f}" if here else "–"],
        [
            what,
            "median seconds per block",
            f"{median(there.block_seconds):.2f}",
            f"{median(here.block_seconds):.2f}" if here else "–",
        ],
        [what, "peak VRAM, GB", gigabytes(there.peak_vram), "–"],
    ]


def both_devices(plan: GpuPlan, work: Path, progress: Progress) -> list[list[str]]:
    """One model compressed on the device and on the CPU, and the two results compared."""
    from .gpu_cases import compress_on, equal_codes, logits_agreement

    there = compress_on(plan.device, plan.model, work / "device", plan.options, progress)
    here = compress_on("cpu", plan.model, work / "cpu", plan.options, progress)
    what = f"{Path(plan.model).name}, GPTQ {plan.options['scheme']}-g{plan.options['group_size']}"
    difference, same = logits_agreement(work / "device", plan.device)
    return [
        *cost_rows(what, there, here),
        [what, "fraction of equal codes", f"{equal_codes(work / 'device', work / 'cpu'):.4%}", "reference"],
        ["torch logits of the result", "largest absolute difference", f"{difference:.2g}", "reference"],
        ["torch logits of the result", "same most likely token", f"{same:.2%}", "reference"],
    ]


def wide_blocks(plan: GpuPlan, work: Path, progress: Progress) -> list[list[str]]:
    """A few random blocks of the size of a large model, on the device alone."""
    from ..makers.random_llama import Size, save_random_llama
    from .gpu_cases import compress_on

    progress.note(f"writing {plan.wide_blocks} random blocks of hidden size {plan.wide_hidden}")
    size = Size(plan.wide_hidden, plan.wide_ffn, plan.wide_blocks)
    model = save_random_llama(work / "wide", size, plan.model)
    cost = compress_on(plan.device, str(model), work / "wide-out", plan.options, progress)
    what = f"random Llama, hidden {size.hidden}, ffn {size.ffn}, {size.blocks} blocks, GPTQ"
    return cost_rows(what, cost, None)


def profiled(plan: GpuPlan, work: Path, progress: Progress) -> list[list[str]]:
    """Speed and energy of the exported result through the runtime."""
    what = f"`edgepress profile --provider {plan.provider or 'cuda'} --quick`"
    if plan.provider is None:
        return [[what, "skipped", "this ONNX Runtime has no CUDA execution provider", "–"]]
    from ...page.account_table import energy_remark
    from .gpu_cases import profile_on

    line = profile_on(plan.provider, work / "device", work / BUNDLE, progress)
    rows = _speeds(what, line)
    joules = {name: metric.value for name, metric in line.metrics.items() if metric.unit == "J/token"}
    rows += [[what, name, f"{value:.4f}", "–"] for name, value in joules.items() if value is not None]
    return rows + [[what, "energy", text.partition(": ")[2], "–"] for text in energy_remark(line)]


def _speeds(what: str, line: Measurement) -> list[list[str]]:
    """What a profile measured, each with whether it is valid."""
    rows = []
    for name in ("prefill_tps", "decode_tps", "ttft_ms"):
        metric = line.metrics[name]
        shown = "–" if metric.value is None else f"{metric.value:.1f}"
        rows.append([what, f"{name} ({line.validity.status})", shown, "–"])
    return rows


def tensorrt(plan: GpuPlan, work: Path, progress: Progress) -> list[list[str]]:
    """A small Llama through TensorRT, which builds engines of a larger one for minutes: whether the export's
    proof passes, and a speed.
    """
    from ....compress.api import compress_model
    from ..makers.random_llama import Size, save_random_llama
    from .gpu_cases import profile_on

    what = "`edgepress profile --provider tensorrt`, a Llama of two blocks"
    missing = [what, "skipped", "this ONNX Runtime has no TensorRT, or not its libraries", "–"]
    if plan.tensorrt is None:
        return [missing]
    size = Size(128, 256, 2, "float32")
    model = save_random_llama(work / "small", size, plan.model)
    small = compress_model(str(model), scheme="W4A16-g64", output=work / "small-w4")
    once = Protocol(blocks=1, block_ms=1, warmup_seconds=0.0)
    try:
        line = profile_on(plan.tensorrt, small, work / "small-bundle", progress, once)
    except MissingDependency:
        return [missing]
    return _speeds(what, line)


def kernels(plan: GpuPlan, work: Path, progress: Progress) -> list[list[str]]:
    """The kernel table of the first GPU, and its fastest product."""
    what = "`edgepress devices measure --provider cuda`"
    if plan.provider is None:
        return [[what, "skipped", "this ONNX Runtime has no CUDA execution provider", "–"]]
    from ....devices.kernel_table.gpu import gpu_cases, gpu_key, measure_gpu

    table = measure_gpu(gpu_key(plan.provider), work / "kernels.json", progress)
    rates = [
        2e-12 * one.work[place] / one.seconds[place]
        for one in table.families
        for place in range(len(one.sizes))
    ]
    timed = f"{sum(len(one.sizes) for one in table.families)} of {len(gpu_cases())}"
    rows = [[what, "cases timed", timed, "–"], [what, "fastest, TFLOP/s", f"{max(rates):.1f}", "–"]]
    return rows + _as_predicted(table, work)


def _as_predicted(table: KernelTable, work: Path) -> list[list[str]]:
    """What the profile measured, in parts of what the table predicts of the same bundle."""
    from ....devices.predict.from_table import TablePrediction
    from ....devices.predict.subject import PredictedWork, bundle_subject
    from ....devices.predict.table_cost import NotMeasured
    from ...records.record import read

    record = (work / BUNDLE).with_suffix(".jsonl")
    if not record.exists():
        return []
    (line,) = read([record])
    subject = bundle_subject(work / BUNDLE)
    what, rows = "`edgepress predict --provider cuda`", []
    try:
        found = TablePrediction(subject, table, 1).predict(PredictedWork(), "edgepress profile BUNDLE")
    except NotMeasured as error:
        return [[what, "failed", error.what, "–"]]
    for name in ("prefill_tps", "decode_tps"):
        expected, measured = found.value(name), line.metrics[name].value
        if expected and measured:
            rows.append([what, f"{name}, measured ÷ predicted", f"{measured / expected:.2f}", "–"])
    return rows


def served(plan: GpuPlan, work: Path, progress: Progress) -> list[list[str]]:
    """The compressed model under load, by vLLM."""
    from ...serving.contract import engine, executable
    from ...serving.load import LoadAsked
    from ...serving.profile import profile_served

    levels = ",".join(map(str, plan.concurrency))
    what = f"`edgepress profile --engine vllm --concurrency {levels} --quick`"
    try:
        executable(engine("vllm"))
    except MissingDependency as error:
        return [[what, "skipped", f"{error.what}: {error.why}", "–"]]
    asked = LoadAsked(plan.concurrency, protocol=Protocol.quick())
    lines = profile_served(work / "device", "vllm", asked, progress=progress)
    rows = []
    for line in lines:
        where = f"{line.workload['concurrency']} at once, {line.runtime.get('device', 'unknown device')}"
        for name in ("output_tps", "ttft_ms", "tpot_ms"):
            value = line.metrics[name].value
            shown = "–" if value is None else f"{value:.1f}"
            rows.append([what, f"{name}, {where} ({line.validity.status})", shown, "–"])
    return rows
