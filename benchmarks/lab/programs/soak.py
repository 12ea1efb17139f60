"""Many threads on two open bundles: answers compared with those of a thread alone; memory and descriptors.

    python -m edgepress.benchmarks.lab.programs.soak DECODER ENCODER [--minutes 30] [--threads 64]

Each thread takes one of four works at random: an answer to its end; one that it leaves after a few pieces; a
batch; an embedding. A stream may be ended by another thread's, which is an error that says so, and no other.
"""

import argparse
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ....errors import InputError
from ....runtime.api import EmbeddingModel, TextModel, open_bundle
from ..study.page import write_table

COMMAND = "python -m edgepress.benchmarks.lab.programs.soak DECODER ENCODER"
_TOPICS = ("rivers", "coins", "snow", "trains", "bread", "maps", "clocks", "glass", "salt", "bees")
_PROMPTS = [f"Tell me {how} about {what}." for what in _TOPICS for how in ("something", "a story")]
_BATCHES = [_PROMPTS[start : start + 3] for start in range(0, len(_PROMPTS), 3)]
_NEW_TOKENS = 12
_SETTLED = 60.0  # seconds after which memory has to be flat


@dataclass
class Soak:
    """What the threads share.

    Attributes:
        done, wrong: works that ended, and whose answers were others than alone, by kind.
        readings: ``(seconds, resident bytes, open descriptors)``.
    """

    decoder: TextModel
    encoder: EmbeddingModel
    done: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    readings: list[tuple[float, int, int]] = field(default_factory=list)
    counting: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.alone: dict[str, list[Any]] = {
            name: [work(index) for index in range(count)] for name, (work, count) in self.works().items()
        }

    def works(self) -> dict[str, tuple[Callable[[int], Any], int]]:
        """By name: what is done with the number of an input, and how many inputs there are."""
        return {
            "answers": (self.answer, len(_PROMPTS)),
            "batches": (self.batch, len(_BATCHES)),
            "embeddings": (lambda index: self.encoder.encode([_PROMPTS[index]]).tobytes(), len(_PROMPTS)),
        }

    def answer(self, index: int) -> tuple[int, ...]:
        """Every second prompt is answered by drawing."""
        temperature = float(index % 2)
        options: Any = {"temperature": temperature, "seed": index, "max_new_tokens": _NEW_TOKENS}
        return self.decoder.generate(_PROMPTS[index], **options).token_ids

    def batch(self, index: int) -> list[tuple[int, ...]]:
        """The answers to three prompts, side by side."""
        replies = self.decoder.generate_batch(_BATCHES[index], max_new_tokens=_NEW_TOKENS)
        return [reply.token_ids for reply in replies]

    def leave(self, random_one: random.Random) -> None:
        """Begin an answer and go away."""
        stream = self.decoder.stream(random_one.choice(_PROMPTS), max_new_tokens=_NEW_TOKENS)
        for _ in range(random_one.randrange(4)):
            next(stream, None)

    def run(self, seed: int, until: float) -> None:
        """One thread's work."""
        random_one, works = random.Random(seed), self.works()
        while time.monotonic() < until:
            name = random_one.choice([*works, "left"])
            if name == "left":
                try:
                    self.leave(random_one)
                except InputError as error:
                    name = (
                        "left, ended by another" if "ended by the next one" in str(error) else "left, failed"
                    )
                same = name != "left, failed"
            else:
                work, count = works[name]
                index = random_one.randrange(count)
                same = work(index) == self.alone[name][index]
            with self.counting:
                self.done[name] += 1
                self.wrong[name] += not same

    def soak(self, threads: int, seconds: float) -> None:
        """Let so many ``threads`` work for so long."""
        process, began = psutil.Process(), time.monotonic()
        workers = [threading.Thread(target=self.run, args=(seed, began + seconds)) for seed in range(threads)]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            self.readings.append((time.monotonic() - began, process.memory_info().rss, process.num_fds()))
            time.sleep(min(5, seconds / 20))
        for worker in workers:
            worker.join()

    def growth(self) -> tuple[int, int]:
        """Bytes and descriptors that the last tenth of the time had more than the first minutes."""
        end = self.readings[-1][0]
        early = [
            one for one in self.readings if min(_SETTLED, end / 3) <= one[0] <= min(3 * _SETTLED, end / 2)
        ]
        late = [one for one in self.readings if one[0] >= 0.9 * end]
        return tuple(max(one[at] for one in late) - max(one[at] for one in early) for at in (1, 2))  # type: ignore[return-value]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("decoder", type=Path)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/lab/results"))
    arguments = parser.parse_args()
    decoder, encoder = open_bundle(arguments.decoder), open_bundle(arguments.encoder)
    assert isinstance(decoder, TextModel) and isinstance(encoder, EmbeddingModel)
    soak = Soak(decoder, encoder)
    soak.soak(arguments.threads, 60 * arguments.minutes)
    grown, descriptors = soak.growth()
    rows = [[name, f"{count:,}", str(soak.wrong[name])] for name, count in sorted(soak.done.items())]
    notes = [
        f"{arguments.threads} threads for {arguments.minutes:g} minutes; answers are compared with those of "
        "a thread alone, token by token, embeddings bit by bit.",
        f"Memory at the end, to that after the first minute: {grown / 1e6:+.1f} MB of "
        f"{soak.readings[-1][1] / 1e6:.0f}; descriptors {descriptors:+d}.",
    ]
    write_table(arguments.results / "soak.md", "Load", COMMAND, ["work", "done", "wrong"], rows, notes)


if __name__ == "__main__":
    main()
