"""Replays the recorded cases on an emulated Xeon with AMX: emulate.py BOCHS LINUX BOOT FOLDER THREADS:SET...

FOLDER has ``cases``, ``kernels.so``, ``replay`` (of replay.c) and ``guest`` (of guest.c), a guest's files.
It boots LINUX, a kernel for x86-64 of 5.16 or later, from a CD that xorriso makes with isolinux (in BOOT), in
BOCHS, an emulator built with bochs.patch. What the guest says on its serial line is printed. The exit status
is 0 where every set of instructions ran by its name and gave the recorded bits, and where the system refuses
tiles (``refused``) as ``avx512-vnni``.
"""

import gzip
import re
import stat
import subprocess
import sys
from pathlib import Path

LOADER = ("ISOLINUX/isolinux.bin", "syslinux/modules/bios/ldlinux.c32")
LIMIT_S = 3600
OWN = ("replay", "kernels.so", "cases")
# Where the dynamic linker looks.
LIBRARIES = (
    "lib64/ld-linux-x86-64.so.2",
    "lib/x86_64-linux-gnu/libc.so.6",
    "lib/x86_64-linux-gnu/libm.so.6",
)
MENU = """\
default linux
label linux
kernel linux
initrd files
append console=ttyS0 quiet rdinit=/init -- {runs}
"""
MACHINE = """\
cpu: model=sapphire_rapids, count=1, ips=200000000, reset_on_triple_fault=0
memory: guest=1024, host=1024
ata0-master: type=cdrom, path="{cd}", status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev="{serial}"
display_library: nogui
log: "{log}"
panic: action=fatal
"""


def _entry(name: str, mode: int, data: bytes) -> bytes:
    """One file of an archive in cpio's format "newc"."""
    numbers = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08x" % number for number in numbers) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def file_system(files: dict[str, Path]) -> bytes:
    """The guest's files, compressed: each of ``files`` by its path there, and the folders above."""
    folders = sorted({str(parent) for name in files for parent in Path(name).parents} - {"."})
    parts = [_entry(folder, stat.S_IFDIR | 0o755, b"") for folder in folders]
    parts += [_entry(name, stat.S_IFREG | 0o755, path.read_bytes()) for name, path in files.items()]
    return gzip.compress(b"".join([*parts, _entry("TRAILER!!!", 0, b"")]), compresslevel=1)


def make_cd(linux: Path, boot: Path, folder: Path, runs: list[str]) -> Path:
    """A CD that boots ``linux`` with the files of ``folder``, whose first process gets ``runs``."""
    content, cd = folder / "cd", folder / "cd.iso"
    content.mkdir(exist_ok=True)
    files = {"init": folder / "guest"} | {name: folder / name for name in OWN}
    (content / "files").write_bytes(file_system(files | {name: Path("/") / name for name in LIBRARIES}))
    (content / "linux").write_bytes(linux.read_bytes())
    for name in LOADER:
        (content / Path(name).name).write_bytes((boot / name).read_bytes())
    (content / "isolinux.cfg").write_text(MENU.format(runs=" ".join(runs)))
    command = ["xorriso", "-as", "mkisofs", "-quiet", "-o", str(cd), "-b", "isolinux.bin", "-c", "boot.cat"]
    command += ["-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", str(content)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return cd


def emulate(bochs: str, cd: Path, folder: Path) -> str:
    """What the guest writes on its serial line until it ends the emulator."""
    serial, machine = folder / "serial.log", folder / "machine"
    serial.unlink(missing_ok=True)
    machine.write_text(MACHINE.format(cd=cd, serial=serial, log=folder / "bochs.log"))
    command = [bochs, "-q", "-f", str(machine)]
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        print(f"the guest was stopped after {LIMIT_S} s", file=sys.stderr)
    return serial.read_text(errors="replace").replace("\r", "") if serial.exists() else ""


def failures(said: str, runs: list[str]) -> list[str]:
    """What is wrong with what the guest said of ``runs``."""
    line = r"^([\w-]+), (\d+) threads?: (\d+) of \3 cases .*\nguest: ([\w-]+) ended with 0$"
    good = {(threads, run, name) for name, threads, _, run in re.findall(line, said, re.MULTILINE)}
    bad = []
    for threads, run in (run.split(":") for run in runs):
        name = "avx512-vnni" if run == "refused" else run
        if (threads, run, name) not in good:
            bad.append(f"{run}, threads {threads}: not every case gave the recorded bits by {name}")
    return bad


def main(bochs: str, linux: str, boot: str, place: str, *runs: str) -> int:
    folder = Path(place).resolve()
    said = emulate(bochs, make_cd(Path(linux), Path(boot), folder, list(runs)), folder)
    print(said)
    bad = failures(said, list(runs))
    print("\n".join(bad), file=sys.stderr)
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
