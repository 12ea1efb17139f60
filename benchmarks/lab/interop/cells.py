"""Cells of the matrix: a client opens an artifact of a family, and its answers are held against ours."""

import datetime
import json
import math
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any, cast

from ....plugins import load, names
from ..peers.workspace import Workspace
from .artifacts import OURS, Artifacts
from .claims import claimed
from .families import FAMILIES
from .kinds import TOWERS

CLIENTS = f"{__package__}.clients"
_TIMEOUT = 900  # seconds for a cell
_BEGIN, _END = 70, 160  # characters of a refusal that are shown
_PLACE = re.compile(r"/\S*/artifacts/")  # of this machine
_RANK = re.compile(r"^(\[rank\d+\]:\s*)+", re.M)  # which vLLM puts before each line
_ERROR = re.compile(r"[\w.]+(Error|InvalidArgument)\b.*:")


def clients() -> dict[str, ModuleType]:
    """By name, in alphabetical order."""
    return {name: load(CLIENTS, name, "client") for name in names(CLIENTS)}


@dataclass(frozen=True)
class Cell:
    """``difference`` is the largest of a number of the client's from ours, as a part of the largest of ours;
    ``tokens`` whether the greedy tokens are the same, None where the client gives none. With ``refusal``, the
    client's last words, there is neither. ``claimed`` is what :func:`.claims.claimed` finds. ``date`` is that
    of the measurement, ``packages`` the client's; ``seconds`` passed until it answered, its start included in
    the first of a process.
    """

    family: str
    artifact: str
    client: str
    difference: float | None = None
    tokens: bool | None = None
    refusal: str = ""
    claimed: bool | None = None
    date: str = ""
    packages: str = ""
    seconds: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def concerns(module: ModuleType, artifacts: Artifacts) -> list[str]:
    """The artifacts that the client opens; a cell each."""
    if artifacts.family not in getattr(module, "FAMILIES", FAMILIES):
        return []
    return [form for form in module.ARTIFACTS if artifacts.kind in module.KINDS and form in artifacts.forms]


def run_client(
    workspace: Workspace, name: str, module: ModuleType, chosen: Sequence[Artifacts]
) -> Iterator[Cell]:
    """The client's cells of the families ``chosen``, from one process of its environment; what it does not
    survive is a refusal, and the next process goes on behind it.
    """
    waiting = [(artifacts, form) for artifacts in chosen for form in concerns(module, artifacts)]
    worker = Path(__file__).with_name("worker.py")
    command = [str(workspace.python(name, module)), "-P", str(worker), name]
    made: dict[str, Any] = {
        "client": name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "packages": ", ".join(getattr(module, "NPM", module.PACKAGES)),
    }

    while waiting:
        begin = time.monotonic()
        for found in _replies(command, [_question(*cell) for cell in waiting]):
            seconds = round(time.monotonic() - begin, 2)
            artifacts, form = waiting.pop(0)
            measured = found if "refusal" in found else _measured(module, form, artifacts, found)
            says = claimed(artifacts.path(form), form, name)
            yield Cell(artifacts.family, form, **measured, claimed=says, seconds=seconds, **made)
            begin = time.monotonic()


def _replies(command: Sequence[str], questions: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The answers of a process as they come; the last is a refusal where it ends, or is silent for too long,
    before it has answered all.
    """
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as printed:
        asked.write("".join(f"{json.dumps(question)}\n" for question in questions).encode())
        asked.seek(0)
        process = subprocess.Popen(command, stdin=asked, stdout=subprocess.PIPE, stderr=printed)
        output, answered = cast(IO[bytes], process.stdout), 0
        try:
            while line := _line(output, process):
                found = json.loads(line)
                yield {"refusal": _last_words(found["refusal"])} if "refusal" in found else found
                answered += 1
            code = process.wait()
        finally:
            process.kill()
            output.close()
            process.wait()
        if answered < len(questions):
            printed.seek(0)
            yield {"refusal": _last_words(printed.read().decode(errors="replace")) or f"exit code {code}"}


def _line(output: IO[bytes], process: subprocess.Popen[bytes]) -> bytes:
    """The next of ``output``; empty where the process has ended, which it does when it is silent too long."""
    timer = threading.Timer(_TIMEOUT, process.kill)
    timer.start()
    try:
        return output.readline()
    finally:
        timer.cancel()


def _last_words(printed: str) -> str:
    """The error that ended a process, from its name on."""
    lines = [" ".join(line.split()) for line in _RANK.sub("", printed).splitlines() if line.strip()]
    begins = [number for number, line in enumerate(lines) if _ERROR.match(line)]
    said = _PLACE.sub("", " ".join(lines[begins[-1] if begins else -1 :]))
    return said if len(said) <= _BEGIN + _END else f"{said[:_BEGIN]} … {said[-_END:]}"


def _question(artifacts: Artifacts, form: str) -> dict[str, Any]:
    task = {key: value for key, value in artifacts.task().items() if key not in OURS}
    return {"artifact": str(artifacts.path(form).resolve()), "task": task}


def _measured(module: ModuleType, form: str, artifacts: Artifacts, found: dict[str, Any]) -> dict[str, Any]:
    task = artifacts.task()
    ours = task[getattr(module, "ASKED", OURS[0])][form]
    values = [_unit(row) for row in found["values"]] if artifacts.kind in TOWERS else found["values"]
    shapes = [[len(row) for row in rows] for rows in (values, ours["values"])]
    if shapes[0] != shapes[1]:
        return {"refusal": f"it gives rows of {shapes[0]} numbers, and ours have {shapes[1]}"}
    for text, ids, own in zip(
        task.get("written", []), found.get("ids", []), task.get("ids", []), strict=False
    ):
        if ids != own:
            return {"refusal": f"it reads {text!r} as the tokens {ids}, and ours are {own}"}
    return {
        "difference": _difference(values, ours["values"]),
        "tokens": found["tokens"] == ours["tokens"] if "tokens" in found else None,
    }


def _unit(row: list[float]) -> list[float]:
    """The direction of a tower's vector, which is what is compared."""
    length = math.hypot(*row)
    return [number / length for number in row]


def _difference(found: list[list[float]], ours: list[list[float]]) -> float:
    largest = max(abs(number) for row in ours for number in row)
    pairs = zip(found, ours, strict=True)
    return max(abs(one - other) for row, own in pairs for one, other in zip(row, own, strict=True)) / largest
