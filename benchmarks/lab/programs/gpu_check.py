"""Everything that needs a GPU, on a machine with one and no network: the CUDA tests, and a short benchmark.

    python -m edgepress.benchmarks.lab.programs.gpu_check [benchmarks/lab/results] [--work DIRECTORY]
        [--model DIRECTORY] [--calibration FILE]

Under eight minutes; writes ``gpu-<card>.md``. Needs 4 GB of disk below the work directory, which it removes
in the end. The model is the demo's SmolLM2 and the text the demo's; where their packages are not installed,
name a Llama and a text file.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ....devices.nvidia import Gpu, read_gpus
from ....errors import EdgepressError, MissingDependency, require
from ....terminal import Progress, Terminal
from ..study.page import write_table

if TYPE_CHECKING:
    from .gpu_cases import DeviceCost

COMMAND = "make check-gpu"
ROOT = Path(__file__).parents[3]
GPTQ: dict[str, Any] = {
    "scheme": "W4A16",
    "group_size": 64,
    "calibration": "wikipedia",
    "samples": 16,
    "length": 512,
}
LIMIT = 480
HEADER = ["what", "quantity", "on the GPU", "on the CPU"]


@dataclass(frozen=True)
class GpuPlan:
    """What is measured, and on which device; the defaults are the check, other values serve its test.

    Attributes:
        model: the model compressed on both devices; wide_hidden, wide_ffn, wide_blocks: the size of the
            random Llama compressed on the device alone (the default has the blocks of a 7B model).
        provider: the execution provider of the profile, or None where the runtime lacks it.
    """

    device: str = "cuda"
    model: str = "smollm2"
    options: dict[str, Any] = field(default_factory=lambda: dict(GPTQ))
    wide_hidden: int = 4096
    wide_ffn: int = 11008
    wide_blocks: int = 3
    provider: str | None = "cuda"


def require_cuda() -> None:
    """Refuse before any work.

    Raises:
        MissingDependency: torch is not installed, or sees no CUDA device.
    """
    require("torch", "compress")
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        raise MissingDependency(
            "the GPU check needs a CUDA device, and torch sees none",
            why=f"torch {torch.__version__} is built for {f'CUDA {built}' if built else 'the CPU only'}",
            fix="run `make check-gpu` on a machine with an NVIDIA GPU and a torch built for CUDA; "
            "`edgepress doctor` shows what is here",
        )


def cuda_provider() -> str | None:
    """``cuda`` where the installed ONNX Runtime has that execution provider."""
    from ....runtime.session.session import PROVIDERS, onnxruntime

    return "cuda" if PROVIDERS["cuda"] in onnxruntime().get_available_providers() else None


def run_tests() -> tuple[bool, list[str]]:
    """Whether the CUDA tests pass, and their row."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "tests"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, file=sys.stderr, flush=True)
    lines = done.stdout.strip().splitlines() or ["no output"]
    return done.returncode == 0, ["`pytest -m cuda`", "outcome", lines[-1].strip("= "), "–"]


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

    line = profile_on(plan.provider, work / "device", work / "bundle", progress)
    rows = []
    for name in ("prefill_tps", "decode_tps", "ttft_ms"):
        metric = line.metrics[name]
        shown = "–" if metric.value is None else f"{metric.value:.1f}"
        rows.append([what, f"{name} ({line.validity.status})", shown, "–"])
    joules = {name: metric.value for name, metric in line.metrics.items() if metric.unit == "J/token"}
    rows += [[what, name, f"{value:.4f}", "–"] for name, value in joules.items() if value is not None]
    return rows + [[what, "energy", text.partition(": ")[2], "–"] for text in energy_remark(line)]


def card(gpus: list[Gpu]) -> tuple[str, str]:
    """``(file name part, note)`` of the first GPU."""
    if not gpus:
        return "unknown", "Card: `nvidia-smi` shows none"
    gpu = gpus[0]
    slug = re.sub(r"[^a-z0-9]+", "-", gpu.name.lower().removeprefix("nvidia ")).strip("-")
    memory = "unknown memory" if gpu.memory_mib is None else f"{gpu.memory_mib / 1024:.0f} GiB"
    power = "" if gpu.power_limit_w is None else f", power limit {gpu.power_limit_w:.0f} W"
    return slug, f"Card: {gpu.name}, {memory}, driver {gpu.driver or 'unknown'}{power}"


def check(results: Path, parent: Path | None, progress: Progress, wanted: GpuPlan | None = None) -> int:
    """Run everything and write the table; the exit code.

    Raises:
        MissingDependency: no CUDA device.
    """
    require_cuda()
    started = time.monotonic()
    passed, row = run_tests()
    plan, rows = replace(wanted or GpuPlan(), provider=cuda_provider()), [row]
    with tempfile.TemporaryDirectory(dir=parent, prefix="edgepress-gpu-") as work:
        for part in (both_devices, wide_blocks, profiled):
            rows += part(plan, Path(work), progress)
    seconds = time.monotonic() - started
    slug, note = card(read_gpus())
    notes = [
        note,
        f"Calibration: {plan.options['samples']} × {plan.options['length']} tokens of "
        f"{Path(plan.options['calibration']).name}. "
        "Seconds include reading, hashing and writing the model.",
        f"The whole check: {seconds:.0f} s (limit {LIMIT}: {'met' if seconds <= LIMIT else 'missed'}).",
    ]
    write_table(results / f"gpu-{slug}.md", "One GPU", COMMAND, HEADER, rows, notes)
    return 0 if passed and seconds <= LIMIT else 1


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    parser.add_argument("--work", type=Path, help="parent of the scratch directory")
    parser.add_argument("--model", default="smollm2", help="the Llama to compress")
    parser.add_argument("--calibration", default=GPTQ["calibration"], help="a text file, or a demo corpus")
    arguments = parser.parse_args()
    plan = GpuPlan(model=arguments.model, options=GPTQ | {"calibration": arguments.calibration})
    try:
        sys.exit(check(arguments.results, arguments.work, Terminal().progress, plan))
    except EdgepressError as error:
        print(f"error [{error.code}]: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
