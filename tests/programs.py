"""What the tests use beside Python, as packages that install it: those that are missing here.

As a program it says in one line what is missing, what goes untested without it, and how to install it;
``--packages`` prints only Debian's names, which ``.ci/run`` installs.
"""

from __future__ import annotations

import os
import shutil
import sys

# Any of these programs, by Debian's package and Homebrew's; "" where macOS brings it.
PROGRAMS = {
    ("sshd",): ("openssh-server", ""),
    ("ssh",): ("openssh-client", ""),
    ("zsh",): ("zsh", ""),
    ("fish",): ("fish", "fish"),
    ("chromium", "chromium-browser"): ("chromium", "chromium"),
    ("qemu-x86_64", "qemu-x86_64-static"): ("qemu-user", ""),
}
# By the program that installs: its line, and which of the names above it knows.
INSTALLERS = {"apt-get": ("apt-get install", 0), "brew": ("brew install", 1)}


def missing(name: int) -> list[str]:
    """Packages of programs that are not here, by their ``name``-th names."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    here = {programs for programs in PROGRAMS if any(shutil.which(one, path=path) for one in programs)}
    return [names[name] for programs, names in PROGRAMS.items() if programs not in here and names[name]]


def line() -> str:
    """What is missing and how to install it; "" where nothing is."""
    found = next((one for one in INSTALLERS if shutil.which(one)), "")
    command, name = INSTALLERS.get(found, ("install with this system's package manager", 0))
    packages = " ".join(missing(name))
    return packages and f"without {packages}, what needs them is skipped: {command} {packages}"


if __name__ == "__main__":
    if said := " ".join(missing(0)) if "--packages" in sys.argv else line():
        print(said)
