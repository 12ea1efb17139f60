"""Everything that needs a GPU, on a machine with one and no network: the CUDA tests, a short benchmark, a
kernel table, and vLLM and TensorRT where they are installed. A part that lasts longer than its time is
stopped, and the check has failed.

    python -m edgepress.benchmarks.lab.gpu.gpu_check [benchmarks/lab/results] [--work DIRECTORY]
        [--model DIRECTORY] [--calibration FILE]

Under eight minutes; writes ``gpu-<card>.md``. Needs 4 GB of disk below the work directory, which it removes
in the end. The model is the demo's SmolLM2 and the text the demo's; where their packages are not installed,
name a Llama and a text file.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ....devices.probe import Gpu, read_gpus
from ....errors import EdgepressError, GateFailed, MissingDependency, require
from ....terminal.progress import Progress, Terminal
from ..study.page import write_table
from .gpu_parts import GPTQ, GpuPlan, both_devices, kernels, profiled, served, tensorrt, wide_blocks
from .time_limit import within

COMMAND = "make check-gpu"
ROOT = Path(__file__).parents[3]
LIMIT = 480
# The parts share what is left of this, so that the table is written within the limit.
DEADLINE_S = 470.0
TESTS_S = 90.0
HEADER = ["what", "quantity", "on the GPU", "on the CPU"]


# Gets the plan and a folder, and gives rows of the table.
Part = Callable[[GpuPlan, Path, Progress], list[list[str]]]


def require_cuda() -> None:
    """Refuse before any work."""
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


def installed(provider: str) -> str | None:
    """``provider`` where the installed ONNX Runtime has it."""
    from ....runtime.session.session import PROVIDERS, onnxruntime

    return provider if PROVIDERS[provider] in onnxruntime().get_available_providers() else None


def run_tests() -> tuple[bool, list[str]]:
    """Whether the CUDA tests pass, and their row."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "tests"]
    what = "`pytest -m cuda`"
    try:
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False, timeout=TESTS_S
        )
    except subprocess.TimeoutExpired:
        return False, [what, "outcome", f"stopped after {TESTS_S:g} s", "–"]
    print(done.stdout, file=sys.stderr, flush=True)
    lines = done.stdout.strip().splitlines() or ["no output"]
    return done.returncode == 0, [what, "outcome", lines[-1].strip("= "), "–"]


# What is run after the tests, and how long it may take, if so much is left.
PARTS: tuple[tuple[Part, float], ...] = (
    (both_devices, 90.0),
    (wide_blocks, 60.0),
    (profiled, 110.0),
    (kernels, 55.0),
    (served, 150.0),
    (tensorrt, 60.0),
)


def run_parts(plan: GpuPlan, work: Path, progress: Progress, until: float) -> tuple[bool, list[list[str]]]:
    """Whether all parts ended without an error and in time, and their rows; one that did not has a row. Time
    is over at ``until`` of the monotonic clock.
    """
    whole, rows = True, list[list[str]]()
    for part, seconds in PARTS:
        name = part.__name__.replace("_", " ")
        try:
            left = until - time.monotonic()
            if left <= 0:
                raise GateFailed(f"no time was left of {DEADLINE_S:g} s")
            with within(min(seconds, left), name):
                rows += part(plan, work, progress)
        except EdgepressError as error:
            whole = False
            rows.append([name, "failed", " ".join(filter(None, (error.what, error.why)))[:300], "–"])
    return whole, rows


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
    """Run everything and write the table; the exit code."""
    require_cuda()
    started = time.monotonic()
    passed, row = run_tests()
    plan = replace(wanted or GpuPlan(), provider=installed("cuda"), tensorrt=installed("tensorrt"))
    rows = [row]
    with tempfile.TemporaryDirectory(dir=parent, prefix="edgepress-gpu-") as work:
        whole, found = run_parts(plan, Path(work), progress, started + DEADLINE_S)
    seconds = time.monotonic() - started
    slug, note = card(read_gpus())
    notes = [
        note,
        f"Calibration: {plan.options['samples']} × {plan.options['length']} tokens of "
        f"{Path(plan.options['calibration']).name}. "
        "Seconds include reading, hashing and writing the model.",
        f"The whole check: {seconds:.0f} s (limit {LIMIT}: {'met' if seconds <= LIMIT else 'missed'}).",
    ]
    write_table(results / f"gpu-{slug}.md", "One GPU", COMMAND, HEADER, [*rows, *found], notes)
    return 0 if passed and whole and seconds <= LIMIT else 1


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
