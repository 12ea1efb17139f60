"""The probe on made-up machines, and on this one."""

import getpass
import platform
from pathlib import Path

import psutil
import pytest
from edgepress.devices.probe import (
    installed,
    is_emulated,
    parse_gpus,
    probe,
    read_gpus,
    read_limits,
    read_memory,
)
from edgepress.devices.processor import read_processor
from edgepress.runtime.session.threads import memory_limit, thread_budget

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Core(TM) Ultra 7 258V
microcode\t: 0x11b
flags\t\t: fpu sse2 avx2 avx_vnni fma f16c

processor\t: 1
model name\t: something else
flags\t\t: fpu amx_int8
"""
ARM = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes crc32 asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd0b
"""


def lay_out(root: Path, files: dict[str, str]) -> tuple[Path, Path]:
    """Write a machine's files; returns its ``/proc`` and ``/sys``."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root / "proc", root / "sys"


def test_x86_takes_the_first_processor(tmp_path: Path) -> None:
    cpu = read_processor(*lay_out(tmp_path, {"proc/cpuinfo": X86}))
    assert cpu.model == "Intel(R) Core(TM) Ultra 7 258V"
    assert cpu.isa == ("avx2", "fma", "f16c", "avx_vnni")
    assert (cpu.microcode, cpu.virtualized) == ("0x11b", False)


def test_a_virtual_machine_says_so(tmp_path: Path) -> None:
    text = X86.replace("fpu sse2", "fpu sse2 hypervisor")
    assert read_processor(*lay_out(tmp_path, {"proc/cpuinfo": text})).virtualized is True


def test_arm_by_its_board_and_without(tmp_path: Path) -> None:
    board = {"proc/cpuinfo": ARM, "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"}
    cpu = read_processor(*lay_out(tmp_path / "pi", board))
    assert (cpu.model, cpu.isa) == ("Raspberry Pi 5 Model B Rev 1.0", ("asimd", "asimddp"))
    bare = read_processor(*lay_out(tmp_path / "bare", {"proc/cpuinfo": ARM}))
    assert bare.model == "Arm implementer 0x41 part 0xd0b"


@pytest.mark.chain
def test_last_level_cache_is_the_largest(tmp_path: Path) -> None:
    folder = "sys/devices/system/cpu/cpu0/cache"
    sizes = {f"{folder}/index{i}/size": size for i, size in enumerate(["48K\n", "32K\n", "2048K\n", "32M\n"])}
    assert read_processor(*lay_out(tmp_path, sizes)).last_level_cache_bytes == 32 << 20


@pytest.mark.chain
def test_nothing_is_known_without_files(tmp_path: Path) -> None:
    cpu = read_processor(*lay_out(tmp_path, {}))
    assert (cpu.last_level_cache_bytes, cpu.microcode, cpu.virtualized) == (None, None, None)
    assert cpu.logical >= 1


V2 = {"proc/self/cgroup": "0::/app.slice/job\n"}
V1 = {"proc/self/cgroup": "5:memory:/docker/f00\n3:cpu,cpuacct:/docker/f00\n0::/\n"}
LIMITS: dict[str, tuple[dict[str, str], int | None]] = {
    "none": (V2, None),
    "v2 max": (V2 | {"sys/fs/cgroup/app.slice/job/memory.max": "max\n"}, None),
    "v2 own": (V2 | {"sys/fs/cgroup/app.slice/job/memory.max": "1048576\n"}, 1 << 20),
    "v2 parent is tighter": (
        V2
        | {
            "sys/fs/cgroup/app.slice/job/memory.max": "4096000\n",
            "sys/fs/cgroup/app.slice/memory.max": "2048000\n",
        },
        2048000,
    ),
    "v2 hybrid mount": (V2 | {"sys/fs/cgroup/unified/app.slice/memory.max": "777\n"}, 777),
    "v1": (V1 | {"sys/fs/cgroup/memory/docker/f00/memory.limit_in_bytes": "536870912\n"}, 512 << 20),
    "v1 in a container": (V1 | {"sys/fs/cgroup/memory/memory.limit_in_bytes": "268435456\n"}, 256 << 20),
    "garbage": (V2 | {"sys/fs/cgroup/app.slice/job/memory.max": "lots\n"}, None),
}


@pytest.mark.parametrize("name", LIMITS)
def test_memory_limit(name: str, tmp_path: Path) -> None:
    files, expected = LIMITS[name]
    assert memory_limit(*lay_out(tmp_path, files)) == expected


def test_memory_is_narrowed_by_the_limit(tmp_path: Path) -> None:
    files = V2 | {"sys/fs/cgroup/app.slice/job/memory.max": f"{64 << 20}\n"}
    memory = read_memory(*lay_out(tmp_path, files))
    assert (memory.limit, memory.available) == (64 << 20, 64 << 20)
    assert memory.total == psutil.virtual_memory().total


def test_a_limit_above_the_machine_is_none(tmp_path: Path) -> None:
    files = V1 | {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}
    assert read_memory(*lay_out(tmp_path, files)).limit is None


def test_limits_of_a_container(tmp_path: Path) -> None:
    files = V2 | {
        "sys/fs/cgroup/app.slice/job/cpu.max": "150000 100000\n",
        "proc/1/cgroup": "0::/kubepods/x\n",
    }
    limits = read_limits(*lay_out(tmp_path, files))
    assert (limits.cpu_quota, limits.threads, limits.container) == (1.5, 1, True)


def test_gpus_from_csv() -> None:
    text = (
        "NVIDIA H100 80GB HBM3, 81559, 550.54, 700.00, Enabled, Disabled\n"
        "NVIDIA GeForce RTX 4060 Laptop GPU, 8188, 552.12, [N/A], [N/A], [N/A]\n"
        "Failed to initialise\n"
        "NVIDIA GeForce RTX 2080 Ti, 11264, 442.19, [Unknown Error], [N/A], [N/A]\n"
    )
    big, laptop, wrong = parse_gpus(text)
    assert (wrong.memory_mib, wrong.power_limit_w) == (11264, None)
    assert (big.name, big.memory_mib, big.power_limit_w, big.mig) == (
        "NVIDIA H100 80GB HBM3",
        81559,
        700,
        "Disabled",
    )
    assert (laptop.memory_mib, laptop.power_limit_w, laptop.ecc) == (8188, None, None)


def test_no_nvidia_smi_is_no_gpu() -> None:
    assert read_gpus("edgepress-no-such-program") == []


def test_installed_reads_metadata_only() -> None:
    assert set(installed("numpy", "edgepress-no-such-distribution")) == {"numpy"}


def test_this_machine() -> None:
    machine = probe()
    assert machine.limits.threads == thread_budget()
    assert machine.memory.available <= machine.memory.total
    assert machine.onnxruntime is not None
    assert "CPUExecutionProvider" in machine.onnxruntime.providers
    assert machine.fingerprint == probe().fingerprint


def test_nothing_personal_is_read() -> None:
    text = probe().model_dump_json()
    assert platform.node() not in text or len(platform.node()) < 4
    assert f"/{getpass.getuser()}" not in text


def test_fingerprint_follows_the_hardware(tmp_path: Path) -> None:
    one = probe(*lay_out(tmp_path / "a", {"proc/cpuinfo": X86}))
    other_microcode = probe(*lay_out(tmp_path / "b", {"proc/cpuinfo": X86.replace("0x11b", "0x11c")}))
    other_model = probe(*lay_out(tmp_path / "c", {"proc/cpuinfo": X86.replace("258V", "268V")}))
    assert one.fingerprint == other_microcode.fingerprint != other_model.fingerprint


@pytest.mark.parametrize(
    ("kernel", "comm", "machine", "emulated"),
    [
        ("x86_64", "python3", "x86_64", False),
        ("x86_64", "python3", "aarch64", True),
        ("aarch64", "qemu-aarch64-st", "aarch64", True),
        ("aarch64", "python3", "armv7l", False),  # a 32-bit system on a 64-bit kernel
        ("x86_64", "python3", "i686", False),
        (None, "python3", "aarch64", False),
    ],
)
def test_an_emulator_is_recognized(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kernel: str | None,
    comm: str,
    machine: str,
    emulated: bool,
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    (tmp_path / "self").mkdir()
    (tmp_path / "self/comm").write_text(f"{comm}\n")
    if kernel is not None:
        (tmp_path / "sys/kernel").mkdir(parents=True)
        (tmp_path / "sys/kernel/arch").write_text(f"{kernel}\n")
    assert is_emulated(tmp_path) == emulated
