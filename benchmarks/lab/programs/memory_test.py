"""Peak memory of a compression against the plan's prediction, on a random-weight Llama of 2 GB.

    python -m edgepress.benchmarks.lab.programs.memory_test [benchmarks/lab/results] [--work DIRECTORY]

Needs 5 GB of disk below the work directory, which it removes in the end.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ..study.child import Cost, run_module
from ..study.page import write_table

COMMAND = "python -m edgepress.benchmarks.lab.programs.memory_test"
SHAPE = ("--hidden", "2048", "--ffn", "5632", "--blocks", "22")
LIMIT = 1.2e9
TOLERANCE = 0.15

RECIPES = {
    "rtn": "--scheme W4A16 --group-size 128",
    "gptq": "--scheme W4A16 --group-size 128 --calibration wikipedia --samples 8 --length 512",
}


def predicted_peak(model: Path, options: str) -> int:
    """Peak bytes that ``--dry-run`` predicts."""
    command = [sys.executable, "-m", "edgepress", "compress", str(model), *shlex.split(options)]
    done = subprocess.run([*command, "--dry-run", "--json"], capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout)["peak_memory"])


def row(name: str, options: str, predicted: int, cost: Cost) -> list[str]:
    """A line of the table, with its verdicts."""
    error = predicted / cost.peak_rss - 1
    met = cost.peak_rss < LIMIT and abs(error) <= TOLERANCE
    return [
        name,
        f"`{options}`",
        f"{predicted / 1e9:.3f}",
        f"{cost.peak_rss / 1e9:.3f}",
        f"{error:+.1%}",
        f"{cost.wall_seconds:.0f}",
        "met" if met else "missed",
    ]


def measure(work: Path) -> tuple[list[list[str]], int]:
    """The rows of the table, and the bytes of the model's weights."""
    model = work / "model"
    run_module("edgepress.benchmarks.lab.makers.random_llama", [str(model), *SHAPE])
    rows = []
    for name, options in RECIPES.items():
        output = work / "out"
        predicted = predicted_peak(model, options)
        cost = run_module("edgepress", ["compress", str(model), *shlex.split(options), "-o", str(output)])
        shutil.rmtree(output)
        rows.append(row(name, options, predicted, cost))
    return rows, sum(file.stat().st_size for file in model.glob("*.safetensors"))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, help="parent of the scratch directory")
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.work, prefix="edgepress-memory-") as work:
        rows, weight_bytes = measure(Path(work))
    write_table(
        arguments.results / "compression-cost.md",
        "Peak memory of a compression",
        COMMAND,
        ["pass", "options", "predicted GB", "measured GB", "prediction error", "wall s", "target"],
        rows,
        [
            f"Model: Llama, random bfloat16 weights, {' '.join(SHAPE)}, {weight_bytes / 1e9:.2f} GB on disk.",
            f"Target: peak resident set below {LIMIT / 1e9:.1f} GB, predicted within {TOLERANCE:.0%}.",
            "Measured: ru_maxrss of the whole process, interpreter and libraries included.",
        ],
        page="What a compression costs",
    )
    sys.exit(1 if any(line[-1] == "missed" for line in rows) else 0)


if __name__ == "__main__":
    main()
