"""``KernelTable``: what was measured on a machine, with its provenance, as a small JSON file.

Tables come from other machines, too: a file is read as a stranger's text, of exactly one form and bounded in
size, and every number in it is finite and in its place.

Where kernel tables are kept: in the user's configuration, a folder for each machine, a file for each
key.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from ...errors import InputError
from ...files.disk import make_folder
from ...files.storage import canonical_json as canonical
from ...files.storage import read_json, sha256_json, write_atomic
from ..own_devices import configuration
from .operation import AXES

MOST_BYTES = 4 << 20
Text = Annotated[str, StringConstraints(max_length=200, pattern=r"^[\x20-\x7e]*$")]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=1 << 50)]
Threads = Annotated[int, Field(ge=1, le=4096)]
HERE = "here"


class _Part(BaseModel):
    """Exactly these fields, of exactly these types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Key(_Part):
    """What a table holds for: another of these is another table."""

    processor: Text
    flags: list[Text] = Field(max_length=64)
    runtime: Text = Field(description="ONNX Runtime's version")
    provider: Text
    kernels: Text = Field(description="instructions that edgepress's own operators use; none without them")

    @property
    def digest(self) -> str:
        """A file name."""
        return sha256_json(self.model_dump())[:16]


class Family(_Part):
    """One operator of one form at several sizes, read from near or far.

    Attributes:
        seconds: the median of the passes, divided by the nodes of a pass; ``least`` the shortest.
    """

    op: Text
    form: Text
    features: list[Text] = Field(max_length=8)
    kind: Text
    reach: Literal["near", "far"]
    threads: Threads
    sizes: list[list[Annotated[int, Field(ge=1, le=1 << 40)]]] = Field(max_length=1000)
    read: list[Count]
    moved: list[Count]
    work: list[Count]
    seconds: list[Seconds]
    least: list[Seconds]

    @model_validator(mode="after")
    def _is_even(self) -> Family:
        lists = (self.read, self.moved, self.work, self.seconds, self.least)
        if self.kind not in AXES or any(len(one) != len(self.sizes) for one in lists):
            raise ValueError("a family has a known kind, and as many numbers of each sort as sizes")
        if any(len(one) != len(AXES[self.kind]) for one in self.sizes):
            raise ValueError(f"sizes of {self.kind} are along {AXES[self.kind]}")
        if len({tuple(one) for one in self.sizes}) != len(self.sizes):
            raise ValueError("a size is there twice")
        return self

    @property
    def whole(self) -> bool:
        """Whether every combination of its sizes was measured."""
        return prod(len(set(axis)) for axis in zip(*self.sizes, strict=True)) == len(self.sizes)


class Reading(_Part):
    """Bytes per second from memory of ``working_set`` bytes."""

    threads: Threads
    working_set: Count
    bytes_per_second: Rate


class Streamed(Reading):
    """The rate at which products of one row read weights, at one of several moments; and what the caches have
    lost by then: seconds of a small node ``between`` them, and of a ``token`` in Python after them.
    """

    between: Seconds
    token: Seconds


class Fixed(_Part):
    """What a run costs beside its kernels, with so many threads: each run, bound value, node, and ``call``
    of the runtime from Python.
    """

    threads: Threads
    run: Seconds
    value: Seconds
    node: Seconds
    call: Seconds


class KernelTable(_Part):
    """All of one machine's. ``complete`` is false for one whose measurement was stopped."""

    schema_: Literal["edgepress.kernel-table/1"] = Field("edgepress.kernel-table/1", alias="schema")
    key: Key
    machine: Text = Field(description="the name that its owner gives it; here for this machine")
    tool: Text
    created_utc: Text
    took: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
    busy_percent: Annotated[float, Field(ge=0, le=100)] | None = Field(description="of others, before")
    complete: bool
    reach_bytes: Count = Field(description="near is below the first, far beyond the second", default=0)
    start: Seconds | None = Field(None, description="from nothing to a process that can open a bundle")
    resident: Count = Field(0, description="bytes of memory of that process")
    disk_bytes_per_second: Rate | None = None
    choose: Seconds | None = Field(None, description="the largest of a million numbers")
    fixed: list[Fixed] = Field(default_factory=list, max_length=16)
    bandwidth: list[Reading] = Field(default_factory=list, max_length=200)
    streams: list[Streamed] = Field(default_factory=list, max_length=2000)
    families: list[Family] = Field(default_factory=list, max_length=4000)

    @property
    def threads(self) -> list[int]:
        """Numbers of threads that were measured."""
        return sorted({one.threads for one in self.fixed})

    @property
    def made_by(self) -> str:
        """The command that makes it, or goes on with it."""
        words = ["edgepress devices measure", *([] if self.machine == "here" else [self.machine])]
        return " ".join([*words, *([] if self.key.provider == "cpu" else ["--provider", self.key.provider])])


def read_table(path: Path) -> KernelTable:
    """The table in ``path``."""
    data = read_json(path, limit=MOST_BYTES)
    try:
        return KernelTable.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:80]
        raise InputError(
            f"{path} is no kernel table",
            why=f"{where}: {first['msg'][:200]}",
            fix="delete it, and measure again: edgepress devices measure",
        ) from None


def write_table(path: Path, table: KernelTable) -> None:
    """Write atomically; equal tables have equal bytes."""
    make_folder(path.parent)
    write_atomic(path, (canonical(table.model_dump(by_alias=True, mode="json")) + "\n").encode())


def now() -> str:
    """This moment in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def tables_of(machine: str, provider: str = "cpu") -> Path:
    """The folder of a machine's tables; those of a GPU are apart from the processor's."""
    folder = configuration().parent / "kernels" / machine
    return folder if provider == "cpu" else folder / provider


def keep_table(machine: str, table: KernelTable) -> Path:
    """Keep a table that another machine made; its file."""
    path = tables_of(machine, table.key.provider) / f"{table.key.digest}.json"
    write_table(path, table.model_copy(update={"machine": machine}))
    return path


def machines() -> list[str]:
    """Names of machines that have tables."""
    folder = tables_of(HERE).parent
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def forget_tables(machine: str) -> bool:
    """Delete what is known of ``machine``; whether there was anything."""
    known = machine in machines()  # a name, and no way to another folder
    if known:
        shutil.rmtree(tables_of(machine), ignore_errors=True)
    return known


def newest_table(machine: str, provider: str = "cpu") -> KernelTable | None:
    """The table that was made last for ``provider`` of ``machine``; None where there is none."""
    found = [read_table(path) for path in sorted(tables_of(machine, provider).glob("*.json"))]
    return max(found, key=lambda table: table.created_utc, default=None)
