"""The raw lines of a comparison of decoders: one for the run, one a round, one for each process."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ....errors import InputError
from ....files.storage import lines_of
from ...records.summary import bootstrap_ci, medians

SCHEMA = "edgepress.peers/1"


class RunLine(BaseModel):
    """The first line: what was run, and where."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["run"] = "run"
    schema_: str = Field(SCHEMA, alias="schema")
    subject: str
    title: str
    command: str
    date: str
    machine: dict[str, Any]
    settings: dict[str, Any]


class RoundLine(BaseModel):
    """The machine in one round: bandwidth in bytes per second by number of threads, measured right before and
    after our default row (the better counts), and what disturbed it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["round"] = "round"
    round: int
    bandwidth: dict[int, float]
    disturbance: dict[str, float | None]
    reasons: list[str]


class PromptTimes(BaseModel):
    """The passes over one prompt, in seconds: to the first token, and from there to the last."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt_tokens: int = Field(ge=1)
    new_tokens: int = Field(ge=2)
    prefill_s: list[Annotated[float, Field(gt=0)]] = Field(min_length=1)
    decode_s: list[Annotated[float, Field(gt=0)]] = Field(min_length=1)
    tokens: list[int]
    rss_bytes: int

    @property
    def prefill(self) -> list[float]:
        """Tokens per second of each pass."""
        return [self.prompt_tokens / seconds for seconds in self.prefill_s]

    @property
    def decode(self) -> list[float]:
        """Tokens per second of each pass."""
        return [(self.new_tokens - 1) / seconds for seconds in self.decode_s]


class EngineResult(BaseModel):
    """One process of one engine. ``error`` is empty when it worked, and the numbers are there then."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["result"] = "result"
    engine: str
    variant: str
    label: str
    bits: int
    head_bits: int
    threads: int
    round: int
    error: str = ""
    load_s: float | None = None
    first_token_s: float | None = None
    peak_rss_bytes: int | None = None
    artifact_bytes: int | None = None
    bytes_per_token: int | None = None
    prompts: list[PromptTimes] = Field(default_factory=list)
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Engine and variant."""
        return self.engine, self.variant


# Of a rate: rounds are added until the interval of each is so narrow to either side.
WITHIN = 0.05

Line = Annotated[RunLine | RoundLine | EngineResult, Field(discriminator="kind")]
_LINE: TypeAdapter[RunLine | RoundLine | EngineResult] = TypeAdapter(Line)


def append(path: Path, line: BaseModel) -> None:
    """Add one line to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(line.model_dump(mode="json", by_alias=True), sort_keys=True, allow_nan=False)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(text + "\n")


@dataclass(frozen=True)
class DecoderComparison:
    """All lines of a run."""

    run: RunLine
    rounds: tuple[RoundLine, ...]
    results: tuple[EngineResult, ...]

    def of(self, key: tuple[str, str], threads: int) -> list[EngineResult]:
        """The processes of an engine's variant that worked, in the order of rounds."""
        return [r for r in self.results if r.key == key and r.threads == threads and not r.error]

    @property
    def disturbances(self) -> list[str]:
        """Reasons to distrust the times, each once."""
        return sorted({reason for line in self.rounds for reason in line.reasons})

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Engines and variants in the order in which they ran first."""
        return list(dict.fromkeys(result.key for result in self.results))

    @property
    def threads(self) -> list[int]:
        """Numbers of threads, ascending."""
        return sorted({result.threads for result in self.results})

    @property
    def prompt_lengths(self) -> list[int]:
        """Prompt lengths, ascending."""
        return sorted({prompt.prompt_tokens for result in self.results for prompt in result.prompts})

    def rates(self, phase: str, key: tuple[str, str], threads: int, length: int) -> list[tuple[int, float]]:
        """Tokens per second of each pass, with its round; ``phase`` is ``prefill`` or ``decode``."""
        return [
            (result.round, rate)
            for result in self.of(key, threads)
            for prompt in result.prompts
            if prompt.prompt_tokens == length
            for rate in getattr(prompt, phase)
        ]

    def rate(self, phase: str, key: tuple[str, str], threads: int, length: int) -> float | None:
        """Median of :meth:`rates` over all passes of all rounds."""
        found = [rate for _, rate in self.rates(phase, key, threads, length)]
        return median(found) if found else None

    def wide(self) -> list[str]:
        """Rates whose 95 % interval, of their median over processes, is more than :data:`WITHIN` to either
        side of it; those of an engine that runs once have none.
        """
        found = []
        for key, threads, length in product(self.keys, self.threads, self.prompt_lengths):
            for phase in ("prefill", "decode"):
                each = [
                    median(getattr(prompt, phase))
                    for result in self.of(key, threads)
                    for prompt in result.prompts
                    if prompt.prompt_tokens == length
                ]
                interval = bootstrap_ci(each, medians)
                if interval is not None and max(interval) - min(interval) > 2 * WITHIN * median(each):
                    found.append(f"{self.label(key)} {phase} {length}, {threads} t")
        return found

    def value(self, name: str, key: tuple[str, str], threads: int) -> float | None:
        """Median over rounds of a number that a process has once (``first_token_s``, …)."""
        found = [number for r in self.of(key, threads) if (number := getattr(r, name)) is not None]
        return median(found) if found else None

    def tokens(self, key: tuple[str, str]) -> list[int] | None:
        """What was generated after the shortest prompt, in the first process that worked."""
        worked = [result.prompts[0] for result in self.results if result.key == key and result.prompts]
        return worked[0].tokens if worked else None

    def label(self, key: tuple[str, str]) -> str:
        """Engine and variant for a table."""
        return next(result.label for result in self.results if result.key == key)

    def bits(self, key: tuple[str, str]) -> tuple[int, int]:
        """Bits of the weights, and of embedding and head."""
        return next((r.bits, r.head_bits) for r in self.results if r.key == key)


def require_quiet(reasons: Sequence[str]) -> None:
    """Refuse to write a table of times that ``reasons`` speak against."""
    if reasons:
        raise InputError(
            "no table is written of a run that was disturbed",
            why="; ".join(reasons),
            fix="measure again on a quiet machine, or write it all the same with --disturbed",
        )


def read(path: Path) -> DecoderComparison:
    """The comparison in a raw file."""
    try:
        texts = lines_of(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read a comparison from {path}", why=str(error)) from None
    found = [_parsed(path, number, text) for number, text in enumerate(texts, 1) if text.strip()]
    if not found or not isinstance(found[0], RunLine):
        raise InputError(f"{path} does not begin with the line of a run")
    rounds = tuple(line for line in found if isinstance(line, RoundLine))
    return DecoderComparison(
        found[0], rounds, tuple(line for line in found if isinstance(line, EngineResult))
    )


def _parsed(path: Path, number: int, text: str) -> RunLine | RoundLine | EngineResult:
    try:
        return _LINE.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise InputError(f"{path}:{number} is no line of a comparison", why=why) from None
