"""A fresh process in a peer's environment: one JSON job on stdin, one JSON reply on stdout, a line each.

The reply has the ``versions`` that were used, the ``seconds`` that the peer's function took with loading and
writing, and of a measured engine its times. Peak memory is measured by the parent, which sees the children
of this process too. An encoder that is measured stays loaded: its reply is followed by one for each further
line of stdin. Standard library only: edgepress is not installed where this runs.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from .contract import (
    CompressionTask,
    ConversionTask,
    DecodingEngine,
    EmbedSentences,
    EncoderConversionTask,
    EngineSettings,
    TrainingTask,
    task_of,
)

_MAKERS: dict[str, tuple[str, type[CompressionTask]]] = {
    "quantizers": ("quantize", CompressionTask),
    "pruners": ("prune", CompressionTask),
    "trainers": ("train", TrainingTask),
}
_WARM_TOKENS = 4


def versions(names: Iterable[str]) -> dict[str, str]:
    """The installed versions of ``names``, without those that are not installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


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


def measure_prompt(engine: DecodingEngine, ids: list[int], job: dict[str, Any]) -> dict[str, Any]:
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


def measure_engine(module: ModuleType, job: dict[str, Any]) -> dict[str, Any]:
    """Load, generate one token from cold, then the passes over each prompt, the shortest first.

    The cold prompt is the shortest from its last token to its first, which no pass repeats but the warm-up.
    """
    prompts = sorted(job["prompts"], key=len)
    settings = EngineSettings(job["threads"], max(map(len, prompts)) + job["new_tokens"])
    begin = time.perf_counter()
    engine: DecodingEngine = module.load(Path(job["artifact"]), job["variant"], settings)
    loaded = time.perf_counter() - begin
    engine.generate(prompts[0][::-1], 1)
    # The clock of all processes of a machine: the parent read it before it started this one.
    first = time.monotonic() - job["started"]
    return {
        "load_s": loaded,
        "first_token_s": first,
        "prompts": [measure_prompt(engine, ids, job) for ids in prompts],
    }


def embed(encode: EmbedSentences, job: dict[str, Any]) -> dict[str, Any]:
    """Seconds for ``sentences`` in batches of ``batch_size``, tokenizing included; ``vectors`` on demand."""
    began, cpu = time.perf_counter(), time.process_time()
    vectors = encode(job["sentences"], job["batch_size"])
    reply = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    return reply | ({"vectors": vectors.astype("float64").tolist()} if job.get("vectors") else {})


def make_checkpoint(module: ModuleType, job: dict[str, Any]) -> None:
    """Quantize, prune or train, in the directory of the task."""
    verb, kind = _MAKERS[job["kind"]]
    task = task_of(kind, job)
    os.chdir(task.output)  # some tools write logs where they stand
    getattr(module, verb)(task, job["variant"])
    task.copy_companions()


def replies_to(job: dict[str, Any], following: TextIO) -> Iterator[dict[str, Any]]:
    """Do the job, and for a loaded encoder those of the ``following`` lines."""
    module = import_module(f"{__package__}.{job['kind']}.{job['peer']}")
    os.environ.update(getattr(module, "ENVIRONMENT", {}))
    begin, measured, encode = time.perf_counter(), {}, None
    if job["kind"] in _MAKERS:
        make_checkpoint(module, job)
    elif job["do"] == "convert":
        kind = EncoderConversionTask if job["kind"] == "encoders" else ConversionTask
        module.convert(task_of(kind, job), job["variant"])
    elif job["kind"] == "encoders":
        encode = module.load(Path(job["artifact"]), job["variant"], job["threads"])
    else:
        measured = measure_engine(module, job)
    seconds = time.perf_counter() - begin
    found = versions(module.DISTRIBUTIONS)
    if "artifact" in job and hasattr(module, "operators") and job["do"] == "measure":
        found["operators"] = module.operators(Path(job["artifact"]))
    yield {"versions": found, "seconds": seconds, **measured}
    if encode is not None:
        yield from (embed(encode, json.loads(line)) for line in following)


def main() -> None:
    """Reply to the job on stdin, and end this process."""
    # Replies have a descriptor of their own, so that a library that prints to stdout cannot break them.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for reply in replies_to(json.loads(sys.stdin.readline()), sys.stdin):
        print(json.dumps(reply), file=channel, flush=True)
    channel.close()
    # Engines with threads of their own may hang or crash in their destructors; the work is done.
    os._exit(0)


if __name__ == "__main__":
    main()
