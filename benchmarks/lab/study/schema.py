"""``Study``: a page of results as data. Tables, each with its rows: a recipe or options, what it is made of,
what it is measured on, how it is exported and timed.

    title: SmolLM2-135M after training
    tables:
      - name: smollm2
        subject: smollm2
        calibration: {text: wikipedia, samples: 16, length: 512}
        held_out: [{windows: 8}]
        columns: [label, bits, quality, cpu_s]
        rows:
          - name: w{bits}-gptq
            for: {bits: [4, 3]}
            passes: [{pass: gptq, scheme: "W{bits}A16-g64"}]
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ....errors import InputError, UnknownName
from ....files.yaml_safe import load_yaml
from .matrix import expanded

FOLDER = Path(__file__).parents[1] / "studies"
# A name, or what a maker makes: {make: NAME, …}.
Source = str | dict[str, Any]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class CalibrationText(_Strict):
    """The text that passes read, and how much of it."""

    text: Source | list[Source] = Field("wikipedia", description="a corpus, a --text name, or made text")
    samples: int = 128
    length: int = Field(512, description="tokens of a sample")
    seed: int = Field(0, description="of the draw")


class HeldOut(_Strict):
    """A text that quality is measured on: development text, or the ``sealed`` one."""

    text: Source = "wikipedia"
    label: str = Field("", description="in the headings of its columns")
    windows: int | None = None
    length: int | None = Field(None, description="tokens of a window")
    sentences: int | None = None
    by: str = Field("", description="a maker that measures, instead of `edgepress validate`")
    against: str = Field("", description="a row to compare with instead of the original")
    metrics: list[str] = Field(min_length=1, description="columns of it, as in quality.py")


class Timing(_Strict):
    """What is timed interleaved, in rounds of several processes."""

    baseline: list[str] = Field(min_length=1, description="rows that the others are compared with")
    rounds: int = 6
    processes: int = 10
    prompts: list[int] = Field([128], description="tokens")
    new_tokens: int = 16
    pairs: bool = Field(False, description="each row with the baseline alone, or all bundles together")


class Bound(_Strict):
    """A sentence below the table: how far ``metric`` of ``row`` is from a bound."""

    row: str = Field(description="a row, or the beginning of the names of several with *")
    metric: str
    over: str = Field("", description="a row whose value it is divided by, or 'original'")
    minus: str = Field("", description="a row whose value is taken from it, or 'original'")
    at_most: float | None = None
    at_least: float | None = None
    within: float | None = Field(None, description="of zero, on both sides")


class Peer(_Strict):
    """A row that another tool makes."""

    kind: str = Field(description="pruners, quantizers or trainers")
    tool: str
    variant: str
    options: dict[str, Any] = Field({}, description="further entries of its job")


class StudyRow(_Strict):
    """One row of a table; without passes, recipe, options and peer it is the original, or the row
    ``after`` which it comes, exported in another way."""

    name: str
    label: str = ""
    subject: Source | None = None
    instead: Source | None = Field(None, description="a model that is measured beside the subject")
    calibration: CalibrationText | None = None
    after: str = Field("", description="the row whose checkpoint this one begins with")
    passes: list[dict[str, Any]] = []
    recipe: str = Field("", description="a packaged recipe")
    options: str = Field("", description="of `edgepress compress` instead of a recipe")
    export: str = Field("", description="options of `edgepress export`")
    timed: bool = True
    peer: Peer | None = None

    @property
    def original(self) -> bool:
        """Whether it is the subject itself."""
        return not (self.made or self.after or self.instead)

    @property
    def made(self) -> bool:
        """Whether it has a checkpoint of its own, and not that of its subject or of the row before."""
        return bool(self.passes or self.recipe or self.options or self.peer)


class StudyTable(_Strict):
    """Rows that stand below each other."""

    name: str
    title: str
    subject: Source
    calibration: CalibrationText = CalibrationText()
    held_out: list[HeldOut]
    recipe: dict[str, Any] = Field({}, description="keys of every recipe beside its passes")
    teacher_logits: bool = Field(False, description="keep them on disk for all rows")
    threads: int = 1
    validated: str = Field("checkpoint", pattern="^(checkpoint|bundle)$")
    export: str = ""
    timing: Timing | None = None
    profile: str | None = Field(None, description="options of `edgepress profile` beside the original")
    baseline: str = Field("", description="the row whose KL `removed` refers to; the best above if empty")
    columns: list[str]
    curves: bool = Field(False, description="write the held-out loss of passes that learn below the table")
    targets: list[Bound] = []
    notes: list[str] = []
    rows: list[StudyRow] = Field(min_length=1)

    @property
    def times(self) -> list[str]:
        """The rows whose KL columns divide by."""
        return [name.partition(":")[2] for name in self.columns if name.startswith("times:")]


class Study(_Strict):
    """A page."""

    name: str
    title: str
    notes: list[str] = []
    tables: list[StudyTable] = Field(min_length=1)


def names() -> list[str]:
    """The studies of the lab."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_study(name: str) -> Study:
    """The study in ``studies/NAME.yaml``."""
    if name not in names():
        raise UnknownName("study", name, names())
    return parse(load_yaml((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), source=name), name)


def parse(data: Any, name: str) -> Study:
    """A study from parsed YAML, its matrices of rows written out."""
    if not isinstance(data, Mapping):
        raise InputError(f"study {name} is not a mapping", fix="it has the keys title, notes and tables")
    try:
        study = Study.model_validate({"name": name, **expanded(dict(data), name)})
    except ValidationError as error:
        raise _explained(error, name) from None
    for table in study.tables:
        found = [row.name for row in table.rows]
        twice = sorted({row for row in found if found.count(row) > 1})
        if twice:
            raise InputError(f"study {name}, table {table.name}: two rows are called {twice[0]!r}")
        asked = [(row.name, row.after) for row in table.rows if row.after]
        asked += [("timing", row) for row in (table.timing.baseline if table.timing else [])]
        asked += [("times", row) for row in table.times]
        for asking, row in asked:
            if row not in found:
                raise UnknownName(f"row (study {name}, table {table.name}, {asking})", row, found)
    return study


def _explained(error: ValidationError, name: str) -> InputError:
    # A misspelt key also makes the right one missing; the misspelling is what to show.
    first = min(error.errors(), key=lambda entry: entry["type"] != "extra_forbidden")
    key = ".".join(map(str, first["loc"]))
    if first["type"] != "extra_forbidden":
        return InputError(f"study {name}: {key}: {first['msg']}", fix=f"correct that key of {name}.yaml")
    known = sorted({field for kind in _Strict.__subclasses__() for field in kind.model_fields} | {"for"})
    near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    return InputError(f"study {name}: unknown key {key!r}", fix=hint)
