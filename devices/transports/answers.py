"""What a device answers, read as the text of a stranger: bounded in size, plain JSON, of exactly one form."""

import json
import re
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ...errors import (
    EdgepressError,
    InputError,
    MissingDependency,
    OutOfResource,
    OutputBusy,
    RefusedByPolicy,
)

LONGEST_LINE = 16 << 20
_MOST_BYTES = 1 << 50

Text = Annotated[str, StringConstraints(max_length=300)]
Size = Annotated[int, Field(ge=0, le=_MOST_BYTES)]


class Answer(BaseModel):
    """One answer: no field more or less, no type but the one that is named."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Form = TypeVar("Form", bound=Answer)


class Facts(Answer):
    """What a device says of itself before anything is sent there."""

    os: Text
    machine: Text
    bits: Annotated[int, Field(ge=8, le=128)]
    python: Annotated[str, StringConstraints(pattern=r"^\d{1,2}\.\d{1,3}\.\d{1,3}[a-z0-9+]{0,8}$")]
    implementation: Text
    libc: Text
    macos: Text
    processor: Text
    cpus: Annotated[int, Field(ge=1, le=1 << 16)]
    memory_total: Size
    memory_available: Size
    disk_free: Size
    clock: Annotated[float, Field(ge=0, le=1e11)] = Field(description="seconds since 1970, by its own clock")
    nvidia: bool = Field(False, description="whether there is a driver of NVIDIA's GPUs")

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor version of its Python."""
        major, minor = self.python.split(".")[:2]
        return int(major), int(minor)

    @property
    def glibc(self) -> tuple[int, int] | None:
        """Version of glibc; None on a system without it."""
        found = re.fullmatch(r"glibc (\d{1,3})\.(\d{1,3})(?:\.\d+)*", self.libc)
        return (int(found[1]), int(found[2])) if found else None


class Have(Answer):
    """Of each piece the bytes that are there, and whether they are all."""

    sizes: list[Size]
    whole: list[bool]


class Stored(Answer):
    """Whether the bytes are there and have their hash."""

    stored: bool


class Folder(Answer):
    """Where a folder lies on the device; "" where there is none."""

    path: Annotated[str, StringConstraints(max_length=4096)]


class Ready(Answer):
    """The program that measures has begun."""

    ready: bool


class Cleared(Answer):
    """Whether everything that was sent was deleted."""

    cleared: bool


class Fault(Answer):
    """Something failed there. Its way out is not the device's to say."""

    code: Text
    what: Annotated[str, StringConstraints(max_length=2000)] = ""
    why: Annotated[str, StringConstraints(max_length=2000)] = ""


def parse(line: bytes, who: str) -> dict[str, Any]:
    """One line as an object of JSON."""
    if len(line) > LONGEST_LINE:
        raise refused(who, f"a line of more than {LONGEST_LINE} bytes")
    try:
        found = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise refused(who, f"it is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise refused(who, f"it is no object: {str(found)[:80]}")
    return found


def read(answer: dict[str, Any], form: type[Form], who: str) -> Form:
    """``answer`` as ``form``."""
    if "error" in answer:
        raise typed(_as(answer["error"], Fault, who), who)
    return _as(answer, form, who)


def _as(answer: Any, form: type[Form], who: str) -> Form:
    try:
        return form.model_validate(answer)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:80]
        raise refused(who, f"{where}: {first['msg'][:200]}") from None


def typed(fault: Fault, who: str) -> EdgepressError:
    """A fault there as an error here: by its code, with this side's way out."""
    kinds = {kind.code: kind for kind in (OutOfResource, OutputBusy, InputError, RefusedByPolicy)}
    what = f"{who}: {fault.what}" if fault.what else f"{who} could not do what it was asked"
    if fault.code == OutOfResource.code:
        return OutOfResource(
            what, why=fault.why, fix=f"free some memory or disk on {who}, then run this again"
        )
    if fault.code == MissingDependency.code:
        return DeviceError(what, why=fault.why, fix=f"install the driver on {who}, or leave --provider out")
    if fault.code == OutputBusy.code:
        return OutputBusy(what, why=fault.why, fix="wait until the other has ended, then run this again")
    return kinds.get(fault.code, DeviceError)(what, why=fault.why)


class DeviceError(EdgepressError):
    """A device that cannot be reached, was lost in the middle, or cannot do what is asked of it."""

    code, exit_code = "E-DEVICE", 4
    way_out = (
        "see that `ssh` reaches it without a question, then run the same command again: what is there stays"
    )


def refused(who: str, why: str) -> RefusedByPolicy:
    """The error for an answer that is none."""
    return RefusedByPolicy(
        f"{who} answered with something that is no answer of edgepress",
        why=why,
        fix="nothing of it was used; see what the device's shell prints when a command is run over ssh",
    )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
