"""Making a kernel table: stopped by the clock it keeps what was timed, and the same call goes on."""

import json
from pathlib import Path

import pytest
from edgepress.cli.entry import run
from edgepress.devices.bandwidth import Bandwidth
from edgepress.devices.kernel_table import measure
from edgepress.devices.kernel_table import plan as planned
from edgepress.devices.kernel_table.measure import measure_kernels
from edgepress.devices.kernel_table.plan import plan, thread_counts
from edgepress.devices.kernel_table.table import read_table
from edgepress.errors import EdgepressError, OutOfResource
from edgepress.terminal.progress import Silent

pytestmark = pytest.mark.chain


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small stock, no half minute of bandwidths, and the user's configuration elsewhere."""

    def known(sizes: list[int], *, threads: int, **_: float) -> list[Bandwidth]:
        return [Bandwidth(1e10, size, threads, (1e10,)) for size in sizes]

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(measure, "measure_bandwidths", known)
    monkeypatch.setattr(planned, "most_stock", lambda: 64 << 20)


def test_what_was_timed_is_kept_and_gone_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    first, path = measure_kernels(Silent(), folder=folder, limit_s=3)
    kept = plan(folder)
    assert not first.complete and path == kept.path and kept.cases > kept.done
    assert read_table(path) == first
    second, _ = measure_kernels(Silent(), folder=folder, limit_s=3)
    assert plan(folder).done >= kept.done
    before = {(*one.features, one.op, one.form, one.reach, one.threads): one for one in first.families}
    for one in second.families:
        earlier = before.get((*one.features, one.op, one.form, one.reach, one.threads))
        if earlier is not None and earlier.kind == one.kind:
            assert one.seconds[: len(earlier.seconds)] == earlier.seconds
    assert {one.threads for one in second.fixed} <= set(thread_counts())
    assert second.bandwidth == first.bandwidth, "what was measured is not measured again"
    assert not list(folder.glob(".*")), "no part of a file is left"


def test_too_little_memory_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planned, "most_stock", lambda: 1 << 44)
    monkeypatch.setattr(measure, "require_disk", lambda path, needed: None)
    with pytest.raises(OutOfResource, match="free memory"):
        measure_kernels(Silent(), folder=tmp_path)


def test_a_process_that_ends_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "__package__", "edgepress.nothing")
    with pytest.raises(EdgepressError, match="ended"):
        measure_kernels(Silent(), folder=tmp_path, limit_s=20)


def test_the_verb_says_what_it_would_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "measure", "--dry-run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["done"] == 0 and document["cases"] > 500 and document["seconds"] <= 60
    assert run(["devices", "measure", "nobody"]) == 2
