"""Requests to a server on this machine that speaks OpenAI's API, with the moment at which each token came.

Answers are read as a stranger's text: lines, replies and their number of events are bounded, and a stream of
another form is an error. A slow drip within these bounds ends with the run's own limit of time.
"""

import http.client
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...errors import EngineError

HOST = "127.0.0.1"
# Seconds without a byte after which a server is taken for dead.
SILENCE_S = 300.0
_LONGEST_LINE, _LONGEST_ANSWER = 1 << 16, 1 << 20
# Of a stream: lines beside those of its tokens, blank ones between events among them.
_OTHER_LINES = 64
_SHOWN = 300


class NoAnswer(Exception):
    """Nobody answers, or not yet as a server that is ready."""


class _Form(BaseModel):
    """These fields, whatever else is there."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Model(_Form):
    id: Annotated[str, Field(max_length=200)]


class _Models(_Form):
    data: Annotated[list[_Model], Field(max_length=64)]


class _Version(_Form):
    version: Annotated[str, Field(max_length=80, pattern=r"^[\x21-\x7e]*$")]


class _Choice(_Form):
    text: Annotated[str, Field(max_length=_LONGEST_LINE)]


class _Usage(_Form):
    completion_tokens: Annotated[int, Field(ge=0, le=1 << 24)] = 0
    prompt_tokens: Annotated[int, Field(ge=0, le=1 << 24)] = 0


class _Event(_Form):
    choices: Annotated[list[_Choice], Field(max_length=1)]
    usage: _Usage | None = None


@dataclass
class Reply:
    """A request and what came, on the clock of ``time.perf_counter``.

    Attributes:
        arrivals: of each event with tokens its moment, and how many tokens there were then in all.
        complete: whether all tokens came; a request that was given up has fewer.
    """

    sent: float
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    complete: bool = False

    @property
    def first_s(self) -> float:
        """Seconds to the first token."""
        return self.arrivals[0][0] - self.sent

    @property
    def seconds(self) -> float:
        """To the last token."""
        return self.arrivals[-1][0] - self.sent

    def gaps_s(self) -> list[float]:
        """Seconds from token to token; tokens that came together share the time before them."""
        found: list[float] = []
        for (before, had), (now, has) in zip(self.arrivals, self.arrivals[1:], strict=False):
            found += [(now - before) / (has - had)] * (has - had)
        return found


def models(port: int, *, timeout_s: float) -> list[str]:
    """The names of what the server at ``port`` serves."""
    return [one.id for one in _get(port, "/v1/models", _Models, timeout_s).data]


def version(port: int, *, timeout_s: float) -> str:
    """Of the engine, by its own word; raises :class:`NoAnswer`."""
    found: _Version = _get(port, "/version", _Version, timeout_s)
    return found.version


def _get(port: int, path: str, form: type[Any], timeout_s: float) -> Any:
    try:
        with closing(http.client.HTTPConnection(HOST, port, timeout=timeout_s)) as connection:
            connection.request("GET", path)
            with closing(connection.getresponse()) as answer:
                data = answer.read(_LONGEST_ANSWER)
            if answer.status != http.client.OK:
                raise NoAnswer(f"{path}: status {answer.status}")
            return form.model_validate_json(data)
    except (OSError, http.client.HTTPException, ValidationError) as error:
        raise NoAnswer(f"{path}: {error}") from None


def complete(
    port: int,
    model: str,
    prompt: Sequence[int],
    new_tokens: int,
    body: Mapping[str, Any],
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> Reply:
    """Send ``prompt`` and read exactly ``new_tokens`` tokens, or until ``stopped``.

    Args:
        body: what the request says beside these.
    """
    wanted = {"model": model, "prompt": list(prompt), "max_tokens": new_tokens, "stream": True, **body}
    try:
        with closing(http.client.HTTPConnection(HOST, port, timeout=SILENCE_S)) as connection:
            reply = Reply(time.perf_counter())
            connection.request(
                "POST", "/v1/completions", json.dumps(wanted), {"Content-Type": "application/json"}
            )
            with closing(connection.getresponse()) as answer:  # its file holds the socket open, too
                if answer.status != http.client.OK:
                    said = answer.read(_LONGEST_LINE).decode("utf-8", errors="replace")
                    raise EngineError(
                        f"the server refused a request with status {answer.status}", why=said[:_SHOWN]
                    )
                _read(answer, reply, new_tokens, stopped)
    except (OSError, http.client.HTTPException) as error:
        raise EngineError(
            "the server broke off a reply", why=f"{type(error).__name__}: {str(error)[:_SHOWN]}"
        ) from None
    return reply


def _read(
    answer: http.client.HTTPResponse, reply: Reply, new_tokens: int, stopped: Callable[[], bool]
) -> None:
    """The events of a stream into ``reply``."""
    had = 0
    for _ in range(2 * new_tokens + _OTHER_LINES):
        line = answer.readline(_LONGEST_LINE + 1)
        now = time.perf_counter()
        if stopped():
            return
        if len(line) > _LONGEST_LINE:
            _refuse(f"a line of more than {_LONGEST_LINE:,} bytes")
        if not line or line.strip() == b"data: [DONE]":
            break
        if not line.startswith(b"data:"):
            continue  # a blank line between events, or a comment
        event = _event(line[5:])
        if event.choices:
            # Where the server counts along, tokens that came together are known as such, and an event
            # without one, such as that of the reason to end, too.
            has = event.usage.completion_tokens if event.usage else had + 1
            if has > had:
                had = has
                reply.arrivals.append((now, had))
        elif event.usage:
            had = event.usage.completion_tokens
    else:
        _refuse(f"a stream that does not end after {new_tokens} tokens")
    if had != new_tokens or not reply.arrivals or reply.arrivals[-1][1] != new_tokens:
        _refuse(f"{had} tokens where {new_tokens} were asked for")
    reply.complete = True


def _event(data: bytes) -> _Event:
    try:
        return _Event.model_validate_json(data)
    except ValidationError as error:
        found = error.errors()[0]
        said = data[:80].decode("utf-8", errors="replace").strip()
        _refuse(f"an event of another form ({found['msg'][:100]}): {said}")


def _refuse(what: str) -> NoReturn:
    raise EngineError("the server's reply is not that of an OpenAI-compatible server", why=f"it sent {what}")
