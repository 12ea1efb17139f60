"""Under a limit of address space a verb ends with its result or E-RESOURCE, however native code ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

resource = pytest.importorskip("resource")
pytestmark = [
    pytest.mark.chain,
    pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep to the limit"),
]

VERB = "import sys; from edgepress.cli.entry import main; main()"
# In the place of a verb: what native code does where it cannot allocate.
ENDING = """
import os, signal, sys
from edgepress.cli import entry
def run():
    print("begun", flush=True)
    {ending}
    return 5
entry.run = run
entry.main()
"""


def limited(code: str, *arguments: str, megabytes: int) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, timeout=120)


@pytest.mark.parametrize("megabytes", [150, 175, 200, 225, 250, 300, 400, 1000])
def test_generate_answers(decoder_bundle: Path, megabytes: int) -> None:
    arguments = ("generate", str(decoder_bundle), "--prompt", "the sea", "--json", "--threads", "1")
    done = limited(VERB, *arguments, "--max-new-tokens", "2", megabytes=megabytes)
    document = json.loads(done.stdout)
    if done.returncode != 0:
        assert (done.returncode, document["error"]["code"]) == (6, "E-RESOURCE")
    assert done.returncode == 0 or megabytes < 1000
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("ending", "why"),
    [
        ("os.abort()", "signal 6"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
        ("os._exit(1)", "code 1"),
        ("raise MemoryError", "code 1"),
    ],
)
def test_a_process_that_native_code_ends_is_a_typed_error(ending: str, why: str) -> None:
    done = limited(ENDING.format(ending=ending), "generate", megabytes=600)
    assert (done.returncode, done.stdout) == (6, "begun\n")
    assert "E-RESOURCE" in done.stderr and f"({why})" in done.stderr and "600 MB" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_verb_s_own_code_is_kept_though_the_end_of_the_interpreter_is_an_abort() -> None:
    assert limited(ENDING.format(ending="pass"), megabytes=600).returncode == 5
    late = "import atexit; atexit.register(os.abort)"
    assert limited(ENDING.format(ending=late), megabytes=600).returncode == 5


def test_sigterm_reaches_the_verb() -> None:
    ending = """try:
        os.kill(os.getppid(), signal.SIGTERM)
        signal.pause()
    except entry.SigTerm:
        return 143"""
    assert limited(ENDING.format(ending=ending), megabytes=600).returncode == 143
