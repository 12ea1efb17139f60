"""The audit fails on known holes and on exceptions that have ended; without an answer there is none."""

import json
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from dependency_audit import ALLOWED, allowed, ask, installed, judge, main

TODAY = date(2026, 11, 28)
HOLE = {"id": "PYSEC-2024-1", "aliases": ["CVE-2024-22195", "GHSA-h5c8"], "fix_versions": ["3.1.3"]}
REPORT = {
    "dependencies": [
        {"name": "jinja2", "version": "3.1.2", "vulns": [HOLE]},
        {"name": "click", "version": "8.5.1", "vulns": []},
        {"name": "ours", "skip_reason": "Dependency not found on PyPI"},
    ]
}


def test_a_hole_fails_with_its_way_out() -> None:
    found = judge(REPORT, ())
    assert found.failures == ["jinja2 3.1.2: PYSEC-2024-1, fixed in 3.1.3"]
    assert (found.known, found.unknown) == (2, 1)


@pytest.mark.parametrize("name", ["PYSEC-2024-1", "CVE-2024-22195", "GHSA-h5c8"])
def test_an_allowed_one_passes_by_any_of_its_names(name: str) -> None:
    assert judge(REPORT, {name}).failures == []


def test_an_exception_ends_with_its_day() -> None:
    text = "# id, last day, reason\n\nCVE-1 2026-11-28 not reached\nCVE-2 2026-11-27 no fix yet\n"
    ids, ended = allowed(text, TODAY)
    assert ids == {"CVE-1"}
    assert len(ended) == 1 and ended[0].startswith("CVE-2 was allowed until 2026-11-27 (no fix yet)")


@pytest.mark.parametrize("line", ["CVE-1", "CVE-1 2026-11-28", "CVE-1 soon no fix"])
def test_an_entry_without_day_or_reason_is_none(line: str) -> None:
    with pytest.raises(ValueError):
        allowed(line, TODAY)


def test_the_list_can_be_read() -> None:
    allowed(ALLOWED.read_text(encoding="utf-8"), TODAY)


def test_builds_are_audited_as_the_version_they_are_built_of() -> None:
    packages = installed()
    assert not [package for package in packages if "+" in package]
    assert not [package for package in packages if package.startswith("edgepress==")]


@pytest.mark.chain
def test_a_service_that_knows_no_package_has_not_answered() -> None:
    """Also where there is no network: then there is no report at all."""
    assert ask("pypi", ["edgepress-no-such-package==0.0.1"]) is None


class Osv(BaseHTTPRequestHandler):
    """As api.osv.dev answers a query: what is known of a package, ``{}`` where that is nothing."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]}]
        affected = [{"package": {"name": "jinja2", "ecosystem": "PyPI"}, "ranges": ranges}]
        hole = {"id": "PYSEC-2099-1", "aliases": ["CVE-2099-1"], "summary": "a hole", "affected": affected}
        body = json.dumps({"vulns": [hole]} if asked == "jinja2" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def osv(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A service of vulnerabilities on this machine, which pip-audit asks in the place of OSV's."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Osv) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_AUDIT_OSV_URL", f"http://127.0.0.1:{server.server_address[1]}")
        yield
        server.shutdown()


@pytest.mark.chain
@pytest.mark.parametrize(
    ("days", "code", "said"),
    [
        (None, 1, "PYSEC-2099-1, fixed in 99.0"),
        (1, 0, ""),
        (-1, 1, "CVE-2099-1 was allowed until"),
    ],
    ids=["a hole", "allowed until tomorrow", "allowed until yesterday"],
)
def test_the_program_fails_on_a_hole_until_it_is_allowed_and_after(
    days: int | None, code: int, said: str, osv: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "allowed.txt"
    day = date.today() + timedelta(days or 0)
    listed.write_text("" if days is None else f"CVE-2099-1 {day} templates are our own\n")
    assert main(listed, ["osv"]) == code
    shown = capsys.readouterr().out
    assert shown.startswith(f"audited: {len(installed())} packages") and said in shown
    assert ("jinja2" in shown and "PYSEC-2099-1" in shown) == (code == 1)


@pytest.mark.chain
@pytest.mark.parametrize(("days", "code"), [(1, 0), (-1, 1)])
def test_no_answer_is_no_audit_and_ends_no_exception(
    days: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody listens there. It passes, so that changes can land; an entry whose day has passed fails."""
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", "http://127.0.0.1:1")
    listed = tmp_path / "allowed.txt"
    listed.write_text(f"CVE-2099-1 {date.today() + timedelta(days)} templates are our own\n")
    assert main(listed, ["osv"]) == code
    assert capsys.readouterr().out.startswith("not audited: no service of vulnerabilities answers here (osv)")
