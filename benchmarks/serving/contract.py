"""What an engine that serves checkpoints says of itself: how its server is started, what it cannot serve.

The server speaks OpenAI's API over HTTP on the loopback: ``/v1/models``, and ``/v1/completions`` with a
prompt of token ids, as a stream of events; and ``/version``.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from ...errors import MissingDependency
from ...plugins import load, names

_ENGINES = f"{__package__}.engines"


@dataclass(frozen=True)
class ServingTask:
    """A checkpoint to serve.

    Attributes:
        model: the name that requests call it by.
        context: tokens of the longest prompt with its reply.
        concurrency: the most requests at once.
        threads: of the computation, where it runs on the CPU.
        cache_bytes: of the keys and values of all requests at once, in 16 bits.
    """

    checkpoint: Path
    model: str
    port: int
    context: int
    concurrency: int
    threads: int
    cache_bytes: int


class ServingEngine(Protocol):
    """A module of :mod:`.engines`.

    Attributes:
        TITLE: for tables.
        EXECUTABLE: the program that is looked for on PATH; ``VARIABLE`` of the environment names another.
        INSTALL: the line that installs it, in an environment of its own.
        BODY: what a request says beside model, prompt and length, so that a reply has exactly so many tokens.
        MEMORY: bytes of main memory that the server takes without a model.
        REFUSALS: words of its errors that mean: this form of checkpoint is not served.
    """

    TITLE: str
    EXECUTABLE: str
    VARIABLE: str
    INSTALL: str
    BODY: Mapping[str, Any]
    MEMORY: int
    REFUSALS: Sequence[str]

    def refusal(self, config: Mapping[str, Any]) -> str:
        """Why a checkpoint with this ``config.json`` cannot be served; "" where it can be tried."""
        ...

    def command(self, program: str, task: ServingTask) -> list[str]:
        """How ``program`` is called to serve."""
        ...

    def variables(self, task: ServingTask) -> dict[str, str]:
        """Of the server's environment."""
        ...

    def settings(self, log: str) -> dict[str, str]:
        """What the server chose, as it printed it: ``device``, ``dtype`` and more, where they are there."""
        ...


def engine_names() -> list[str]:
    """All of them."""
    return [name.replace("_", "-") for name in names(_ENGINES)]


def engine(name: str) -> ServingEngine:
    """The engine ``name``; raises UnknownName."""
    return cast(ServingEngine, load(_ENGINES, name, "engine"))


def executable(chosen: ServingEngine) -> str:
    """The path of the engine's program."""
    wanted = os.environ.get(chosen.VARIABLE) or chosen.EXECUTABLE
    found = shutil.which(wanted)
    if found is None:
        named = f"{chosen.VARIABLE} is {wanted}" if wanted != chosen.EXECUTABLE else f"no {wanted} on PATH"
        raise MissingDependency(
            f"{chosen.TITLE} is not installed",
            why=f"{named}, which is no program that can be run" if wanted != chosen.EXECUTABLE else named,
            fix=f"in an environment of its own: {chosen.INSTALL}; then put its {chosen.EXECUTABLE} on PATH, "
            f"or name it: {chosen.VARIABLE}=ENVIRONMENT/bin/{chosen.EXECUTABLE}",
        )
    return str(Path(found).absolute())
