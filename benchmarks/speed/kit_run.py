"""Runs a kit's measurement on the machine that it was carried to, and writes one record file; and a kernel
table, for predictions.

``python -m edgepress.benchmarks.speed.kit_run KIT``
"""

import sys
from pathlib import Path

from ...devices.kernel_table.measure import measure_kernels
from ...devices.kernel_table.table import write_table
from ...devices.probe import probe
from ...errors import EdgepressError
from ...files.storage import read_json
from ...terminal.progress import Lines
from .profile import profile_bundle
from .protocol import Protocol
from .sitting import Sitting

RECORD, TABLE = "record.jsonl", "kernels.json"


def main(kit: Path) -> int:
    """Measure the kit's bundle; the exit code of what went wrong."""
    try:
        plan = read_json(kit / "kit.json")
        line = profile_bundle(
            kit / "bundle",
            protocol=Protocol(**plan["protocol"]),
            record=kit / RECORD,
            command=plan["command"],
            progress=Lines(),
            sitting=Sitting(plan["settle_s"]),
            **plan["options"],
        )
        status = "; ".join([line.validity.status, *line.validity.reasons])
        print(f"{status}\nwritten: {kit / RECORD}\nwhere the kit was made: edgepress devices import {RECORD}")
        if plan.get("kernels_s") and probe().emulated:
            print("its kernels were not timed: this processor is emulated, and no prediction may rest on it")
        elif plan.get("kernels_s"):
            table, _ = measure_kernels(Lines(), folder=kit / "cache" / "kernels", limit_s=plan["kernels_s"])
            write_table(kit / TABLE, table)
            print(f"written: {kit / TABLE}\nthere: edgepress devices import {TABLE} --name NAME")
    except EdgepressError as error:
        print(f"error [{error.code}]: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
