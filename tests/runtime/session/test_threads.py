"""The thread budget against twelve made-up machines and containers."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from edgepress.runtime.session.threads import compute_cpus, free_memory, memory_left, thread_budget

CPU = "sys/devices/system/cpu"


def _smt(cores: int) -> dict[str, str]:
    """Topology of ``cores`` cores with two threads each, numbered as Linux does: n and n + cores."""
    return {
        f"{CPU}/cpu{cpu}/topology/thread_siblings_list": f"{cpu % cores},{cpu % cores + cores}"
        for cpu in range(2 * cores)
    }


V2 = {"proc/self/cgroup": "0::/app.slice/job\n"}
V1 = {"proc/self/cgroup": "5:memory:/docker/f00\n3:cpu,cpuacct:/docker/f00\n0::/\n"}
BIG_LITTLE = {f"{CPU}/cpu{cpu}/cpu_capacity": "446" if cpu < 4 else "1024" for cpu in range(8)}

LAYOUTS: dict[str, tuple[range | list[int], Mapping[str, str], int]] = {
    "bare machine without topology": (range(4), {}, 4),
    "hyper-threads count once": (range(8), _smt(4), 4),
    "affinity to two threads of one core": ([1, 5], _smt(4), 1),
    "affinity to two cores": ([0, 3], _smt(4), 2),
    "v2 quota of two CPUs": (range(8), V2 | {"sys/fs/cgroup/app.slice/job/cpu.max": "200000 100000"}, 2),
    "v2 quota on a parent": (
        range(8),
        V2
        | {
            "sys/fs/cgroup/app.slice/job/cpu.max": "max 100000",
            "sys/fs/cgroup/app.slice/cpu.max": "350000 100000",
        },
        3,
    ),
    "v2 quota below one CPU": (range(8), V2 | {"sys/fs/cgroup/app.slice/job/cpu.max": "50000 100000"}, 1),
    "v2 without a limit": (range(8), V2 | {"sys/fs/cgroup/app.slice/job/cpu.max": "max 100000"}, 8),
    "v1 quota seen from the host": (
        range(8),
        V1
        | {
            "sys/fs/cgroup/cpu,cpuacct/docker/f00/cpu.cfs_quota_us": "300000",
            "sys/fs/cgroup/cpu,cpuacct/docker/f00/cpu.cfs_period_us": "100000",
        },
        3,
    ),
    "v1 quota seen inside a container": (
        range(8),
        V1 | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000"},
        3,
    ),
    "v1 without a limit, with hyper-threads": (
        range(8),
        V1 | _smt(4) | {"sys/fs/cgroup/cpu,cpuacct/docker/f00/cpu.cfs_quota_us": "-1"},
        4,
    ),
    "big.LITTLE": (range(8), BIG_LITTLE, 4),
    "only little cores allowed": (range(4), BIG_LITTLE, 4),
    "performance and efficiency cores": (range(12), _smt(2) | {"sys/devices/cpu_core/cpus": "0-3"}, 2),
    "nonsense in every file": (
        range(2),
        {
            "proc/self/cgroup": "x\n::\n0::/a\n",
            "sys/fs/cgroup/a/cpu.max": "lots",
            "sys/devices/cpu_core/cpus": "a-b",
        },
        2,
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name: str, tmp_path: Path) -> None:
    affinity, files, expected = LAYOUTS[name]
    for file, text in files.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    assert thread_budget(affinity=affinity, proc=tmp_path / "proc", sys=tmp_path / "sys") == expected


def test_this_machine_never_gets_more_than_its_affinity() -> None:
    assert 1 <= thread_budget() <= len(os.sched_getaffinity(0))


def test_a_system_without_affinity_uses_physical_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr("psutil.cpu_count", lambda logical: None if logical else 6)
    assert thread_budget() == 6


@pytest.mark.parametrize(("limit", "free"), [(None, 700), (900, 700), (500, 500)])
def test_free_memory_is_what_the_groups_leave_of_it(
    limit: int | None, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=700))
    monkeypatch.setattr("edgepress.runtime.session.threads.memory_left", lambda: limit)
    assert free_memory() == free


STAT = "cache 300\ninactive_file 200\nactive_file 100\ntotal_inactive_file 250\ntotal_active_file 150\n"
GROUPS: dict[str, tuple[str, dict[str, str], int | None]] = {
    "none": ("0::/job\n", {}, None),
    "v2 without a limit": ("0::/job\n", {"job/memory.max": "max\n", "job/memory.current": "5\n"}, None),
    "v2": (
        "0::/job\n",
        {"job/memory.max": "1000\n", "job/memory.current": "700\n", "job/memory.stat": STAT},
        1000 - (700 - 300),
    ),
    "v2 parent has less left": (
        "0::/a/job\n",
        {
            "a/job/memory.max": "1000\n",
            "a/job/memory.current": "100\n",
            "a/memory.max": "2000\n",
            "a/memory.current": "1900\n",
        },
        100,
    ),
    "v2 more than its limit": ("0::/job\n", {"job/memory.max": "10\n", "job/memory.current": "11\n"}, 0),
    "v1": (
        "5:memory:/job\n",
        {
            "memory/job/memory.limit_in_bytes": "1000\n",
            "memory/job/memory.usage_in_bytes": "700\n",
            "memory/job/memory.stat": STAT,
        },
        1000 - (700 - 400),
    ),
}


@pytest.mark.parametrize("name", GROUPS)
def test_what_other_processes_of_a_group_hold_is_not_left(name: str, tmp_path: Path) -> None:
    group, files, left = GROUPS[name]
    proc, folder = tmp_path / "proc", tmp_path / "sys/fs/cgroup"
    written = {proc / "self/cgroup": group, **{folder / name: text for name, text in files.items()}}
    for path, text in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    assert memory_left(proc, tmp_path / "sys") == left


def test_each_thread_has_a_core_of_its_own(tmp_path: Path) -> None:
    for cpu in range(8):  # two hyper-threads a core: 0 and 4, 1 and 5, …
        topology = tmp_path / f"devices/system/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "core_cpus_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    assert compute_cpus(3, affinity=range(8), sys=tmp_path) == [0, 1, 2]
    assert compute_cpus(2, affinity=[4, 5, 6], sys=tmp_path) == [4, 5]
    assert compute_cpus(5, affinity=range(8), sys=tmp_path) == [], "there are four cores"
