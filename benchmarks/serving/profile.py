"""``profile_served``: latency and throughput of a checkpoint under load, through an engine's own server; a
measurement line for each number of requests at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...devices.probe import probe
from ...devices.state import read_state
from ...errors import CheckpointError, InputError, require
from ...files.limits import require_threads
from ...files.third_party_errors import shortages_are_typed
from ...runtime.session.needs import Needs
from ...runtime.session.threads import thread_budget
from ...terminal.progress import Progress, Silent
from ..records import record as records
from ..records.record import Measurement, Subject, Validity
from ..speed.protocol import SuspendWatch
from .client import Reply, complete
from .contract import ServingEngine, ServingTask, engine, executable
from .load import LoadAsked, run_level
from .served_line import served_line
from .server import Server, free_port

if TYPE_CHECKING:
    from ...compress.model.weights import WeightSource

_START_S = 60.0
# What a slow machine does in a second: bytes of weights for a token, multiply-adds of a prompt.
_BYTES, _MULTIPLICATIONS = 8e9, 2e10


@dataclass(frozen=True)
class Served:
    """A checkpoint that is to be served: by what, what it is, and how."""

    engine: ServingEngine
    subject: Subject
    vocabulary: int
    task: ServingTask


@shortages_are_typed()
def profile_served(
    checkpoint: str | Path,
    engine_name: str,
    asked: LoadAsked,
    *,
    record: str | Path | None = None,
    command: str = "",
    max_memory: float | None = None,
    progress: Progress | None = None,
) -> list[Measurement]:
    """Serve ``checkpoint`` by ``engine_name``, a file of :mod:`.engines`, and measure it with each number
    of requests at once that is ``asked`` for, one after the other.

    Args:
        record: a run file to which each line is appended as soon as it is known.
        max_memory: GB that it may need; never more than what is free.
    """
    progress = progress or Silent()
    if record is not None:
        records.refuse_foreign(record)
    served = _prepared(checkpoint, engine(engine_name), asked)
    needs = _needs(served, asked)
    progress.note(needs.headline(needs.require(Path(record or "."), max_memory)))
    machine, lines = probe(), []
    with Server(served.engine, served.task, progress) as server:
        for count in asked.concurrency:
            before, watch = read_state(), SuspendWatch()
            level = run_level(
                _asking(server, asked.new_tokens),
                count,
                asked.plan(served.vocabulary),
                progress,
                alive=server.require_alive,
                resident=server.resident,
            )
            states = (before, read_state())
            line = served_line(served.subject, server, level, asked, machine, states, command)
            if watch.suspended():
                line.validity = Validity.of(["the machine slept meanwhile"], line.validity.reasons)
            lines.append(line)
            if record is not None:
                records.append(record, line)
    return lines


def plan_served(checkpoint: str | Path, engine_name: str, asked: LoadAsked) -> tuple[Needs, list[str]]:
    """What :func:`profile_served` needs, and the command line of the server; raises what it does before it
    starts that.
    """
    served = _prepared(checkpoint, engine(engine_name), asked)
    return _needs(served, asked), served.engine.command(executable(served.engine), served.task)


def _prepared(checkpoint: str | Path, chosen: ServingEngine, asked: LoadAsked) -> Served:
    """The checkpoint, checked; nothing is loaded."""
    asked.check()
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
    _check_served(chosen, source, asked, checkpoint)
    anatomy, most = source.anatomy, max(asked.concurrency)
    widths = [2 * part.kv_heads * part.head_dim for part in anatomy.attentions()]
    task = ServingTask(
        checkpoint=resolved.path.absolute(),
        # Nobody else's server answers to it.
        model=f"edgepress-{secrets.token_hex(8)}",
        port=free_port(),
        context=asked.context,
        concurrency=most,
        threads=require_threads(asked.threads) or thread_budget(),
        cache_bytes=2 * sum(widths) * asked.context * most,
    )
    subject = describe_checkpoint(source, resolved, "decoder")
    return Served(chosen, subject, anatomy.vocab_size, task)


def _check_served(
    chosen: ServingEngine, source: WeightSource, asked: LoadAsked, checkpoint: str | Path
) -> None:
    """Refuse what the engine does not serve, and lengths that the model has no room for."""
    anatomy = source.anatomy
    why = "it is no decoder" if anatomy.kind != "decoder" else chosen.refusal(source.reader.config)
    if why:
        raise CheckpointError(
            f"{chosen.TITLE} does not serve {checkpoint}",
            why=why,
            fix="compress the model with W4A16 or W8A8",
        )
    if asked.context > anatomy.max_positions:
        raise InputError(
            f"{asked.context} tokens do not fit the context of {anatomy.max_positions} of {checkpoint}",
            fix="lower --prompt-tokens or --max-new-tokens",
        )


def _needs(served: Served, asked: LoadAsked) -> Needs:
    """On the CPU, where it takes longest and most of the main memory."""
    size, seconds, protocol = 2 * (served.subject.params or 0), _START_S, asked.protocol
    for count in asked.concurrency:
        requests = max(protocol.blocks, count) + count
        waves = -(-requests // count)
        decoding = waves * asked.new_tokens * size / _BYTES
        level = decoding + requests * asked.prompt_tokens * size / _MULTIPLICATIONS
        seconds += max(level, protocol.most_seconds)
    memory = served.engine.MEMORY + 2 * size + served.task.cache_bytes
    reads = {str(served.task.checkpoint): served.subject.disk_bytes}
    return Needs(f"profile with {served.engine.TITLE}", reads, memory, 1 << 20, seconds)


def _asking(server: Server, new_tokens: int) -> Callable[[list[int], Callable[[], bool]], Reply]:
    task, body = server.task, server.engine.BODY
    return lambda prompt, stopped: complete(task.port, task.model, prompt, new_tokens, body, stopped=stopped)
