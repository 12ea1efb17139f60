"""``--help``, ``--version`` and ``doctor`` reach for no network."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.chain

# Python tells its audit hooks of every name that is looked up and of every connection, whoever asks for it.
WITHOUT_NETWORK = """
import os, socket, sys
ASKING = {"socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto"}
def refuse(event, arguments):
    local = event == "socket.connect" and arguments[0].family == getattr(socket, "AF_UNIX", None)
    if event in ASKING and not local:
        print("NETWORK", event, arguments, file=sys.stderr, flush=True)
        os._exit(99)
sys.addaudithook(refuse)
from edgepress.cli.entry import run
sys.exit(run(sys.argv[1:]))
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT_NETWORK, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["doctor", "--json"]], ids=" ".join)
def test_nothing_is_asked_of_the_network(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 0, done.stderr


def test_the_hook_sees_a_look_up() -> None:
    code = WITHOUT_NETWORK.partition("from edgepress")[0]
    look_up = "import urllib.request; urllib.request.urlopen('http://example.invalid')"
    done = subprocess.run([sys.executable, "-c", code + look_up], capture_output=True, text=True)
    assert done.returncode == 99 and "NETWORK" in done.stderr
