"""Debian's Python for 64-bit Arm in qemu's user mode: packages are unpacked into a folder, not installed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pip

EMULATOR = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
PACKAGES = (
    *("python3.13-minimal", "libpython3.13-minimal", "libpython3.13-stdlib", "libc6", "libstdc++6"),
    *("libgcc-s1", "zlib1g", "libexpat1", "libssl3t64", "libffi8", "libbz2-1.0", "liblzma5", "libuuid1"),
    *("libsqlite3-0", "libzstd1"),
)
# What the tests of every processor import; of torch the last whose wheel for Arm needs no CUDA.
EXTRAS = ("compress", "cpu", "fit", "images", "open")
FURTHER = ("torch<2.11", "hypothesis", "pytest", "pytest-timeout")


def save_python(folder: Path) -> Path:
    """``folder/bin/python3``: Debian's for Arm under the emulator, also where it starts itself again.

    Raises:
        subprocess.CalledProcessError: there is no such package, or no network.
    """
    root, debs = folder / "root", folder / "debs"
    for one in (folder / "lists/partial", folder / "cache/archives/partial", debs, folder / "bin", root):
        one.mkdir(parents=True)
    (folder / "status").touch()
    settings = {
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "1",
    }
    apt = ["apt-get", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}")), "-qq"]
    for command in (["update"], ["download", *PACKAGES]):
        subprocess.run([*apt, *command], check=True, cwd=debs, capture_output=True)
    for deb in debs.glob("*.deb"):
        subprocess.run(["dpkg", "-x", deb, root], check=True)
    (root / "lib").symlink_to("usr/lib")
    words = [str(EMULATOR), "-cpu", "max", "-L", str(root), "-E", f"PYTHONHOME={root / 'usr'}"]
    real = shlex.quote(str(root / "usr/bin/python3.13"))
    script = folder / "bin/python3"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} -0 "$0" {real} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return script


def save_packages(python: Path, project: Path, into: Path) -> None:
    """What the tests of ``project`` import, by this environment's pip under that ``python``.

    Raises:
        subprocess.CalledProcessError: a package has no wheel for Arm, or there is no network.
    """
    settings = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = settings["optional-dependencies"]
    wanted = [*settings["dependencies"], *(one for name in EXTRAS for one in extras[name]), *FURTHER]
    command = [str(python), str(Path(pip.__file__).parent), "install", "--quiet", "--only-binary", ":all:"]
    subprocess.run([*command, "--target", str(into), *wanted], check=True)


def arm_python(folder: Path, project: Path) -> tuple[Path, dict[str, str]]:
    """Python in ``folder`` with the packages below it, fetched once; and the variable that names the
    operators, where a cross compiler is.

    Raises:
        subprocess.CalledProcessError: as :func:`save_packages`.
    """
    done, library = folder / "done", folder / "kernels.so"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        save_packages(save_python(folder), project, folder / "packages")
        done.touch()
    compiler = os.environ.get("AARCH64_CC", "aarch64-linux-gnu-gcc")
    if shutil.which(compiler) is None:
        print(f"64-bit Arm: its own operators are not tested, there is no {compiler} here")
        return folder / "bin/python3", {"EDGEPRESS_KERNELS": "off"}
    flags = ["-O2", "-ffp-contract=off", "-fvisibility=hidden", "-Wno-psabi", "-fPIC", "-shared"]
    sources = sorted((project / "runtime/kernels/src").glob("*.c"))
    subprocess.run([compiler, *flags, *sources, "-lm", "-o", library], check=True)
    return folder / "bin/python3", {"EDGEPRESS_KERNELS_LIBRARY": str(library)}
