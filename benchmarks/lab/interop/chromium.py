"""A real browser without a window: Chromium opens a page of this process on the loopback address, which runs
a script of ``scripts/`` and sends back what it answers.

WebGPU computes on SwiftShader's adapter, in software, also where there is a GPU. Standard library only.
"""

import json
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .javascript import npm_folder

NAMES = ("chromium", "chromium-browser", "google-chrome")
_SECONDS = 600  # SwiftShader compiles slowly
_WEBGPU = ("--enable-unsafe-webgpu", "--enable-unsafe-swiftshader", "--use-webgpu-adapter=swiftshader")
_PAGE = """<!doctype html><meta charset="utf-8">
<script type="importmap">{"imports": IMPORTS}</script>
<script type="module">
let found;
try {
  const { answer } = await import("/scripts/SCRIPT");
  found = await answer(await (await fetch("/asked")).json());
} catch (error) {
  found = { failed: `${error.name ?? "Error"}: ${error.message ?? error}` };
}
await fetch("/answered", { method: "POST", body: JSON.stringify(found) });
</script>
"""


class _Handler(SimpleHTTPRequestHandler):
    """The page, what it is asked, the packages, scripts and the artifact; and where its answer goes."""

    protocol_version = "HTTP/1.1"

    def __init__(
        self, *given: Any, pages: dict[str, bytes], folders: dict[str, Path], answers: queue.Queue[bytes]
    ) -> None:
        self.pages, self.folders, self.answers = pages, folders, answers
        super().__init__(*given)

    def do_GET(self) -> None:
        if self.path not in self.pages:
            super().do_GET()
            return
        self._send(self.pages[self.path], "text/html" if self.path == "/" else "application/json")

    def do_POST(self) -> None:
        self.answers.put(self.rfile.read(int(self.headers["Content-Length"])))
        self._send(b"", "text/plain")

    def translate_path(self, path: str) -> str:
        first, _, rest = path.lstrip("/").partition("/")
        folder = self.folders.get(first)
        if folder is None or ".." in rest:
            return "/nowhere"
        return str(folder / rest.partition("?")[0])

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def run_page(
    script: str,
    artifact: Path,
    asked: dict[str, Any],
    packages: Sequence[str],
    imports: dict[str, str] | None = None,
) -> dict[str, Any]:
    """What ``script`` answers in a page to ``asked``, of the files of ``artifact``; ``imports`` says where
    the packages lie that the script's own packages import.
    """
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        raise RuntimeError("Chromium is not installed")
    place, answered = npm_folder(packages), queue.Queue[bytes]()
    page = _PAGE.replace("IMPORTS", json.dumps(imports or {})).replace("SCRIPT", script)
    handler = partial(
        _Handler,
        pages={"/": page.encode(), "/asked": json.dumps(asked).encode()},
        folders={"packages": place / "node_modules", "scripts": place, "artifact": artifact},
        answers=answered,
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless", "--no-sandbox", "--no-first-run", "--disable-extensions", *_WEBGPU]
        browser = subprocess.Popen(
            [program, *options, f"--user-data-dir={profile}", f"http://127.0.0.1:{server.server_port}/"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            body = answered.get(timeout=_SECONDS)
        except queue.Empty:
            raise RuntimeError(f"the page did not answer in {_SECONDS} s") from None
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
            server.server_close()
    found: dict[str, Any] = json.loads(body)
    if "failed" in found:
        raise RuntimeError(found["failed"])
    return found
