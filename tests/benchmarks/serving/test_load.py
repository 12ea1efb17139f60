"""The closed loop: what is counted, and when it ends."""

import threading
import time
from collections.abc import Callable

import pytest
from edgepress.benchmarks.serving.client import Reply
from edgepress.benchmarks.serving.load import Level, LoadPlan, run_level
from edgepress.errors import EngineError, OutOfResource
from edgepress.terminal.progress import Silent

PLAN = LoadPlan(prompt_tokens=4, vocabulary=50, fewest=6, most_seconds=0, seed=0)


class Server:
    """Answers each prompt with three tokens, and notes how many it had at once."""

    def __init__(self, fails: int = 10**9) -> None:
        self.prompts: list[list[int]] = []
        self.at_once = self.most = 0
        self.fails, self.lock = fails, threading.Lock()

    def ask(self, prompt: list[int], stopped: Callable[[], bool]) -> Reply:
        with self.lock:
            self.prompts.append(prompt)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            if len(self.prompts) > self.fails:
                raise EngineError("broken")
        reply = Reply(time.perf_counter())
        for tokens in (1, 2, 3):
            time.sleep(0.001)
            reply.arrivals.append((time.perf_counter(), tokens))
        reply.complete = not stopped()
        with self.lock:
            self.at_once -= 1
        return reply


def level(server: Server, concurrency: int, alive: Callable[[], None] = lambda: None) -> Level:
    return run_level(server.ask, concurrency, PLAN, Silent(), alive=alive, resident=lambda: 5)


@pytest.mark.parametrize("concurrency", [1, 3, 12])
def test_every_stream_is_busy_and_warm_ups_are_not_counted(concurrency: int) -> None:
    server = Server()
    found = level(server, concurrency)
    assert server.most == concurrency and found.resident == 5
    assert max(PLAN.fewest, concurrency) <= len(found.replies) <= len(server.prompts) - concurrency
    assert all(found.began <= one.sent and one.arrivals[-1][0] <= found.ended for one in found.replies)
    assert all(len(prompt) == 4 and max(prompt) < 50 for prompt in server.prompts)
    assert len({tuple(prompt) for prompt in server.prompts}) == len(server.prompts)


def test_rates_hold_every_token_between_the_two_moments() -> None:
    found = Level(1, 10.0, 14.0, arrivals=[(10.5, 2), (11.5, 2), (13.0, 4), (13.9, 4)])
    assert found.rates(2) == [2.0, 4.0]
    assert found.rates(1) == [3.0]


def test_the_first_error_ends_the_level() -> None:
    with pytest.raises(EngineError, match="broken"):
        level(Server(fails=4), 2)


def test_a_dead_server_says_more_than_a_broken_reply() -> None:
    def dead() -> None:
        raise OutOfResource("it was killed")

    with pytest.raises(OutOfResource, match="it was killed"):
        level(Server(fails=4), 2, dead)
