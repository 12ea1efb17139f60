"""The comparison of quantizers: each tool once for each of its schemes, and one evaluation for all results.

Every tool sees the same calibration tokens, those that edgepress draws, and runs alone in a fresh process at
the same number of threads. What it made stays below the workspace: an interrupted run goes on where it was.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ....storage import read_json, write_json
from ..study.page import machine
from .children import work
from .decoder_models import subject
from .floor import floor
from .quality import QuantizerResult
from .workspace import Workspace, trouble

SUBJECT, SAMPLES, LENGTH, WINDOWS = "smollm2", 16, 512, 8
RECORD, QUALITY = "made.json", "quality.json"
NOT_RUN = "not run: left out of this comparison for want of time"


def calibrate(workspace: Workspace) -> Path:
    """The calibration sequences as a JSON file, made if it is not there."""
    from ....compress.model.models import resolve
    from ....compress.text.calibration import calibration_from
    from ....runtime.text.tokenizer import Tokenizer

    target = workspace.root / "calibration" / f"{SUBJECT}.json"
    if not target.exists():
        tokenizer = Tokenizer.open(resolve(str(subject(SUBJECT).demo)).path)
        found = calibration_from("wikipedia", tokenizer, kind="decoder", samples=SAMPLES, length=LENGTH)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, [row for batch in found.batches for row in batch.input_ids.tolist()])
    return target


@dataclass(frozen=True)
class ToolLimits:
    """How every tool runs: threads, the seconds it may take, whether those that failed try again, whether
    what was made is evaluated at once, and whether anything is run at all or only what is known is shown.
    """

    threads: int = 1
    timeout: float = 1800.0
    retry: bool = False
    evaluate: bool = True
    run: bool = True


def quantize(
    workspace: Workspace, peer: str, module: ModuleType, variant: str, limits: ToolLimits, texts: list[Path]
) -> QuantizerResult:
    """Quantize and evaluate, unless that was done before; an error is kept as the result."""
    chosen = module.VARIANTS[variant]
    common = {"peer": peer, "title": module.TITLE, "variant": variant, **asdict(chosen)}
    common["stored_bits"] = chosen.stored_bits
    target = workspace.root / "quantized" / f"{peer.replace('_', '-')}-{variant}"
    made: dict[str, Any] = read_json(target / RECORD) if (target / RECORD).is_file() else {}
    if not limits.run and not (target / QUALITY).exists():
        return QuantizerResult(**{**common, "error": NOT_RUN, **made})
    if not made or (made["error"] and limits.retry):
        error = trouble(workspace, peer, module)
        made = {"error": error} if error else _make(workspace, peer, module, variant, target, limits)
    if made["error"]:
        return QuantizerResult(**common, error=made["error"])
    if not limits.evaluate:
        return QuantizerResult(**common, **made)
    return QuantizerResult(**common, **made, metrics=_evaluate(workspace, target, texts, limits.threads))


def _make(
    workspace: Workspace,
    peer: str,
    module: ModuleType,
    variant: str,
    target: Path,
    limits: ToolLimits,
) -> dict[str, Any]:
    from ....compress.model.models import resolve

    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    job = {
        "variant": variant,
        "checkpoint": str(resolve(str(subject(SUBJECT).demo)).path),
        "calibration": str(calibrate(workspace)),
        "output": str(target),
    }
    done = work(workspace, peer, module, job, timeout=limits.timeout, threads=limits.threads)
    print(f"{module.TITLE} {variant}: {done.wall_s:.0f} s {done.error}", file=sys.stderr, flush=True)
    cost = {"cpu_s": done.cpu_s, "wall_s": done.wall_s, "peak_rss_bytes": done.peak_rss_bytes}
    made: dict[str, Any] = {"error": done.error}
    if done.reply is not None:
        made |= {**cost, "versions": done.reply["versions"], "machine": machine()}
    write_json(target / RECORD, made)
    return made


def _evaluate(
    workspace: Workspace, target: Path, texts: list[Path], threads: int
) -> dict[str, dict[str, float]]:
    """Metrics by text; those of :mod:`edgepress.benchmarks.lab.peers.evaluate`."""
    record = target / QUALITY
    if not record.exists():
        # A workspace of an earlier version has the checkpoint among the tool's other files.
        checkpoint = target / "checkpoint" if (target / "checkpoint").is_dir() else target
        original = str(subject(SUBJECT).demo)
        command = [sys.executable, "-m", f"{__package__}.evaluate", str(checkpoint), original]
        command += [str(workspace.root / "logits"), "--windows", str(WINDOWS), "--threads", str(threads)]
        command += ["--text", *map(str, texts)] if texts else []
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        write_json(record, json.loads(done.stdout))
    found: dict[str, dict[str, float]] = read_json(record)
    return found


def with_earlier(found: list[QuantizerResult], path: Path) -> list[QuantizerResult]:
    """``found``, and in place of what was not run now what ``path`` knows of it from an earlier run."""
    if not path.exists():
        return found
    lines = path.read_text(encoding="utf-8").splitlines()
    earlier = {(one.peer, one.variant): one for one in map(QuantizerResult.model_validate_json, lines)}
    return [
        earlier.get((one.peer, one.variant), one) if one.error.startswith(NOT_RUN) else one for one in found
    ]


def write_raw(path: Path, found: list[QuantizerResult]) -> None:
    """One JSON line for each result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(one.model_dump(mode="json"), sort_keys=True, allow_nan=False) for one in found]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def circumstances(threads: int) -> list[str]:
    """How the comparison was made, in sentences for its table."""
    from ....compress.api import BATCH_TOKENS
    from ....compress.model.models import resolve
    from ....compress.model.weights import WeightSource

    anatomy = WeightSource.open(resolve(str(subject(SUBJECT).demo)).path).anatomy
    return [
        f"Calibration: {SAMPLES} sequences of {LENGTH} tokens of Wikipedia, the same ids for every tool; "
        f"evaluation: {WINDOWS} windows of {LENGTH} tokens of each text, none of it calibrated with. KL is "
        "KL(original ‖ row) in nats a token, the mean over all positions.",
        "Embedding and head stay in float32 in every row. Bits a weight count scales and zero points as the "
        "tool stores them. W8A8 has int8 activations too, one scale a token, in the evaluation as well.",
        floor(anatomy, SAMPLES * LENGTH, LENGTH, BATCH_TOKENS).sentence(),
        f"CPU seconds and peak RSS are of the whole process at {threads} thread{'s' if threads > 1 else ''}, "
        "loading and writing included.",
    ]
