"""``profile --on``: measures bundles on devices that ssh reaches, with the protocol that measures here.

The far end is :mod:`.far_end`, of this very package. What it says is read as a stranger's text: a line counts
only where it is a measurement of the bundle and the workload that were asked for. Rounds are kept as they
come, so that a run that was cut short goes on.

A measurement that another machine made, read as a stranger's text.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError

from ... import __version__
from ...devices.kernel_table.plan import LIMIT_S
from ...devices.kernel_table.table import KernelTable
from ...devices.own_devices import OwnDevice
from ...devices.probe import Machine
from ...devices.state import State
from ...devices.transports.answers import LONGEST_LINE, Answer, parse, read, refused
from ...devices.transports.sending import Prepared, prepare
from ...devices.transports.ssh import Link
from ...errors import InputError, RefusedByPolicy
from ...files.disk import disk_full_is_typed, make_folder
from ...files.storage import append_line, cache_directory, canonical_json, lines_of, open_regular, sha256_json
from ...runtime.bundle.bundle import Bundle
from ...terminal.progress import Progress
from ..records import record as records
from ..records.bundle_subject import describe_bundle
from ..records.record import Measurement
from .profile_task import workload_of
from .protocol import Protocol
from .sitting import SETTLE_S

MODULE = f"{__package__}.far_end"
_Count = Annotated[float, Field(ge=0, le=1e9)]
_Words = Annotated[str, StringConstraints(max_length=2000)]
MOST_LINES = 10_000


class Message(Answer):
    """One line of the far end: one of these."""

    task: _Words | None = None
    total: _Count = 1
    advance: _Count | None = None
    detail: _Words = ""
    note: _Words | None = None
    round: list[dict[str, Any]] | None = None
    line: dict[str, Any] | None = None
    table: dict[str, Any] | None = None
    done: bool = False


@dataclass(frozen=True)
class Request:
    """What is measured, wherever: the bundle, perhaps a baseline, and the options of ``profile``."""

    bundles: tuple[Path, ...]
    protocol: Protocol
    options: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    settle_s: float = SETTLE_S


def profile_on(device: OwnDevice, request: Request, progress: Progress) -> list[Measurement]:
    """Measure on ``device``; the lines, the baseline's first where there is one."""
    bundles = [Bundle.open(path) for path in request.bundles]
    with Link(device.name, device.ssh) as link:
        prepared = prepare(link, bundles, progress, request.options.get("provider", "cpu"))
        kept = Kept(device, prepared, bundles, request)
        link.become(prepared.environment, MODULE)
        link.send(
            {
                "bundles": list(prepared.bundles),
                "protocol": asdict(request.protocol),
                "options": request.options,
                "settle_s": request.settle_s,
                "done": kept.rounds(),
            }
        )
        lines = _listen(link, kept, progress)
    checked = [_checked(line, bundles, device, request) for line in lines]
    if {line.subject.manifest_sha256 for line in checked} != {one.manifest_sha256 for one in bundles}:
        raise refused(device.name, "its lines are not one for each bundle")
    kept.forget()
    return checked


def measure_kernels_on(
    device: OwnDevice, progress: Progress, provider: str = "cpu", *, limit_s: float = LIMIT_S
) -> KernelTable:
    """Have ``device`` make its kernel table, of its processor or of the GPU of ``provider``; raises as
    :func:`profile_on`.
    """
    with Link(device.name, device.ssh) as link:
        prepared = prepare(link, [], progress, provider)
        link.become(prepared.environment, MODULE)
        link.send({"kernels": limit_s, "provider": provider})
        found = _listen(link, None, progress)
    try:
        (table,) = (KernelTable.model_validate(one) for one in found)
    except ValueError as error:
        raise refused(device.name, str(error)[:300]) from None
    return table


def _listen(link: Link, kept: Kept | None, progress: Progress) -> list[dict[str, Any]]:
    """The lines or the table, once all was said; rounds are kept and progress is shown meanwhile."""
    lines: list[dict[str, Any]] = []
    task: Any = None
    with ExitStack() as shown:
        while True:
            message = read(link.receive(), Message, link.name)
            if message.task is not None:
                shown.close()
                task = shown.enter_context(progress.task(f"{link.name}: {message.task}", message.total))
            elif message.advance is not None and task is not None:
                task.advance(message.advance)
            elif message.note is not None:
                progress.note(f"{link.name}: {message.note}")
            elif message.round is not None and kept is not None:
                kept.add(message.round)
            elif (said := message.line or message.table) is not None:
                lines.append(said)
            if len(lines) > 2:
                raise refused(link.name, "it says more measurements than were asked for")
            if message.done:
                return lines


class Kept:
    """The rounds of a run that was cut short, in a file of the cache that is named by all they depend on."""

    def __init__(
        self, device: OwnDevice, prepared: Prepared, bundles: Sequence[Bundle], request: Request
    ) -> None:
        stable = prepared.facts.model_dump(exclude={"memory_available", "disk_free", "clock"})
        what = [
            device.name,
            stable,
            prepared.environment,
            [bundle.manifest_sha256 for bundle in bundles],
            asdict(request.protocol),
            request.options,
        ]
        self._path = cache_directory() / "unfinished" / f"{sha256_json(what)}.jsonl"
        self._most = 1000 + request.protocol.blocks

    def rounds(self) -> list[Any]:
        """Those of an earlier call, but for one that a kill tore."""
        if not self._path.exists():
            return []
        found = []
        for line in lines_of(self._path.read_text(encoding="utf-8", errors="replace")):
            with suppress(ValueError):
                found.append(json.loads(line))
        return found

    def add(self, found: list[dict[str, Any]]) -> None:
        """One more; a device cannot fill this machine's disk."""
        self._most -= 1
        if self._most < 0:
            raise InputError("a device says more rounds than any measurement has")
        make_folder(self._path.parent)
        with disk_full_is_typed(self._path):
            append_line(self._path, json.dumps(found))

    def forget(self) -> None:
        """The run is whole."""
        self._path.unlink(missing_ok=True)


def _checked(
    found: dict[str, Any], bundles: list[Bundle], device: OwnDevice, request: Request
) -> Measurement:
    """A line of the device as one of ours: everything that is known here is as it is known here."""
    line, machine = foreign_line(found, device.name)
    subjects = {bundle.manifest_sha256: bundle for bundle in bundles}
    bundle = subjects.get(line.subject.manifest_sha256)
    if bundle is None or line.subject != describe_bundle(bundle):
        raise refused(device.name, f"it measured {line.subject.name[:80]}, which was not sent")
    known = [describe_bundle(one) for one in bundles]
    prompt, new, batch = (request.options[name] for name in ("prompt_tokens", "new_tokens", "batch"))
    work = workload_of(bundles, prompt, new, batch, request.protocol.seed).describe(bundle)
    if (line.baseline is not None and line.baseline not in known) or line.workload != work:
        raise refused(device.name, "it measured another workload than was asked for")
    ours = {
        "id": str(uuid.uuid4()),
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "tool": {"name": "edgepress", "version": __version__},
        "command": request.command,
        "device": {**machine.model_dump(mode="json"), "name": device.name},
    }
    return line.model_copy(update=ours)


def foreign_line(found: dict[str, Any], who: str) -> tuple[Measurement, Machine]:
    """``found`` as a measurement of speed, with the machine that it was made on."""
    try:
        line = Measurement.model_validate(found)
        machine = Machine.model_validate_json(json.dumps(line.device))
        for moment in ("before", "after"):
            State.model_validate(line.state[moment])
        canonical_json(line.model_dump())  # an infinite number is no JSON
    except (ValidationError, KeyError, ValueError, RecursionError) as error:
        raise refused(who, str(error)[:300]) from None
    return line, machine


def _line(text: bytes, file: Path, number: int) -> Measurement:
    """One line of ``file``, whose refusal says where it stands."""
    try:
        return foreign_line(parse(text, file.name), file.name)[0]
    except RefusedByPolicy as error:
        raise RefusedByPolicy(
            f"{file}, line {number}, is no measurement of edgepress",
            why=error.why,
            fix="nothing was added: copy the record that the kit wrote again, whole and as it is",
        ) from None


def import_lines(file: Path, record: Path | None, name: str | None = None) -> tuple[list[Measurement], Path]:
    """Add the lines of ``file`` that ``record`` lacks to it; by default the run file of what was measured.
    The machine that they were made on is called ``name`` where there is one.

    Returns:
        The lines that were added, and the run file.
    """
    lines: list[Measurement] = []
    if not file.exists():
        raise InputError(f"there is no file {file}", fix="give what a kit wrote, or a meter's log")
    with open_regular(file) as stream:
        while text := stream.readline(LONGEST_LINE + 1):
            if text.strip():
                lines.append(_line(text, file, len(lines) + 1))
            if len(lines) > MOST_LINES:
                raise InputError(f"{file} has more than {MOST_LINES} lines")
    if not lines:
        raise InputError(
            f"{file} holds no measurements", fix="run the kit's start file, and copy record.jsonl"
        )
    plain = "".join(one if one.isalnum() or one in "-_." else "-" for one in lines[0].subject.name[:80])
    record = record or Path("runs") / f"{plain.lstrip('.') or 'imported'}.jsonl"
    records.refuse_foreign(record)
    known = {line.id for line in records.read([record])} if record.exists() else set()
    added = [line for line in lines if line.id not in known]
    if name is not None:
        added = [line.model_copy(update={"device": {**line.device, "name": name}}) for line in added]
    for line in added:
        records.append(record, line)
    return added, record
