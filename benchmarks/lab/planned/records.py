"""The finished cases of ``programs/planned_and_taken.py``, kept beside the pages: what was planned, what it
took, and what the whole model would take where only some of its blocks were measured.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ....files.storage import lines_of, write_atomic
from .cases import BLOCKS, CASES, SHAPES, SMALL, Taken

FILE = Path("raw/planned-and-taken.jsonl")


@dataclass
class Record:
    """What a case took, and its ``plan``: JSON of ``--dry-run``, empty where the verb has none. ``whole`` is
    the plan of the model with all its blocks where ``taken`` is of some. ``date`` is of the measurement.
    """

    taken: Taken
    plan: dict[str, Any]
    whole: dict[str, Any] = field(default_factory=dict)
    date: str = ""
    machine: str = ""

    @property
    def place(self) -> tuple[int, int, int]:
        """Where it stands: by the size, by how many blocks, by the case."""
        size, _, blocks = self.taken.model.partition(BLOCKS)
        return list(SHAPES).index(size), int(blocks or 0), CASES.index(self.taken.case)

    @property
    def processor(self) -> str:
        """The processor's name, first of what is said of a machine."""
        return self.machine.partition(",")[0]

    @property
    def key(self) -> tuple[int, int, int, str]:
        """What one record is kept of: the small model is measured on one machine after the other."""
        return *self.place, self.processor if self.taken.model == SMALL else ""

    @property
    def carried_on(self) -> Taken | None:
        """What the whole model would take; None where it was measured, or there is no plan to go by.

        Memory and disk: what was measured, and what the plan of all blocks has more than that of these. Time:
        in the ratio of both plans.
        """
        taken, plan, whole = self.taken, self.plan, self.whole
        if not plan or not whole:
            return None
        times = whole["seconds"] / plan["seconds"]
        return replace(
            taken,
            model=taken.model.partition(BLOCKS)[0],
            peak=taken.peak + whole["peak_memory"] - plan["peak_memory"],
            cpu_seconds=taken.cpu_seconds * times,
            wall_seconds=0.0,
            disk=taken.disk + whole["disk"] - plan["disk"],
            parts={},
        )


def read_records(results: Path) -> list[Record]:
    """All that are kept below ``results``, in the order of the pages."""
    path = results / FILE
    lines = lines_of(path.read_text(encoding="utf-8")) if path.exists() else []
    found = [Record(**{**(line := json.loads(one)), "taken": Taken(**line["taken"])}) for one in lines]
    return sorted(found, key=lambda one: one.place)


def keep_records(results: Path, records: Iterable[Record]) -> list[Record]:
    """Put ``records`` in the place of those of the same models and cases (the small model's: of the same
    processor); returns all.
    """
    kept = {one.key: one for one in (*read_records(results), *records)}
    every = [kept[key] for key in sorted(kept)]
    path = results / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(f"{json.dumps(asdict(one))}\n" for one in every).encode())
    return every
