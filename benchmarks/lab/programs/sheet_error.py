"""How far data-sheet predictions of decoding are off: each measured machine is left out in turn.

    python -m edgepress.benchmarks.lab.programs.sheet_error

Every line of edgepress in ``results/raw/peers-*.jsonl`` gives the share of the bandwidth measured in its
round at which weights were read. A machine is predicted with the median share of the others.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

RAW = Path(__file__).parents[1] / "results" / "raw"
ENGINE = "edgepress_onnx"


def shares(lines: Iterable[dict[str, Any]]) -> tuple[str, list[float]]:
    """The machine of a run, and the shares of its lines: tokens per second · bytes of a token ÷ bandwidth."""
    machine, results, rates = "", [], {}
    for line in lines:
        if line["kind"] == "run":
            machine = line["machine"]["cpu"]["model"]
        elif line["kind"] == "round":
            rates[line["round"]] = line["bandwidth"]
        elif line["kind"] == "result" and line["engine"] == ENGINE and not line["error"]:
            results.append(line)
    found = []
    for line in results:
        bandwidth = rates.get(line["round"], {}).get(str(line["threads"]))
        prompt = line["prompts"][0]
        if bandwidth and prompt["decode_s"]:
            rate = prompt["new_tokens"] / median(prompt["decode_s"])
            found.append(rate * line["bytes_per_token"] / bandwidth)
    return machine, found


def left_out(by_machine: dict[str, list[float]]) -> dict[str, list[float]]:
    """By machine: the error of each of its lines, predicted with the median share of the other machines."""
    found = {}
    for machine, own in by_machine.items():
        others = [median(values) for name, values in by_machine.items() if name != machine]
        if others:
            found[machine] = [median(others) / share - 1 for share in own]
    return found


def main() -> None:
    """Print the shares and the errors."""
    by_machine: dict[str, list[float]] = defaultdict(list)
    for path in sorted(RAW.glob("peers-*.jsonl")):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        machine, found = shares(line for line in lines if "kind" in line)
        if machine and found:
            by_machine[machine] += found
    for machine, values in by_machine.items():
        spread = f"{median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"
        print(f"{machine}: {len(values)} lines, share {spread}")
    print(f"median of the machines: {median(median(values) for values in by_machine.values()):.2f}")
    for machine, values in left_out(by_machine).items():
        sizes = sorted(abs(value) for value in values)
        ninth = sizes[max(0, -(-9 * len(sizes) // 10) - 1)]
        print(f"{machine} left out: median error {median(sizes):.0%}, nine in ten within {ninth:.0%}")


if __name__ == "__main__":
    main()
