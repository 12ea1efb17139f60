"""A model hub on the loopback: what of the Hugging Face Hub's API its client uses."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c" * 40


class Hub:
    """Serves the files of ``folder`` as ``org/tiny``; ``org/gated`` is not for everyone, others are absent.

    Of a file named in ``cut`` the next so many answers end after half of what was asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.cut = folder, dict[str, int]()
        self.ranges: list[str] = []
        self.served: list[str] = []
        hub = self

        class Handler(_Handler):
            serving = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[Hub]:
        """Answer until the end of the block."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    serving: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        """What an upload asks for; the files come in the commit."""
        sent = self.rfile.read(int(self.headers["Content-Length"])).decode()
        path = self.path.partition("?")[0].strip("/")
        if path == "api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif path == "api/repos/create":
            given = json.loads(sent)
            self._json({"url": f"{self.serving.address}/{given['organization']}/{given['name']}"})
        elif path == "api/models/org/tiny/preupload/main":
            told = {"uploadMode": "regular", "shouldIgnore": False}
            self._json({"files": [{"path": file["path"], **told} for file in json.loads(sent)["files"]]})
        elif path == "api/models/org/tiny/commit/main":
            for value in (
                line["value"] for line in map(json.loads, sent.splitlines()) if line["key"] == "file"
            ):
                (self.serving.folder / value["path"]).write_bytes(base64.b64decode(value["content"]))
            self._json({"commitUrl": f"{self.serving.address}/org/tiny/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self._error(403, "", "You do not have the rights to write to this model.")

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0].strip("/")
        model = "/".join(path.removeprefix("api/models/").split("/")[:2])
        if model == "org/gated":
            return self._error(403, "GatedRepo", "Access to model org/gated is restricted.")
        if model != "org/tiny":
            # The Hub does not say whether a repository is absent or private.
            return self._error(401, "RepoNotFound", "Invalid username or password.")
        if path == f"api/models/{model}/revision/main":
            return self._json({"id": model, "sha": COMMIT, "siblings": [], "tags": []})
        if path == f"api/models/{model}/tree/{COMMIT}":
            return self._json([self._entry(file) for file in sorted(self.serving.folder.iterdir())])
        file = self.serving.folder / Path(path).name
        if path != f"{model}/resolve/{COMMIT}/{file.name}" or not file.is_file():
            return self._error(404, "EntryNotFound", "Entry not found")
        return self._file(file, body=body)

    def _entry(self, file: Path) -> dict[str, object]:
        data = file.read_bytes()
        return {"type": "file", "path": file.name, "size": len(data), "oid": _etag(data)[:40]}

    def _file(self, file: Path, *, body: bool) -> None:
        data, hub = file.read_bytes(), self.serving
        wanted = self.headers.get("Range", "")
        first = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", f'"{_etag(data)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
            hub.ranges.append(f"{file.name} from {first}")
        rest = data[first:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if not body:
            return
        hub.served.append(file.name)
        if hub.cut.get(file.name, 0) > 0:
            hub.cut[file.name] -= 1
            rest = rest[: len(rest) // 2]
            self.close_connection = True
        self.wfile.write(rest)

    def _json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _error(self, status: int, code: str, said: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", said)
        self.send_header("Content-Length", "0")
        self.end_headers()
