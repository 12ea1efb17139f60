"""The changelog has the form of Keep a Changelog, and its newest version is the one that is installed."""

import re
from datetime import date
from pathlib import Path

import edgepress
import pytest
from edgepress.cli.entry import run

CHANGELOG = (Path(edgepress.__file__).parent / "CHANGELOG.md").read_text(encoding="utf-8")
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Known limits"}


def test_changes_to_come_are_first_and_versions_have_dates_newest_first() -> None:
    first, *versions = re.findall(r"^## (.*)$", CHANGELOG, flags=re.M)
    assert first == "Unreleased"
    dated = [re.fullmatch(r"(\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)", version) for version in versions]
    assert dated and all(dated)
    days = [date.fromisoformat(match[2]) for match in dated if match]
    assert days == sorted(days, reverse=True)
    assert dated[0] is not None and dated[0][1] == edgepress.__version__


def test_every_change_is_of_a_kind() -> None:
    assert set(re.findall(r"^### (.*)$", CHANGELOG, flags=re.M)) <= KINDS


def test_the_command_line_says_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.split()[-1] == edgepress.__version__
