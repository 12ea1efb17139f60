"""A program that is called as vLLM's is and speaks the same API, honestly or not: ``FAKE_MODE`` says how.

Standard library only: it runs as a server runs, in a process of its own, without edgepress.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODE = os.environ.get("FAKE_MODE", "")
CONFIG = "INFO config: model='x', dtype=torch.bfloat16, quantization=compressed-tensors, device_config=cpu"
DEATHS = {
    "dies": "ValueError: the weights are not to its liking",
    "refuses": "NotImplementedError: No compressed-tensors compatible scheme was found for layer_name='q'",
    "taken": "OSError: [Errno 98] Address already in use",
    "memory": "RuntimeError: unable to allocate 90 GB",
}


class Handler(BaseHTTPRequestHandler):
    """Answers as vLLM 0.32 does, as far as the client looks."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = "another" if MODE == "other" else OPTIONS.served_model_name
        answers = {
            "/v1/models": {"object": "list", "data": [{"id": name}]},
            "/version": {"version": "0.32.0"},
        }
        self._answer(answers[self.path])

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if os.environ.get("VLLM_API_KEY"):  # and the request has none
            self._answer({"error": "Unauthorized"}, 401)
            return
        if MODE == "rejects":
            self._answer({"error": "no"}, 400)
            return
        assert request["stream"] and request["ignore_eos"] and len(request["prompt"]) > 0
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            for event in self._events(request):
                self.wfile.write(event)
        except OSError:
            return
        self.close_connection = True

    def _events(self, request: dict[str, object]):  # type: ignore[no-untyped-def]
        count = int(request["max_tokens"])  # type: ignore[call-overload]
        if MODE == "exits":
            os._exit(3)
        if MODE == "huge":
            yield b"data: " + b"x" * (1 << 20)
        if MODE == "no json":
            yield b'data: {"choices": [{"text": [[[[\n\n'
        while MODE == "endless":
            yield _event("x", 1)
        for number in range(1, count + 1 - (MODE == "short")):
            time.sleep(0.002)
            yield _event("x", number)
        yield (
            b"data: " + json.dumps({"choices": [], "usage": {"completion_tokens": count}}).encode() + b"\n\n"
        )
        yield b"data: [DONE]\n\n"

    def _answer(self, document: object, status: int = 200) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def _event(text: str, number: int) -> bytes:
    usage = {"prompt_tokens": 8, "completion_tokens": number}
    return (
        b"data: " + json.dumps({"choices": [{"index": 0, "text": text}], "usage": usage}).encode() + b"\n\n"
    )


def _start_another() -> None:
    """A process in a session of its own that does not stop when it is asked to; numbers are written down."""
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    Path(os.environ["FAKE_PIDS"]).write_text(f"{os.getpid()} {child.pid}", encoding="ascii")


parser = argparse.ArgumentParser()
parser.add_argument("verb")
parser.add_argument("checkpoint")
for option in ("--served-model-name", "--host", "--port", "--max-model-len", "--max-num-seqs"):
    parser.add_argument(option, required=True)
OPTIONS, _ = parser.parse_known_args()
print(CONFIG, flush=True)
assert "PYTHONPATH" not in os.environ
if "FAKE_PIDS" in os.environ:
    _start_another()
if MODE in DEATHS:
    print(DEATHS[MODE], *(f"line {number}" for number in range(20)), sep="\n", file=sys.stderr)
    sys.exit(1)
if MODE == "killed":
    os.kill(os.getpid(), 9)
while MODE == "floods":  # and never answers
    print("x" * 1000)
ThreadingHTTPServer((OPTIONS.host, int(OPTIONS.port)), Handler).serve_forever()
