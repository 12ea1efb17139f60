"""``Submission``: a kernel table that someone else has measured, of a machine of the catalogue.

A submission is a file ``submissions/NAME.json``; adding one is adding the file. What it measures takes
the place of what a data sheet claims, and is marked as measured, with the file's name.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ...errors import InputError
from ...files.storage import read_json
from ..target import Figure, Target
from .table import MOST_BYTES, KernelTable

FOLDER = Path(__file__).parents[1] / "submissions"
# Of the files, for editors and for who checks one without edgepress.
SCHEMA = "submission.schema.json"
_Words = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[\x20-\x7e]*$")]


class Submission(BaseModel):
    """One file; its table has the form of those that ``edgepress devices measure`` keeps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal["edgepress.submission/1"] = Field(alias="schema")
    target: _Words = Field(description="its name in the catalogue")
    machine: _Words = Field(description="what was measured, as its maker sells it")
    sender: _Words = Field(description="who measured: a name, or a link")
    table: KernelTable


def read_submission(path: Path) -> Submission:
    """The submission in ``path``."""
    try:
        found = Submission.model_validate(read_json(path, limit=2 * MOST_BYTES))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:80]
        raise InputError(f"{path} is no submission", why=f"{where}: {first['msg'][:200]}") from None
    if not found.table.complete or not found.table.bandwidth:
        raise InputError(f"{path} is no submission", why="its kernel table is not complete")
    return found


def submissions(target: str, folder: Path = FOLDER) -> dict[str, Submission]:
    """Those of ``target`` by the name of their file, the newest first."""
    files = [path for path in sorted(folder.glob("*.json")) if path.name != SCHEMA]
    found = {path.name: read_submission(path) for path in files}
    of = [(name, one) for name, one in found.items() if one.target == target]
    return dict(sorted(of, key=lambda pair: pair[1].table.created_utc, reverse=True))


def measured(claimed: Target, folder: Path = FOLDER) -> Target:
    """``claimed`` with the bandwidth that its newest submission measured, where it has one."""
    found = next(iter(submissions(claimed.name, folder).items()), None)
    if found is None:
        return claimed
    file, one = found
    largest = max(reading.working_set for reading in one.table.bandwidth)
    rate = max(reading.bytes_per_second for reading in one.table.bandwidth if reading.working_set == largest)
    note = f"measured on {one.machine} by {one.sender}, in place of {claimed.bandwidth.value:g} GB/s"
    source = f"measured: submissions/{file}"
    figure = Figure(value=round(rate / 1e9, 1), unit="GB/s", source=source, confidence="high", note=note)
    return claimed.model_copy(update={"bandwidth": figure})
