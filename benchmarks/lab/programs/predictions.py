"""Predictions against measurements, bundle by bundle: latency, first token, memory and disk.

    python -m edgepress.benchmarks.lab.programs.predictions BUNDLES WORK [RESULTS]

BUNDLES is a folder of bundles. For each number of threads a kernel table is made, in a process of its
own; then everything is predicted and written down; only then are the bundles measured, each in fresh
processes, from a copy that was just written. Each number has a table of its own, since what memory gives
moves by the hour on a shared machine. What is measured stays in WORK, so that a run that was stopped goes on.
"""

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ....devices.kernel_table.table import newest_table
from ....devices.predict.from_table import TablePrediction
from ....devices.predict.subject import PredictedWork, bundle_subject
from ....devices.predict.table_cost import NotMeasured
from ....files.storage import append_line, lines_of, write_json
from ....runtime.bundle.bundle import Bundle
from ...speed.latency import measure_arms, summarize_arm
from ...speed.profile_task import workload_of
from ...speed.protocol import Protocol
from ..study.child import run_module
from ..study.page import write_table

COMMAND = "python -m edgepress.benchmarks.lab.programs.predictions BUNDLES WORK"
TITLE = "Predictions from a kernel table, and what was measured"
WORK = PredictedWork(128, 64, 32)
PROTOCOL = Protocol(blocks=3, block_ms=600.0, warmup_seconds=0.5)
THREADS = (1, 2)
# The quantities, what each is called in the table, and the bars: of the median error, and of nine in ten.
BARS: dict[str, tuple[tuple[str, ...], float, float | None]] = {
    "decode": (("decode_tps",), 0.07, 0.15),
    "prefill": (("prefill_tps", "sentences_per_second"), 0.10, 0.20),
    "first": (("ttft_ms", "latency_ms"), 0.20, None),
    "memory": (("rss_peak_bytes",), 0.10, None),
    "disk": (("disk_bytes",), 0.10, None),
}
Values = dict[str, float]
BAND = "decode_band"
_PART = 8 << 20


def key(bundle: Path, threads: int) -> str:
    """A bundle with a number of threads."""
    return f"{bundle.name}, {threads} threads"


def make_table(work: Path) -> None:
    """Have a process of its own make the kernel table, whole."""
    os.environ["XDG_CONFIG_HOME"] = str(work / "configuration")
    for _ in range(3):
        table = newest_table("here")
        if table is not None and table.complete:
            return
        run_module("edgepress", ["devices", "measure", "-q"])


def predicted(bundles: Sequence[Path], threads: int) -> dict[str, Values | str]:
    """What the table says of every bundle, or why it says nothing; ``bands`` are of decoding."""
    table = newest_table("here")
    assert table is not None
    found: dict[str, Values | str] = {}
    for bundle in bundles:
        try:
            prediction = TablePrediction(bundle_subject(bundle), table, threads).predict(WORK, "")
        except NotMeasured as error:
            found[key(bundle, threads)] = error.what
            continue
        values = {one.name: one.value for one in prediction.quantities if one.value is not None}
        bands = [one.band for one in prediction.quantities if one.name == "decode_tps"]
        found[key(bundle, threads)] = {**values, **({BAND: bands[0]} if bands else {})}
    return found


def measured(bundle: Path, threads: int) -> Values:
    """The same quantities, measured."""
    opened = Bundle.open(bundle)
    workload = workload_of([opened], WORK.prompt_tokens, WORK.new_tokens, WORK.batch, PROTOCOL.seed)
    (arm,) = measure_arms([bundle], workload, PROTOCOL, threads=threads)
    metrics, _ = summarize_arm(arm, workload, seed=PROTOCOL.seed)
    found = {name: one.value for name, one in metrics.items() if one.value is not None}
    return {**found, "disk_bytes": float(sum(file.stat().st_size for file in bundle.rglob("*")))}


def just_written(bundle: Path, folder: Path) -> Path:
    """A copy whose files lie in the page cache as what is written in large parts does, the table's own among
    it: what was read from the disk may lie in single pages, from which weights come more slowly.
    """

    def written(source: str, target: str) -> None:
        with Path(source).open("rb") as old, Path(target).open("wb") as new:
            shutil.copyfileobj(old, new, _PART)

    copy = folder / bundle.name
    shutil.copytree(bundle, copy, copy_function=written)
    return copy


def errors(expected: Values, real: Values) -> dict[str, float]:
    """By bar: how far the prediction is from the measurement, as a part of it."""
    found = {}
    for bar, (names, _, _) in BARS.items():
        for name in names:
            if name in expected and name in real:
                found[bar] = expected[name] / real[name] - 1
    return found


def verdicts(every: Sequence[dict[str, float]]) -> list[str]:
    """A sentence for each bar: met or missed, with the numbers."""
    lines = []
    for bar, (_, middle, most) in BARS.items():
        sizes = sorted(abs(one[bar]) for one in every if bar in one)
        if not sizes:
            continue
        ninth = sizes[max(0, -(-9 * len(sizes) // 10) - 1)]
        met = median(sizes) <= middle and (most is None or ninth <= most)
        wanted = f"≤ {100 * middle:.0f} %" + ("" if most is None else f", nine in ten ≤ {100 * most:.0f} %")
        lines.append(
            f"{bar}: median error {100 * median(sizes):.1f} %, nine in ten within {100 * ninth:.1f} % of "
            f"{len(sizes)} (bar: {wanted}): {'met' if met else 'missed'}"
        )
    return lines


def by_threads(expected: dict[str, Any], real: dict[str, Values]) -> list[str]:
    """Decoding with each number of threads, and how many of the measurements lie within their band."""
    lines = []
    for threads in THREADS:
        names = [name for name in real if name.endswith(f", {threads} threads") and BAND in expected[name]]
        found = [errors(expected[name], real[name])["decode"] for name in names]
        if found:
            within = sum(
                abs(real[name]["decode_tps"] / expected[name]["decode_tps"] - 1) <= expected[name][BAND]
                for name in names
            )
            lines.append(
                f"decode, {threads} threads: median error {100 * median(map(abs, found)):.1f} %, of which "
                f"{sum(error > 0 for error in found)} of {len(found)} predicted too fast; {within} within "
                f"their band of ± {100 * expected[names[0]][BAND]:.0f} %"
            )
    return lines


def row(name: str, expected: Values | str, real: Values) -> list[str]:
    """A line of the table: predicted, measured and the error of each."""
    if isinstance(expected, str):
        return [name, expected, *[""] * (3 * (len(BARS) - 1) - 1)]
    cells = [name]
    for bar, error in errors(expected, real).items():
        if bar == "disk":
            continue
        one = next(name for name in BARS[bar][0] if name in expected)
        scale = 1e6 if one.endswith("bytes") else 1.0
        cells += [f"{expected[one] / scale:.4g}", f"{real[one] / scale:.4g}", f"{100 * error:+.1f} %"]
    return cells if len(cells) == 3 * (len(BARS) - 1) + 1 else [name, "", "", "", *cells[1:]]


def both(bundles: Sequence[Path], work: Path) -> tuple[dict[str, Any], dict[str, Values]]:
    """What is predicted of each of ``bundles`` with each number of threads, and what is measured; ``work``
    keeps what a run before this has found.
    """
    lines, expected = work / "measured.jsonl", dict[str, Any]()
    known = [json.loads(line) for line in lines_of(lines.read_text())] if lines.exists() else []
    real: dict[str, Values] = {one["key"]: one["values"] for one in known}
    for threads in THREADS:
        folder = work / f"{threads}-threads"
        make_table(folder)
        file = folder / "predicted.json"
        if not file.exists():
            write_json(file, predicted(bundles, threads))
        expected |= json.loads(file.read_bytes())
        for bundle in bundles:
            name = key(bundle, threads)
            if name not in real and name in expected:
                with tempfile.TemporaryDirectory(dir=work) as place:
                    real[name] = measured(just_written(bundle, Path(place)), threads)
                append_line(lines, json.dumps({"key": name, "values": real[name]}))
                print(name, expected[name], real[name], flush=True)
    return expected, real


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    bundles = sorted(path.parent for path in arguments.bundles.glob("*/manifest.json"))
    expected, real = both(bundles, arguments.work)
    every = [errors(expected[name], real[name]) for name in real if isinstance(expected[name], dict)]
    header = [
        "bundle",
        *(f"{bar} {part}" for bar in list(BARS)[:-1] for part in ("predicted", "measured", "error")),
    ]
    notes = [
        "decode in tok/s; prefill in tok/s, of encoders sentences of 128 tokens per second in batches of 32; "
        "first in ms: the first token after 128, or one sentence alone; memory in MB",
        *verdicts(every),
        *by_threads(expected, real),
    ]
    write_table(
        arguments.results / "predictions.md",
        TITLE,
        COMMAND,
        header,
        [row(name, expected[name], real[name]) for name in sorted(real)],
        notes,
        page=TITLE,
    )
    print("\n".join(notes))


if __name__ == "__main__":
    main()
