"""The audit fails on known holes and on exceptions that have ended; without an answer there is none."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from dependency_audit import ALLOWED, allowed, ask, installed, judge

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
