"""Whether two states of the code write the same bytes.

    python -m edgepress.benchmarks.lab.same_bytes run RECORD.json --folder FOLDER [--demo] [--only GLOB]
    python -m edgepress.benchmarks.lab.same_bytes compare --before RECORDS --after RECORDS [--page PAGE.md]

``run`` goes on where it was stopped. Both states need the same FOLDER, machine and versions: models and texts
in it are made once, and their paths stand in what is written.
"""

import argparse
import fnmatch
import json
import os
import sys
from pathlib import Path


def main() -> int:
    """The command line; 1 where records differ."""
    parser = argparse.ArgumentParser(prog="same_bytes", description="Hashes before and after a change.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="compress and export, and record hashes")
    run.add_argument("record", type=Path)
    run.add_argument("--folder", type=Path, required=True, help="models, texts and outputs; keep it")
    run.add_argument("--demo", action="store_true", help="the demo models in place of the pico ones")
    run.add_argument("--like", type=Path, help="only the cases that this record has")
    run.add_argument("--only", default="*", help="a glob on the names of cases, or keys, or commands")
    compare = verbs.add_parser("compare", help="exit code 1 where anything differs")
    compare.add_argument("--before", type=Path, nargs="+", required=True)
    compare.add_argument("--after", type=Path, nargs="+", required=True)
    compare.add_argument("--page", type=Path, help="a page of results to write")
    chosen = parser.parse_args()
    if chosen.verb == "compare":
        from .hash_comparison import compare_records

        return compare_records(chosen.before, chosen.after, chosen.page)
    return _run(chosen)


def _run(chosen: argparse.Namespace) -> int:
    # One thread each, so that sums are always in the same order.
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    import torch

    from .case_runner import Runner
    from .cases import demo_cases, pico_cases
    from .pico_families import MODELS
    from .pico_models import make_subjects

    torch.set_num_threads(1)
    folder = chosen.folder.resolve()
    make_subjects(folder, () if chosen.demo else MODELS)
    runner = Runner(folder, chosen.record)
    cases = demo_cases() if chosen.demo else pico_cases()
    known = json.loads(chosen.like.read_text(encoding="utf-8")) if chosen.like else None
    runner.run(
        [
            case
            for case in cases
            if fnmatch.fnmatch(case.name, chosen.only) and (known is None or case.name in known)
        ]
    )
    if not chosen.demo and fnmatch.fnmatch("keys", chosen.only):
        runner.run_keys()
    if not chosen.demo and fnmatch.fnmatch("commands", chosen.only):
        runner.run_commands()
    return 0


if __name__ == "__main__":
    sys.exit(main())
