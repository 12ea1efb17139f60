"""A closed loop of requests: so many streams at once, each with the next as soon as its last is answered.

A stream's first request warms up. What is timed begins when every stream has had its first reply and ends
while all are still busy, so that nothing is counted that ran under less load. Prompts are random token ids
from a seed and all differ, so that no server finds one in its cache.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from ...errors import EngineError, InputError
from ...terminal.progress import Progress
from ..speed.protocol import Protocol
from .client import Reply

MOST_CONCURRENCY = 1024
# Below so many a ninetieth percentile rests on fewer than ten; more are not needed.
ENOUGH = 100
# Beyond what was planned for a level, seconds until it is given up.
_GRACE_S = 900.0
_LOOK_S = 1.0
_JOIN_S = 5.0

Ask = Callable[[list[int], Callable[[], bool]], Reply]


@dataclass(frozen=True)
class LoadPlan:
    """How a level is run.

    Attributes:
        fewest: requests that are timed at least, and one of each stream.
        most_seconds: how long further requests are timed, up to a hundred.
    """

    prompt_tokens: int
    vocabulary: int
    fewest: int
    most_seconds: float
    seed: int

    def prompt(self, concurrency: int, number: int) -> list[int]:
        """The ids of a level's request."""
        generator = np.random.default_rng([self.seed, concurrency, number])
        ids: list[int] = generator.integers(0, self.vocabulary, self.prompt_tokens).tolist()
        return ids


@dataclass(frozen=True)
class LoadAsked:
    """Under what load an engine is measured.

    Attributes:
        concurrency: numbers of requests at once, one after the other.
        prompt_tokens, new_tokens: of every request, exactly so many.
        threads: of the server, where it computes on the CPU; this machine's budget when None.
        protocol: ``blocks`` requests at least, and further ones for ``most_seconds``, up to a hundred.
    """

    concurrency: Sequence[int]
    prompt_tokens: int = 128
    new_tokens: int = 128
    threads: int | None = None
    protocol: Protocol = field(default_factory=Protocol)

    @property
    def context(self) -> int:
        """Tokens of a prompt with its reply."""
        return self.prompt_tokens + self.new_tokens

    def check(self) -> None:
        """Refuse what cannot be measured."""
        if not self.concurrency or not all(1 <= count <= MOST_CONCURRENCY for count in self.concurrency):
            named = ",".join(map(str, self.concurrency))
            raise InputError(f"concurrency is {named}, each must be 1 to {MOST_CONCURRENCY}")
        if self.new_tokens < 2:
            raise InputError("one new token has no time per token", fix="use --max-new-tokens 2 or more")

    def plan(self, vocabulary: int) -> LoadPlan:
        """How each level is run on a model with so many tokens."""
        protocol = self.protocol
        return LoadPlan(self.prompt_tokens, vocabulary, protocol.blocks, protocol.most_seconds, protocol.seed)


@dataclass
class Level:
    """What ``concurrency`` streams gave between ``began`` and ``ended``, on ``time.perf_counter``.

    Attributes:
        replies: those that were sent and answered in between.
        arrivals: of every event in between its moment and its tokens, also of replies that were not whole.
        resident: bytes that the server held at most, looked at once a second.
    """

    concurrency: int
    began: float
    ended: float
    replies: list[Reply] = field(default_factory=list)
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    resident: int = 0

    def rates(self, windows: int) -> list[float]:
        """Tokens per second of all streams, in so many equal windows."""
        edges = np.linspace(self.began, self.ended, windows + 1)
        moments, tokens = zip(*self.arrivals, strict=True)
        found, _ = np.histogram(moments, edges, weights=tokens)
        rates: list[float] = (found * windows / (self.ended - self.began)).tolist()
        return rates


class _Streams:
    """The threads of a level, and what they share."""

    def __init__(self, ask: Ask, concurrency: int, plan: LoadPlan) -> None:
        self._ask, self._plan, self.concurrency = ask, plan, concurrency
        self.changed, self.stop = threading.Condition(), threading.Event()
        self.done: list[Reply] = []
        self.given_up: list[Reply] = []
        self.began = 0.0  # when the last stream had its first reply
        self._warm = 0
        self.error: EngineError | None = None
        self._numbers = count()
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(concurrency)]

    def _run(self) -> None:
        first = True
        while not self.stop.is_set():
            with self.changed:
                number = next(self._numbers)
            try:
                reply = self._ask(self._plan.prompt(self.concurrency, number), self.stop.is_set)
            except EngineError as error:
                with self.changed:
                    self.error = self.error or error
                    self.changed.notify_all()
                return
            with self.changed:
                (self.done if reply.complete else self.given_up).append(reply)
                self._warm += first
                if first and self._warm == self.concurrency:
                    self.began = time.perf_counter()
                self.changed.notify_all()
            first = False


def run_level(
    ask: Ask,
    concurrency: int,
    plan: LoadPlan,
    progress: Progress,
    *,
    alive: Callable[[], None],
    resident: Callable[[], int],
) -> Level:
    """Run one level of load.

    Args:
        ask: sends a prompt and gives the reply; its second argument says whether to give up.
        alive: raises where the server has died; it explains more than a request that was broken off.
        resident: bytes that the server holds now.
    """
    streams = _Streams(ask, concurrency, plan)
    wanted, started, held = max(plan.fewest, concurrency), time.perf_counter(), 0
    for thread in streams.threads:
        thread.start()
    try:
        with progress.task(f"{concurrency} at once", wanted + concurrency) as task:
            seen = 0
            while True:
                with streams.changed:
                    streams.changed.wait(_LOOK_S)
                    error, began, done = streams.error, streams.began, list(streams.done)
                now = time.perf_counter()
                held = max(held, resident())
                if error is not None:
                    alive()
                    raise error
                timed = [reply for reply in done if began and reply.sent >= began]
                task.advance(min(len(done), wanted + concurrency) - seen, f"{len(timed)} requests timed")
                seen = min(len(done), wanted + concurrency)
                if began and _enough(len(timed), wanted, now - began, plan):
                    break
                if now - started > plan.most_seconds + _GRACE_S:
                    raise EngineError(
                        f"{len(timed)} of {wanted} requests were answered in {now - started:.0f} s",
                        fix="lower --concurrency, --prompt-tokens or --max-new-tokens",
                    )
    finally:
        streams.stop.set()
    return _level(streams, concurrency, began, now, held)


def _enough(timed: int, wanted: int, seconds: float, plan: LoadPlan) -> bool:
    return timed >= wanted and (timed >= ENOUGH or seconds >= plan.most_seconds)


def _level(streams: _Streams, concurrency: int, began: float, ended: float, held: int) -> Level:
    """What happened between the two moments; the streams are given time to end."""
    until = time.perf_counter() + _JOIN_S
    for thread in streams.threads:
        thread.join(max(until - time.perf_counter(), 0))
    with streams.changed:
        done, every = list(streams.done), [*streams.done, *streams.given_up]
    found = Level(concurrency, began, ended, resident=held)
    found.replies = [one for one in done if one.sent >= began and one.arrivals[-1][0] <= ended]
    for reply in every:
        had = 0
        for moment, has in reply.arrivals:
            if began <= moment <= ended:
                found.arrivals.append((moment, has - had))
            had = has
    return found
