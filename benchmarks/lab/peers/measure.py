"""The comparison of decoders: interleaved engines, a fresh process each, for some rounds in one run."""

import datetime
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ....devices.bandwidth import beyond_cache, measure_bandwidth
from ....devices.probe import probe
from ....devices.state import disturbance, read_state
from ....errors import InputError
from ....files.storage import read_json
from ..study.page import machine
from .bars import DEFAULT
from .children import work
from .decoder_models import LONGEST, DecoderModel, prepared, prompts
from .lines import EngineResult, RoundLine, RunLine, append, read
from .workspace import Workspace, trouble

SLOW_TOKENS = 32
_READ = 1 << 23


@dataclass(frozen=True)
class DecoderPlan:
    """How a comparison is run.

    Attributes:
        rounds, most_rounds: at least, and at most where an interval is wider than :data:`.lines.WITHIN`.
        warm_up: a few tokens after each prompt before it is timed.
        variants: of the engines; all of them when it is empty.
        timeout: seconds that one process may take.
    """

    rounds: int = 3
    most_rounds: int = 9
    passes: int = 1
    threads: tuple[int, ...] = (1, 2)
    prompt_lengths: tuple[int, ...] = (128, 1024)
    new_tokens: int = 128
    warm_up: bool = True
    variants: tuple[str, ...] = ()
    timeout: float = 300.0

    def __post_init__(self) -> None:
        """Raise InputError for numbers that cannot be run."""
        if min(self.rounds, self.passes, *self.threads, *self.prompt_lengths) < 1 or self.new_tokens < 2:
            raise InputError(
                "rounds, passes, threads and prompts must be at least 1, new tokens at least 2",
                why=f"given: {asdict(self)}",
            )
        if not self.threads or not self.prompt_lengths or sum(self.prompt_lengths) > LONGEST:
            raise InputError(f"a comparison needs threads, and prompts of at most {LONGEST} tokens in all")


@dataclass(frozen=True)
class EngineRow:
    """One engine's variant, ready to run, or the reason why not."""

    engine: str
    module: ModuleType
    variant: str
    artifact: Path
    artifact_bytes: int
    error: str

    def describe(self) -> dict[str, Any]:
        """The fields that every line of the row has."""
        chosen = self.module.VARIANTS[self.variant]
        return {
            "engine": self.engine,
            "variant": self.variant,
            "label": f"{self.module.TITLE} {chosen.label}",
            "bits": chosen.bits,
            "head_bits": chosen.head_bits,
        }


def measure(
    workspace: Workspace,
    chosen: DecoderModel,
    engines: dict[str, ModuleType],
    plan: DecoderPlan,
    raw: Path,
    command: str,
) -> None:
    """Run the plan and append its lines to ``raw``, each as soon as it is known."""
    rows = [
        row for row in _rows(workspace, chosen, engines) if not plan.variants or row.variant in plan.variants
    ]
    append(raw, _run_line(chosen, plan, command))
    for row in rows:
        _read_afresh(row.artifact)
    for number in range(max(plan.rounds, plan.most_rounds)):
        if number >= plan.rounds and not read(raw).wide():
            break
        before = read_state()
        bandwidth: dict[int, float] = {}
        for threads in plan.threads:
            for row in turned(rows, number):
                if number and (row.error or row.module.VARIANTS[row.variant].slow):
                    continue
                ours = (row.engine, row.variant) == DEFAULT
                first = _bandwidth(threads) if ours else 0.0
                append(raw, _result(workspace, chosen, row, plan, threads, number))
                if ours:
                    bandwidth[threads] = max(first, _bandwidth(threads))
        found, reasons = disturbance(before, read_state())
        append(raw, RoundLine(round=number, bandwidth=bandwidth, disturbance=found, reasons=reasons))


def _read_afresh(artifact: Path) -> None:
    """Have the files of ``artifact`` in the page cache as a first read leaves them: what writing leaves there
    may lie in single pages, from which weights come a third more slowly.
    """
    for file in artifact.rglob("*"):
        if not file.is_file() or "checkpoint" in file.parts:
            continue
        with file.open("rb", buffering=0) as stream:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while stream.read(_READ):
                pass


def turned(rows: list[EngineRow], number: int) -> list[EngineRow]:
    """Another order in every round, so that no engine always follows the same one."""
    start = (number * 3) % len(rows)
    return rows[start:] + rows[:start]


def _rows(workspace: Workspace, chosen: DecoderModel, engines: dict[str, ModuleType]) -> Iterator[EngineRow]:
    for engine, module in engines.items():
        for variant in module.VARIANTS:
            artifact, size, error = prepared(workspace, chosen.name, engine, variant)
            yield EngineRow(
                engine, module, variant, artifact, size, trouble(workspace, engine, module) or error
            )


def _run_line(chosen: DecoderModel, plan: DecoderPlan, command: str) -> RunLine:
    return RunLine(
        schema="edgepress.peers/1",
        subject=chosen.name,
        title=f"{chosen.title}, groups of {chosen.group_size}",
        command=command,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        machine={"line": machine(), **probe().model_dump(mode="json")},
        settings=asdict(plan),
    )


def _bandwidth(threads: int) -> float:
    size = beyond_cache(probe().cpu.last_level_cache_bytes)
    return measure_bandwidth(size, threads=threads).bytes_per_second


def _result(
    workspace: Workspace, chosen: DecoderModel, row: EngineRow, plan: DecoderPlan, threads: int, number: int
) -> EngineResult:
    common = {**row.describe(), "threads": threads, "round": number}
    if row.error:
        return EngineResult(**common, error=row.error)
    job = {
        "do": "measure",
        "variant": row.variant,
        "artifact": str(row.artifact),
        "threads": threads,
        "prompts": prompts(workspace, chosen, plan.prompt_lengths),
        **_effort(row, plan),
    }
    done = work(workspace, row.engine, row.module, job, timeout=plan.timeout, threads=threads)
    report = f"round {number + 1}: {row.module.TITLE} {row.variant}, {threads} t: {done.wall_s:.1f} s"
    print(report, done.error, file=sys.stderr, flush=True)
    if done.reply is None:
        return EngineResult(**common, error=done.error)
    return EngineResult(
        **common,
        **{name: done.reply[name] for name in ("load_s", "first_token_s", "prompts", "versions")},
        peak_rss_bytes=done.peak_rss_bytes,
        artifact_bytes=row.artifact_bytes,
        bytes_per_token=_bytes_per_token(row.artifact),
    )


def _effort(row: EngineRow, plan: DecoderPlan) -> dict[str, int | bool]:
    """How much one process generates; slow engines less, since nothing is decided by their last digit."""
    if row.module.VARIANTS[row.variant].slow:
        return {"new_tokens": min(plan.new_tokens, SLOW_TOKENS), "passes": 1, "warm_up": False}
    return {"new_tokens": plan.new_tokens, "passes": plan.passes, "warm_up": plan.warm_up}


def _bytes_per_token(artifact: Path) -> int | None:
    """What a bundle's manifest says that one decode step reads."""
    manifest = artifact / "bundle" / "manifest.json"
    if not manifest.is_file():
        return None
    found = read_json(manifest)["weights"].get("bytes_per_token")
    return None if found is None else int(found)
