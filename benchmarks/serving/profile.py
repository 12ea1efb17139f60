"""``profile_served``: latency and throughput of a checkpoint under load, through an engine's own server; a
measurement line for each number of requests at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ...devices.probe import Machine, probe
from ...devices.state import State, disturbance, read_state
from ...errors import CheckpointError, InputError, require
from ...foreign import shortages_are_typed
from ...limits import require_threads
from ...runtime.session.needs import Needs
from ...runtime.session.threads import thread_budget
from ...terminal import Progress, Silent
from ..records import record as records
from ..records.record import Measurement, Metric, Subject, Validity
from ..records.summary import summarize
from ..speed.latency import half_width
from ..speed.latency_line import ENOUGH_BLOCKS
from ..speed.protocol import WIDE, Protocol, SuspendWatch
from .client import Reply, complete
from .contract import ServingEngine, ServingTask, engine, executable
from .load import Level, LoadPlan, run_level
from .server import Server, free_port

MOST_CONCURRENCY = 1024
_START_S = 60.0
# What a slow machine does in a second: bytes of weights for a token, multiply-adds of a prompt.
_BYTES, _MULTIPLICATIONS = 8e9, 2e10


@dataclass(frozen=True)
class Served:
    """A checkpoint that is to be served: what it is, and how."""

    name: str
    subject: Subject
    vocabulary: int
    task: ServingTask


@shortages_are_typed()
def profile_served(
    checkpoint: str | Path,
    engine_name: str,
    concurrency: Sequence[int],
    *,
    prompt_tokens: int = 128,
    new_tokens: int = 128,
    threads: int | None = None,
    protocol: Protocol | None = None,
    record: str | Path | None = None,
    command: str = "",
    max_memory: float | None = None,
    progress: Progress | None = None,
) -> list[Measurement]:
    """Serve ``checkpoint`` and measure it with so many requests at once, one number after the other.

    Args:
        engine_name: a file of :mod:`.engines`.
        prompt_tokens, new_tokens: of every request, exactly so many.
        threads: of the server, where it computes on the CPU; this machine's budget when None.
        protocol: ``blocks`` requests at least, and further ones for ``most_seconds``, up to a hundred.
        record: a run file to which each line is appended as soon as it is known.
        max_memory: GB that it may need; never more than what is free.

    Raises:
        MissingDependency: the engine is not installed. UnknownName: there is none of this name.
        CheckpointError: the checkpoint is of a form that the engine does not serve.
        InputError: lengths that do not fit the model, or fewer than one request.
        EngineError: the server died, or answered something else. OutputBusy: its port is in use.
        OutOfResource: it does not fit this machine, or memory ran out.
    """
    progress, protocol, chosen = progress or Silent(), protocol or Protocol(), engine(engine_name)
    if record is not None:
        records.refuse_foreign(record)
    served = _prepared(checkpoint, chosen, concurrency, prompt_tokens, new_tokens, threads)
    needs = _needs(chosen, served, concurrency, prompt_tokens, new_tokens, protocol)
    progress.note(needs.headline(needs.require(Path(record or "."), max_memory)))
    machine, lines = probe(), []
    plan = LoadPlan(prompt_tokens, served.vocabulary, protocol.blocks, protocol.most_seconds, protocol.seed)
    with Server(chosen, served.task, progress) as server:
        for count in concurrency:
            before, watch = read_state(), SuspendWatch()
            level = run_level(
                _asking(server, new_tokens),
                count,
                plan,
                progress,
                alive=server.require_alive,
                resident=server.resident,
            )
            states = (before, read_state())
            line = _line(served, server, level, plan, new_tokens, protocol, machine, states, command)
            if watch.suspended():
                line.validity = Validity.of(["the machine slept meanwhile"], line.validity.reasons)
            lines.append(line)
            if record is not None:
                records.append(record, line)
    return lines


def plan_served(
    checkpoint: str | Path,
    engine_name: str,
    concurrency: Sequence[int],
    *,
    prompt_tokens: int = 128,
    new_tokens: int = 128,
    threads: int | None = None,
    protocol: Protocol | None = None,
) -> tuple[Needs, list[str]]:
    """What :func:`profile_served` needs, and the command line of the server; raises what it does before it
    starts that.
    """
    chosen = engine(engine_name)
    served = _prepared(checkpoint, chosen, concurrency, prompt_tokens, new_tokens, threads)
    needs = _needs(chosen, served, concurrency, prompt_tokens, new_tokens, protocol or Protocol())
    return needs, chosen.command(executable(chosen), served.task)


def _prepared(
    checkpoint: str | Path,
    chosen: ServingEngine,
    concurrency: Sequence[int],
    prompt_tokens: int,
    new_tokens: int,
    threads: int | None,
) -> Served:
    """The checkpoint, checked; nothing is loaded."""
    if not concurrency or not all(1 <= count <= MOST_CONCURRENCY for count in concurrency):
        raise InputError(
            f"concurrency is {','.join(map(str, concurrency))}, each must be 1 to {MOST_CONCURRENCY}"
        )
    if new_tokens < 2:
        raise InputError("one new token has no time per token", fix="use --max-new-tokens 2 or more")
    executable(chosen)
    require("torch", "compress")
    from ...compress.model.models import resolve
    from ...compress.model.weights import WeightSource
    from ..records.checkpoint_subject import describe_checkpoint

    if (Path(checkpoint) / "manifest.json").is_file():
        raise CheckpointError(
            f"{checkpoint} is a bundle, which {chosen.TITLE} does not serve",
            fix="give the checkpoint that it was exported from, or leave out --engine",
        )
    resolved = resolve(str(checkpoint), Silent())
    source = WeightSource.open(resolved.path)
    anatomy = source.anatomy
    why = "it is no decoder" if anatomy.kind != "decoder" else chosen.refusal(source.reader.config)
    if why:
        raise CheckpointError(
            f"{chosen.TITLE} does not serve {checkpoint}",
            why=why,
            fix="compress the model with W4A16 or W8A8",
        )
    context = prompt_tokens + new_tokens
    if context > anatomy.max_positions:
        raise InputError(
            f"{context} tokens do not fit the context of {anatomy.max_positions} of {checkpoint}",
            fix="lower --prompt-tokens or --max-new-tokens",
        )
    widths = [2 * block.attention.kv_heads * block.attention.head_dim for block in anatomy.blocks]
    task = ServingTask(
        checkpoint=resolved.path.absolute(),
        # Nobody else's server answers to it.
        model=f"edgepress-{secrets.token_hex(8)}",
        port=free_port(),
        context=context,
        concurrency=max(concurrency),
        threads=require_threads(threads) or thread_budget(),
        cache_bytes=2 * sum(widths) * context * max(concurrency),
    )
    subject = describe_checkpoint(source, resolved, "decoder")
    return Served(resolved.name, subject, anatomy.vocab_size, task)


def _needs(
    chosen: ServingEngine,
    served: Served,
    concurrency: Sequence[int],
    prompt_tokens: int,
    new_tokens: int,
    protocol: Protocol,
) -> Needs:
    """On the CPU, where it takes longest and most of the main memory."""
    size, seconds = 2 * (served.subject.params or 0), _START_S
    for count in concurrency:
        requests = max(protocol.blocks, count) + count
        waves = -(-requests // count)
        decoding = waves * new_tokens * size / _BYTES
        level = decoding + requests * prompt_tokens * size / _MULTIPLICATIONS
        seconds += max(level, protocol.most_seconds)
    memory = chosen.MEMORY + 2 * size + served.task.cache_bytes
    reads = {str(served.task.checkpoint): served.subject.disk_bytes}
    return Needs(f"profile with {chosen.TITLE}", reads, memory, 1 << 20, seconds)


def _asking(server: Server, new_tokens: int) -> Callable[[list[int], Callable[[], bool]], Reply]:
    task, body = server.task, server.engine.BODY
    return lambda prompt, stopped: complete(task.port, task.model, prompt, new_tokens, body, stopped=stopped)


def _line(
    served: Served,
    server: Server,
    level: Level,
    plan: LoadPlan,
    new_tokens: int,
    protocol: Protocol,
    machine: Machine,
    states: tuple[State, State],
    command: str,
) -> Measurement:
    metrics, samples = _metrics(level, server, protocol)
    happened, doubts = disturbance(*states)
    if metrics["ttft_ms"].n < ENOUGH_BLOCKS:
        doubts.append(f"only {metrics['ttft_ms'].n} requests: at least {ENOUGH_BLOCKS} make an interval")
    elif half_width(metrics["output_tps"]) > WIDE:
        spread = 100 * half_width(metrics["output_tps"])
        doubts.append(f"noisy: the interval of the median throughput is ± {spread:.0f} % wide")
    before, after = (state.model_dump(mode="json") for state in states)
    return Measurement(
        command=command,
        subject=served.subject,
        workload={
            "kind": "generate",
            "scenario": "server",
            "batch": 1,
            "concurrency": level.concurrency,
            "prompt_tokens": plan.prompt_tokens,
            "new_tokens": new_tokens,
            "sampling": "greedy",
            "seed": plan.seed,
            "includes": {"tokenize": False, "sample": True, "load": False, "http": True},
        },
        runtime=_runtime(server),
        device=machine.model_dump(mode="json"),
        state={"before": before, "after": after, "between": happened},
        protocol={
            "requests": metrics["ttft_ms"].n,
            "seconds": level.ended - level.began,
            "windows": protocol.blocks,
            "order": "a closed loop: each stream sends its next request when its last is answered",
            "warm_up": "the first request of each stream",
            "stop_rule": f"{plan.fewest} requests, one a stream, then up to 100 for {plan.most_seconds:g} s",
            "timer": "perf_counter",
            "load": "from the start of the server's process to its first answer",
            "rss_method": "sum over the server's processes, once a second",
            "seed": plan.seed,
        },
        samples=samples,
        metrics=metrics,
        validity=Validity.of([], doubts),
    )


def _metrics(
    level: Level, server: Server, protocol: Protocol
) -> tuple[dict[str, Metric], dict[str, list[float]]]:
    """One value per request, of the throughput per window; percentiles of the time per token are over all."""
    gaps = [reply.gaps_s() for reply in level.replies]
    each = [1e3 * gap for one in gaps for gap in one]
    means = [1e3 * fmean(one) for one in gaps if one]
    found: dict[str, tuple[list[float], str, Any]] = {
        "output_tps": (level.rates(protocol.blocks), "tok/s", "higher"),
        "ttft_ms": ([1e3 * reply.first_s for reply in level.replies], "ms", "lower"),
        "tpot_ms": (means, "ms", "lower"),
        "decode_tps": ([1e3 / mean for mean in means], "tok/s", "higher"),
        "e2e_ms": ([1e3 * reply.seconds for reply in level.replies], "ms", "lower"),
        "load_ms": ([1e3 * server.start_s], "ms", "lower"),
        "rss_peak_bytes": ([float(level.resident)], "bytes", "lower"),
    }
    metrics = {
        name: summarize(
            values, unit, better, observed=each if name == "tpot_ms" else None, seed=protocol.seed
        )
        for name, (values, unit, better) in found.items()
    }
    return metrics, {name: [round(value, 4) for value in values] for name, (values, _, _) in found.items()}


def _runtime(server: Server) -> dict[str, Any]:
    """The engine as it was started and as it says it runs; names of this run alone are left out."""
    task = server.task
    names = {str(task.checkpoint): "CHECKPOINT", task.model: "NAME", str(task.port): "PORT"}
    return {
        "name": server.engine.EXECUTABLE,
        "version": server.version,
        "threads": task.threads,
        "arguments": [names.get(word, word) for word in server.engine.command("PROGRAM", task)[1:]],
        "variables": server.engine.variables(task),
        **server.engine.settings(server.log),
    }
