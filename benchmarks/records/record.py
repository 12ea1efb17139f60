"""``Measurement``: one JSON line per measurement. Every table and plot is a pure function of these lines.

A run is a ``.jsonl`` file, or a directory of them. Lines about the same artifact share
``subject.manifest_sha256``; a quality line and a latency line of one bundle are joined by it.
"""

import datetime
import json
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ... import __version__
from ...errors import InputError
from ...files.disk import disk_full_is_typed, make_folder, require_writable
from ...files.storage import append_line, canonical_json, lines_of, read_text
from .energy_record import Energy

SCHEMA = "edgepress.measurement/1"


class LearningCurve(BaseModel):
    """The held-out loss as a pass learned: before, at each measurement, and which of them was kept."""

    model_config = ConfigDict(extra="forbid")

    step: str = Field(description="name of the pass")
    measure: str = Field(description="kl or distance: what the losses are")
    tokens: list[int] = Field(min_length=1, description="learned from by each measurement")
    losses: list[float]
    kept: int = Field(ge=0, description="index of the measurement whose parameters were kept")

    @model_validator(mode="after")
    def _even(self) -> Self:
        if len(self.tokens) != len(self.losses) or self.kept >= len(self.losses):
            raise ValueError("a learning curve has as many losses as token counts, and keeps one of them")
        return self


class Subject(BaseModel):
    """The artifact that was measured."""

    model_config = ConfigDict(extra="forbid")

    name: str
    manifest_sha256: str = Field(description="identity: hash of the manifest, or of the checkpoint")
    kind: Literal["decoder", "encoder", "classifier"]
    format: Literal["hf", "onnx"]
    scheme: str = Field(description="'fp32', 'W4A16-g64 gptq', …")
    source: str = Field("", description="what it was made from, as it must be named in tables")
    params: int | None = None
    weight_bytes: int | None = None
    disk_bytes: int
    bytes_per_token: int | None = Field(None, description="weight bytes read to decode one token at batch 1")
    layers: list[dict[str, Any]] = Field(
        default_factory=list, description="per layer: name, scheme, status, error (relative output error)"
    )
    recipe: dict[str, Any] | None = None
    learning: list[LearningCurve] = Field(default_factory=list, description="of every pass that learned")


class Validity(BaseModel):
    """Whether the numbers may be used."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["valid", "suspect", "invalid"] = "valid"
    reasons: list[str] = Field(default_factory=list)

    @classmethod
    def of(cls, wrong: list[str], doubts: list[str]) -> Self:
        """Invalid for what is ``wrong`` and cannot be true; suspect for ``doubts``: it may not repeat."""
        return cls(status="invalid" if wrong else "suspect" if doubts else "valid", reasons=wrong + doubts)


class Metric(BaseModel):
    """A number with its spread. ``p90``/``p99`` are null when the count does not allow them."""

    model_config = ConfigDict(extra="forbid")

    value: float | None
    unit: str
    n: int
    better: Literal["lower", "higher"]
    ci95: tuple[float, float] | None = None
    mean: float | None = None
    sd: float | None = None
    mad: float | None = None
    min: float | None = None
    max: float | None = None
    p90: float | None = None
    p99: float | None = None
    reason: str = Field("", description="why value is null")
    validity: Validity | None = Field(None, description="of this metric alone, beside the line's")


class SampleAnswer(BaseModel):
    """What a model and its original say to one text: a greedy reply, nearest neighbours, or a label."""

    model_config = ConfigDict(extra="forbid")

    prompt: str
    original: str
    compressed: str


class Measurement(BaseModel):
    """One line. ``workload.kind`` is ``quality`` (validate), ``generate``, ``answer``, ``embed`` or ``see``
    (profile: decoders, encoder–decoders, encoders of texts and of images).

    Metric names: ``decode_tps prefill_tps ttft_ms tpot_ms load_ms e2e_ms``, under load also ``output_tps``,
    the tokens of all requests · ``sentences_per_second images_per_second latency_ms`` · ``rtfx``, seconds of
    sound in a second of work · ``rss_peak_bytes device_bytes`` ·
    ``decode_j_per_token decode_j_per_token_net prefill_j_per_token prefill_j_per_token_net`` ·
    ``prefill_j_per_input prefill_j_per_input_net batch_j_per_sentence batch_j_per_sentence_net
    batch_j_per_image batch_j_per_image_net`` · ``idle_w`` · ``perplexity bits_per_byte kl
    top1_agreement loops repetition distinct_2 reply_nats`` · ``cosine retrieval_at_1 reciprocal_rank
    neighbour_overlap spearman_sentences probe_accuracy spearman_wordsim353 spearman_simlex999``.
    """

    model_config = ConfigDict(extra="forbid")

    schema_: str = Field(SCHEMA, alias="schema")
    id: str = Field(default_factory=lambda: str(uuid.uuid4()))
    created_utc: str = Field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    )
    tool: dict[str, Any] = Field(default_factory=lambda: {"name": "edgepress", "version": __version__})
    command: str = Field("", description="the command that reproduces the line")
    subject: Subject
    baseline: Subject | None = Field(None, description="what quality is measured against, or the other arm")
    workload: dict[str, Any]
    runtime: dict[str, Any] = Field(default_factory=dict)
    device: dict[str, Any] = Field(default_factory=dict)
    state: dict[str, Any] = Field(default_factory=dict)
    protocol: dict[str, Any] = Field(default_factory=dict)
    samples: dict[str, list[float]] = Field(default_factory=dict)
    metrics: dict[str, Metric]
    answers: list[SampleAnswer] = Field(default_factory=list, description="a few of those of validate")
    compare: dict[str, Any] | None = Field(
        None, description="against the interleaved baseline: ratio_median, ci95, n_pairs, verdict"
    )
    roofline: dict[str, Any] | None = None
    time_by_op: list[dict[str, Any]] = Field(default_factory=list, description="op, ms, fraction of one run")
    per_op: dict[str, Any] | None = Field(
        None, description="of profile --per-op: bandwidth, and by phase the account of its time and bytes"
    )
    energy: Energy | None = Field(None, description="None in lines that never asked for it")
    validity: Validity = Field(default_factory=Validity)


def refuse_foreign(path: str | Path) -> None:
    """Check, before anything is measured, that lines may be added to the run file ``path``."""
    path = Path(path)
    if path.is_char_device():  # /dev/null forgets them
        return
    if not path.exists():
        require_writable(path)
        return
    begins = b""
    if path.is_file():
        with path.open("rb") as stream:
            begins = stream.readline(64 << 20)
    if not path.is_file() or (begins.strip() and b'"schema": "edgepress.' not in begins):
        raise InputError(
            f"{path} is no run file, and stays as it is",
            fix="name a .jsonl file that edgepress made, or one that is not there yet",
        )
    require_writable(path)


def append(path: str | Path, measurement: Measurement) -> None:
    """Add one line to a run file, creating it and its directory."""
    path = Path(path)
    line = json.dumps(
        measurement.model_dump(by_alias=True), sort_keys=True, ensure_ascii=False, allow_nan=False
    )
    make_folder(path.parent)
    with disk_full_is_typed(path):
        append_line(path, line)


def run_files(run: Path) -> list[Path]:
    """The run file ``run``, or those below a directory."""
    return sorted(run.rglob("*.jsonl")) if run.is_dir() else [run]


def read(runs: Iterable[Path]) -> list[Measurement]:
    """The measurements of run files or directories of them, in order."""
    lines: list[Measurement] = []
    for run in runs:
        before = len(lines)
        for file in run_files(run):
            lines += _read_file(file)
        if len(lines) == before:
            raise InputError(f"{run} holds no measurements", fix="make some with: edgepress profile BUNDLE")
    return lines


def _read_file(file: Path) -> list[Measurement]:
    try:
        texts = lines_of(read_text(file))
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        fix = "give a .jsonl file or a directory with one: validate and profile record theirs under runs/"
        raise InputError(f"cannot read measurements from {file}", why=why, fix=fix) from None
    found: list[Measurement] = []
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            found.append(_measurement(text))
        except ValueError as error:
            raise InputError(f"{file}:{number} is not a measurement", why=str(error)) from None
    return found


def _measurement(text: str) -> Measurement:
    try:
        found = Measurement.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))) from None
    canonical_json(found.model_dump())  # NaN and infinity are no JSON, though its readers take them
    return found


def learning_curves(steps: Sequence[dict[str, Any]]) -> list[LearningCurve]:
    """The curve of every step of a manifest that learned."""
    found = []
    for step in steps:
        details = step.get("details") or {}
        pairs = details.get("held_out")
        if not pairs or not details.get("tokens"):
            continue
        found.append(
            LearningCurve(
                step=str(step.get("pass")),
                measure=str(details.get("measure")),
                tokens=details["tokens"],
                losses=[loss for _, loss in pairs],
                kept=[number for number, _ in pairs].index(details.get("kept")),
            )
        )
    return found
