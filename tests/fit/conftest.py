"""A kernel table of this machine, for budgets of speed, and short measurements."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from edgepress.benchmarks.speed.protocol import Protocol
from edgepress.devices.kernel_table import table as kept
from edgepress.devices.predict import predict
from edgepress.fit import trials

from ..devices.kernel_table.tables import small_table

SHORT = Protocol(blocks=1, block_ms=10, warmup_seconds=0, energy_windows=1, energy_seconds=0.2)


@pytest.fixture(scope="session", autouse=True)
def short_measurements(small_roofs: None, rates_measured_once: None) -> Iterator[None]:
    """Of trials: how well a speed is known is tested where it is measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "Protocol", SimpleNamespace(quick=lambda: SHORT))
        yield


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has a table: of a machine whose kernels wait for memory."""
    found = small_table()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(predict, "this_key", lambda: found.key)
    kept.keep_table("here", found)
