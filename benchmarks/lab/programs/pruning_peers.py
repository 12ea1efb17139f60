"""Other tools' pruned models in a table: made in their own environments, measured as all other rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

from ....storage import write_json
from ...records.record import Measurement, read
from ..peers.children import work
from ..peers.environments import trouble
from ..peers.workspace import Place
from .model_chain import Chain

_TIMEOUT = 3600.0


def peer_name(peer: str, variant: str) -> str:
    """The name of the row's files."""
    return f"{peer.replace('_', '-')}-{variant}"


def measure_peer(
    chain: Chain, place: Place, module: ModuleType, variant: str, calibration: Path, held_out: str
) -> list[Measurement]:
    """Prune with another tool and validate, each unless it is done; the lines about the row.

    Raises:
        SystemExit: the tool has no environment, or failed; says what it said last.
    """
    peer = module.__name__.rpartition(".")[2]
    name = peer_name(peer, variant)
    checkpoint, run = chain.work / name, chain.work / f"{name}.quality.jsonl"
    if not checkpoint.exists():
        _prune(chain, place, module, variant, calibration, checkpoint)
    if not run.exists():
        part = run.with_suffix(".part")
        part.unlink(missing_ok=True)
        options = f"{held_out} --threads 1 --record {part} -q"
        chain.call(f"validate {checkpoint} --against {chain.model} {options}")
        part.rename(run)
    return read([run])[-1:]


def _prune(
    chain: Chain, place: Place, module: ModuleType, variant: str, calibration: Path, checkpoint: Path
) -> None:
    from ....compress.model.models import resolve

    peer = module.__name__.rpartition(".")[2]
    error = trouble(place, peer, module)
    if error:
        raise SystemExit(f"{module.TITLE}: {error}")
    partial = checkpoint.with_name(f"{checkpoint.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    job = {
        "variant": variant,
        "checkpoint": str(resolve(chain.model).path),
        "calibration": str(calibration),
        "output": str(partial),
    }
    done = work(place, peer, module, job, timeout=_TIMEOUT, threads=1)
    if done.answer is None:
        raise SystemExit(f"{module.TITLE} {variant}: {done.error}")
    cost = {
        "versions": done.answer["versions"],
        "cpu_seconds": done.cpu_s,
        "rss_mb": done.peak_rss_bytes / 2**20,
    }
    write_json(chain.work / f"{checkpoint.name}.cost.json", cost)
    (partial / "checkpoint").rename(checkpoint)
    shutil.rmtree(partial)


def calibration_tokens(chain: Chain, samples: int, length: int) -> Path:
    """The sequences of ``--calibration wikipedia`` as a JSON file, made if it is not there."""
    from ....compress.model.models import resolve
    from ....compress.model.weights import WeightSource
    from ....compress.text.calibration import calibration_from
    from ....runtime.text.tokenizer import Tokenizer

    target = chain.work / f"tokens-{samples}-{length}.json"
    if not target.exists():
        path = resolve(chain.model).path
        kind = WeightSource.open(path).anatomy.kind
        found = calibration_from("wikipedia", Tokenizer.open(path), kind=kind, samples=samples, length=length)
        write_json(target, [row for batch in found.batches for row in batch.input_ids.tolist()])
    return target
