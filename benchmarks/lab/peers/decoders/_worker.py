"""A fresh process in an engine's environment: converts a model, or loads one and measures it.

Standard library only, as the engines' files.
"""

from __future__ import annotations

import sys
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ..reply import reply, versions
from ._contract import Engine, Settings, Source

_WARM_TOKENS = 4


def peak_rss() -> int:
    """Bytes that this process had resident at most."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def measure_prompt(engine: Engine, ids: list[int], job: dict[str, Any]) -> dict[str, Any]:
    """Seconds of every pass over one prompt: until its first token, and from there to the last.

    No two passes begin alike (the last has the prompt as it is): an engine that keeps the cache of what it
    has read (OpenVINO GenAI does) would find its prefill done.
    """
    if job["warm_up"]:
        engine.generate(ids[::-1], _WARM_TOKENS)
    prefill, decode, tokens = [], [], []
    for turned in reversed(range(job["passes"])):
        begin = time.perf_counter()
        found = engine.generate(ids[turned:] + ids[:turned], job["new_tokens"])
        prefill.append(found.moments[0] - begin)
        decode.append(found.moments[-1] - found.moments[0])
        tokens = found.tokens
    return {
        "prompt_tokens": len(ids),
        "new_tokens": len(tokens),
        "prefill_s": prefill,
        "decode_s": decode,
        "tokens": tokens,
        "rss_bytes": peak_rss(),
    }


def measure(module: ModuleType, job: dict[str, Any]) -> dict[str, Any]:
    """Load, generate one token from cold, then the passes over each prompt, the shortest first.

    The cold prompt is the shortest from its last token to its first, which no pass repeats but the warm-up.
    """
    prompts = sorted(job["prompts"], key=len)
    settings = Settings(job["threads"], max(map(len, prompts)) + job["new_tokens"])
    begin = time.perf_counter()
    engine: Engine = module.load(Path(job["artifact"]), job["variant"], settings)
    loaded = time.perf_counter() - begin
    engine.generate(prompts[0][::-1], 1)
    # The clock of all processes of a machine: the parent read it before it started this one.
    first = time.monotonic() - job["started"]
    return {
        "load_s": loaded,
        "first_token_s": first,
        "prompts": [measure_prompt(engine, ids, job) for ids in prompts],
        "versions": versions(module.DISTRIBUTIONS),
    }


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Do the job."""
    module = import_module(f"{__package__}.{job['engine']}")
    if job["do"] == "convert":
        source = Source(Path(job["checkpoint"]), job["group_size"])
        module.convert(source, Path(job["artifact"]), job["variant"])
        return {"converted": job["artifact"]}
    return measure(module, job)


if __name__ == "__main__":
    reply(answer)
