"""The wheels, one for each processor, with the library of operators inside (``make wheel`` runs it).

The library knows nothing of Python: ONNX Runtime loads it. So a wheel is for every version of Python, and is
tagged ``py3-none`` and with the oldest glibc whose symbols the library may ask for; what it does ask for is
read back from it. A processor other than this one needs a cross compiler: ``aarch64-linux-gnu-gcc``, or zig.

The URLs of the metadata come from whoever publishes: ``make wheel ADDRESS=https://HOST/OWNER/edgepress``.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parent.parent
GLIBC = (2, 17)
# As readelf calls them.
MACHINES = {"x86_64": "Advanced Micro Devices X86-64", "aarch64": "AArch64"}
LIBRARIES = {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
LIBRARY = "edgepress/runtime/kernels/_kernels.so"


def project_urls(address: str) -> dict[str, str]:
    """The metadata's URLs for a repository at ``address``; none where there is no address.

    Raises:
        ValueError: it is no address of a repository that anybody can open.
    """
    if not address:
        return {}
    if not re.fullmatch(r"https://[\w.-]+(/[\w.-]+)+", address):
        raise ValueError(f"{address!r} is no address like https://HOST/OWNER/edgepress")
    pages = {"Documentation": "tree/main/docs", "Changelog": "blob/main/CHANGELOG.md", "Issues": "issues"}
    return {"Homepage": address, **{name: f"{address}/{page}" for name, page in pages.items()}}


def compiler(machine: str) -> str | None:
    """The C compiler for ``machine``: a native or cross compiler, else zig; None where there is none."""
    native = machine == platform.machine()
    found = os.environ.get("CC", "cc") if native else f"{machine}-linux-gnu-gcc"
    if shutil.which(found):
        return found
    target = f"{machine}-linux-gnu.{'.'.join(map(str, GLIBC))}"
    return f"{sys.executable} -m ziglang cc -target {target}" if find_spec("ziglang") else None


def build(machine: str, found: str, into: Path) -> Path:
    """The wheel for ``machine``, built by a process that reads the compiler from its environment."""
    place = f"manylinux_{GLIBC[0]}_{GLIBC[1]}_{machine}"
    with TemporaryDirectory() as scratch:
        command = ["-q", "build", "-b", scratch, "bdist_wheel", "-d", str(into), "--plat-name", place]
        # Nothing of how this Python was linked: it may name folders of this machine.
        environment = {"CC": found, "LDSHARED": f"{found} -shared", "CFLAGS": "-g0", "LDFLAGS": "-s"}
        environment |= {"SETUPTOOLS_EXT_SUFFIX": ".so"}
        done = [sys.executable, "-W", "ignore", __file__, *command]
        subprocess.run(done, cwd=ROOT, env=os.environ | environment, check=True)
    (wheel,) = into.glob(f"*-py3-none-{place}.whl")
    return wheel


def faults(wheel: Path, machine: str) -> list[str]:
    """What is wrong with the library in ``wheel``, as sentences."""
    with zipfile.ZipFile(wheel) as archive, TemporaryDirectory() as scratch:
        if LIBRARY not in archive.namelist():
            return ["the library of operators is not in it"]
        library = archive.extract(LIBRARY, scratch)
        options = ("--file-header", "--dynamic", "--dyn-syms", "--version-info")
        text = subprocess.run(
            ["readelf", "--wide", *options, library], capture_output=True, text=True, check=True
        )
    return library_faults(text.stdout, machine)


def library_faults(text: str, machine: str) -> list[str]:
    """What ``readelf`` shows that a library for every Linux on ``machine`` must not have."""
    found = []
    if MACHINES[machine] not in text:
        found.append(f"the library is not for {machine}")
    if other := set(re.findall(r"\(NEEDED\).*\[(.*)\]", text)) - LIBRARIES:
        found.append(f"the library needs {', '.join(sorted(other))}")
    if paths := re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.*)\]", text):
        found.append(f"the library looks for others in {paths[0]}")
    versions = {(int(major), int(minor)) for major, minor in re.findall(r"GLIBC_(\d+)\.(\d+)", text)}
    if versions and max(versions) > GLIBC:
        found.append(f"the library needs glibc {'.'.join(map(str, max(versions)))}")
    exported = set(re.findall(r"GLOBAL +DEFAULT +\d+ (\w+)$", text, re.MULTILINE))
    if missing := {"RegisterCustomOps", "edgepress_kernels"} - exported:
        found.append(f"the library does not export {', '.join(sorted(missing))}")
    return found


def main() -> int:
    into = ROOT / "dist"
    into.mkdir(exist_ok=True)
    with ThreadPoolExecutor() as pool:
        return max(pool.map(lambda machine: made(machine, into), MACHINES))


def made(machine: str, into: Path) -> int:
    """Build and check the wheel for ``machine`` and say how it went; 1 for one that was bad and is gone."""
    found = compiler(machine)
    if found is None:
        print(f"{machine}: not built: no {machine}-linux-gnu-gcc here, and no zig (pip install ziglang)")
        return 0
    wheel = build(machine, found, into)
    wrong = faults(wheel, machine)
    print(f"{wheel.relative_to(ROOT)}: {'; '.join(wrong) or f'{wheel.stat().st_size / 1e6:.1f} MB'}")
    if wrong:
        wheel.unlink()
    return int(bool(wrong))


def set_up() -> None:
    """Run this process's command of setuptools, for a wheel of every Python with a publisher's URLs."""
    from setuptools import Distribution, setup
    from setuptools.command.bdist_wheel import bdist_wheel

    class AnyPython(bdist_wheel):
        def get_tag(self) -> tuple[str, str, str]:
            return "py3", "none", str(self.plat_name)  # the library is for a platform, not for a Python

    class Addressed(Distribution):
        def parse_config_files(self, *arguments: Any, **options: Any) -> None:
            super().parse_config_files(*arguments, **options)
            self.metadata.project_urls.update(project_urls(os.environ.get("ADDRESS", "")))

    setup(cmdclass={"bdist_wheel": AnyPython}, distclass=Addressed)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        set_up()
    else:
        sys.exit(main())
