"""How far data-sheet predictions of decoding are off: each measured machine is left out in turn.

    python -m edgepress.benchmarks.lab.programs.sheet_error

Every line of edgepress in ``results/raw/peers-*.jsonl`` gives the share of the bandwidth measured in its
round at which weights were read. A machine is predicted with the median share of the others; lines of large
and of small models apart. A machine is a processor with its extensions: virtual machines call several
generations by one name.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from ....devices.predict.data_sheet import LARGE, SHARES, size_of
from ....files.storage import lines_of

RAW = Path(__file__).parents[1] / "results" / "raw"
ENGINE = "edgepress_onnx"


def shares(lines: Iterable[dict[str, Any]]) -> tuple[str, dict[str, list[float]]]:
    """The machine of a run, and by size of the model the shares of its lines: tokens per second · bytes of a
    token ÷ bandwidth.
    """
    machine, results, rates = "", [], {}
    for line in lines:
        if line["kind"] == "run":
            cpu = line["machine"]["cpu"]
            machine = f"{cpu['model']} ({len(cpu['isa'])} extensions, last {cpu['isa'][-1]})"
        elif line["kind"] == "round":
            rates[line["round"]] = line["bandwidth"]
        elif line["kind"] == "result" and line["engine"] == ENGINE and not line["error"]:
            results.append(line)
    found: dict[str, list[float]] = {}
    for line in results:
        bandwidth = rates.get(line["round"], {}).get(str(line["threads"]))
        prompt = line["prompts"][0]
        if bandwidth and prompt["decode_s"]:
            rate = prompt["new_tokens"] / median(prompt["decode_s"])
            token = line["bytes_per_token"]
            found.setdefault(size_of(token), []).append(rate * token / bandwidth)
    return machine, found


def left_out(by_machine: dict[str, list[float]]) -> dict[str, list[float]]:
    """By machine: what each of its lines is off its prediction by, which is the median share of the other
    machines, as a part of it.
    """
    found = {}
    for machine, own in by_machine.items():
        others = [median(values) for name, values in by_machine.items() if name != machine]
        if others:
            found[machine] = [share / median(others) - 1 for share in own]
    return found


def nine_in_ten(errors: Iterable[float]) -> float:
    """The band within which nine in ten of ``errors`` lie."""
    sizes = sorted(map(abs, errors))
    return sizes[max(0, -(-9 * len(sizes) // 10) - 1)]


def by_size() -> dict[str, dict[str, list[float]]]:
    """The shares in the raw lines: by size of the model and machine."""
    found: dict[str, dict[str, list[float]]] = {size: defaultdict(list) for size in SHARES}
    for path in sorted(RAW.glob("peers-*.jsonl")):
        lines = [json.loads(line) for line in lines_of(path.read_text(encoding="utf-8"))]
        machine, shares_of = shares(line for line in lines if "kind" in line)
        for size, values in shares_of.items():
            found[size][machine] += values
    return found


def main() -> None:
    """Print the shares and the errors."""
    for size, by_machine in by_size().items():
        print(f"{size}: a token reads {'less' if size == 'small' else 'more'} than {LARGE / 1e6:.0f} MB")
        for machine, values in by_machine.items():
            spread = f"{median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"
            print(f"  {machine}: {len(values)} lines, share {spread}")
        print(f"  median of the machines: {median(median(values) for values in by_machine.values()):.2f}")
        errors = left_out(by_machine)
        for machine, values in errors.items():
            middle = median(map(abs, values))
            print(f"  {machine} left out: median {middle:.0%}, nine in ten within {nine_in_ten(values):.0%}")
        every = [error for values in errors.values() for error in values]
        print(f"  each left out: nine in ten within {nine_in_ten(every):.0%}")


if __name__ == "__main__":
    main()
