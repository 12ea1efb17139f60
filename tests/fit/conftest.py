"""A kernel table of this machine, for budgets of speed, and small measurements."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgepress.devices.kernel_table import kept
from edgepress.devices.predict import predict

from ..devices.kernel_table.tables import small_table


@pytest.fixture(scope="session", autouse=True)
def roofs(small_roofs: None) -> None:
    """What is measured of trials of pico models is small."""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has a table: of a machine whose kernels wait for memory."""
    found = small_table()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(predict, "this_key", lambda: found.key)
    kept.keep_table("here", found)
