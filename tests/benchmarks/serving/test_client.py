"""A client of hostile servers: whatever is not a reply of so many tokens is a typed error."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from edgepress.benchmarks.serving import client
from edgepress.errors import EngineError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def read_request(connection: socket.socket) -> None:
    """Whole: a connection that is closed with something unread is reset, and the answer lost."""
    with connection.makefile("rb") as stream:
        head = list(iter(stream.readline, b"\r\n"))
        stream.read(
            sum(int(line.split(b":")[1]) for line in head if line.lower().startswith(b"content-length"))
        )


@contextmanager
def answering(*parts: bytes, repeat: bytes = b"") -> Iterator[int]:
    """The port of a server that reads one request, sends ``parts``, and ``repeat`` until nobody reads."""
    with socket.create_server((client.HOST, 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                read_request(connection)
                try:
                    connection.sendall(b"".join(parts))
                    while repeat:
                        connection.sendall(repeat)
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def event(tokens: int | None = None, text: str = "x") -> bytes:
    usage = {} if tokens is None else {"usage": {"completion_tokens": tokens, "prompt_tokens": 1}}
    return (
        b"data: "
        + json.dumps({"choices": [{"text": text, "index": 0}], "id": "a", **usage}).encode()
        + b"\n\n"
    )


def ask(port: int, tokens: int = 3) -> client.Reply:
    return client.complete(port, "model", [1, 2], tokens, {})


def test_a_reply_has_the_moment_of_each_token() -> None:
    with answering(HEAD, b": a comment\n\n", event(1), event(2), event(3), DONE) as port:
        reply = ask(port)
    assert [tokens for _, tokens in reply.arrivals] == [1, 2, 3] and reply.complete
    assert 0 < reply.first_s <= reply.seconds and len(reply.gaps_s()) == 2


def test_events_are_tokens_where_the_server_does_not_count() -> None:
    with answering(HEAD, event(), event(text=""), event(), DONE) as port:
        assert [tokens for _, tokens in ask(port).arrivals] == [1, 2, 3]


def test_an_event_without_a_token_is_none() -> None:
    parts = (event(0, ""), event(1), event(1, ""), event(3), event(3, ""), DONE)
    with answering(HEAD, *parts) as port:
        reply = ask(port)
    assert [tokens for _, tokens in reply.arrivals] == [1, 3] and reply.complete
    assert len(reply.gaps_s()) == 2


def test_tokens_that_come_together_share_the_time() -> None:
    with answering(HEAD, event(1), event(5), DONE) as port:
        gaps = ask(port, 5).gaps_s()
    assert len(gaps) == 4 and len(set(gaps)) == 1


def test_a_reply_that_is_given_up_is_not_complete() -> None:
    with answering(HEAD, event(1), event(2), event(3), DONE) as port:
        reply = client.complete(port, "model", [1], 3, {}, stopped=lambda: True)
    assert not reply.complete and not reply.arrivals


@pytest.mark.parametrize(
    ("parts", "repeat", "said"),
    [
        ((HEAD,), event(1), "does not end"),
        ((HEAD,), event(), "does not end"),
        ((HEAD,), b"\n", "does not end"),
        ((HEAD,), b": nothing\n", "does not end"),
        ((HEAD, b"data: " + b"x" * (1 << 17)), b"", "a line of more than"),
        ((HEAD, b"data: {\n\n"), b"", "another form"),
        ((HEAD, b"data: " + b"[" * 60000 + b"\n\n"), b"", "another form"),
        ((HEAD, b'data: {"choices": [{"text": 1}]}\n\n'), b"", "another form"),
        ((HEAD, b'data: {"choices": [{"text": "a"}, {"text": "b"}]}\n\n'), b"", "another form"),
        ((HEAD, b'data: {"choices": [], "usage": {"completion_tokens": -1}}\n\n'), b"", "another form"),
        ((HEAD, b"data: \xff\xfe\n\n"), b"", "another form"),
        ((HEAD, event(1), event(2), DONE), b"", "2 tokens where 3"),
        ((HEAD, event(1), event(9), DONE), b"", "9 tokens where 3"),
        ((HEAD, DONE), b"", "0 tokens where 3"),
        ((HEAD,), b"", "0 tokens where 3"),
        ((b"HTTP/1.1 200 OK\r\n", b"A: b\r\n" * 200, b"\r\n"), b"", "HTTPException"),
        ((b"x" * 100,), b"", "BadStatusLine"),
        ((b"",), b"", "RemoteDisconnected"),
        ((b"HTTP/1.1 500 No\r\nConnection: close\r\n\r\nout of luck",), b"", "out of luck"),
    ],
)
def test_other_answers_are_typed(parts: tuple[bytes, ...], repeat: bytes, said: str) -> None:
    with answering(*parts, repeat=repeat) as port, pytest.raises(EngineError) as caught:
        ask(port)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{",
        b"HTTP/1.1 404 No\r\nConnection: close\r\n\r\n{}",
        b"SSH-2.0\r\n",
    ],
)
def test_what_serves_no_models_gives_no_answer(answer: bytes) -> None:
    with answering(answer) as port, pytest.raises(client.NoAnswer):
        client.models(port, timeout_s=5)


def test_nobody_there_gives_no_answer() -> None:
    with socket.create_server((client.HOST, 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(client.NoAnswer):
        client.models(port, timeout_s=5)
