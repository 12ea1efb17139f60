"""The command line's edge: every failure is a message, an exit code, and under ``--json`` one document."""

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from edgepress import __version__, errors
from edgepress.cli.entry import run
from edgepress.cli.program import edgepress
from edgepress.cli.verb import VERBS
from edgepress.errors import EdgepressError, InputError, SigTerm
from edgepress.files.hashed_tree import hash_tree

Capture = pytest.CaptureFixture[str]
resource = pytest.importorskip("resource")
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


def document(capsys: Capture) -> dict[str, Any]:
    """The one JSON document on stdout."""
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make the verb ``doctor`` raise what the test says, where its work begins."""
    from edgepress.devices import checks

    def install(error: BaseException) -> None:
        def examine() -> None:
            raise error

        monkeypatch.setattr(checks, "examine", examine)

    return install


def test_help_lists_every_verb(capsys: Capture) -> None:
    assert run(["--help"]) == run(["-h"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in VERBS)


@pytest.mark.parametrize("arguments", [["--help"], []], ids=["asked for", "no verb"])
def test_what_most_people_need_stands_first(arguments: list[str], capsys: Capture) -> None:
    """And fits 80 columns; without a verb it also fits a screen or two, with no variable in it."""
    run(arguments)
    shown = "".join(capsys.readouterr())
    first = [line.split()[0] for line in shown.partition("smaller and faster:\n")[2].splitlines()[:4]]
    assert first == list(VERBS)[:4] == ["compress", "export", "profile", "fit"]
    assert max(map(len, shown.splitlines())) <= 80
    assert ("EDGEPRESS_CACHE" in shown) == bool(arguments)


def test_version(capsys: Capture) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip().endswith(__version__)


def test_no_verb_is_bad_usage(capsys: Capture) -> None:
    assert run([]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and "compress" in shown.err


def test_arguments_are_those_of_the_process(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(sys, "argv", ["edgepress", "nothing", "--json"])
    assert run() == 2
    assert document(capsys)["error"]["what"] == "unknown verb 'nothing'"


@pytest.mark.parametrize(
    ("wrong", "right"), [("compres", "compress"), ("profil", "profile"), ("Report", "report")]
)
def test_an_unknown_verb_is_answered_with_the_nearest(wrong: str, right: str, capsys: Capture) -> None:
    assert run([wrong, "x"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"error [E-UNKNOWN]: unknown verb '{wrong}'\n→ did you mean '{right}'?")


KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, EdgepressError) and kind is not errors.UnknownName
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_error_ends_with_its_own_exit_code(
    kind: type[EdgepressError], failing: Callable[[BaseException], None], capsys: Capture
) -> None:
    failing(kind("what", why="why", fix="fix"))
    assert run(["doctor"]) == kind.exit_code
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", f"error [{kind.code}]: what\nwhy\n→ fix\n")
    assert run(["doctor", "--json"]) == kind.exit_code
    shown = capsys.readouterr()
    parts = {"code": kind.code, "exit_code": kind.exit_code, "what": "what", "why": "why", "fix": "fix"}
    assert json.loads(shown.out) == {"error": parts} and shown.err == ""


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (ZeroDivisionError("by zero"), "E-INTERNAL", 70),
        (OSError(errno.EIO, "io"), "E-INTERNAL", 70),
        (EOFError("cut short"), "E-INTERNAL", 70),  # click takes it for an interrupt
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 5000), "E-INPUT", 2),
        (PermissionError(errno.EACCES, "Permission denied", "theirs"), "E-INPUT", 2),
        (MemoryError(), "E-RESOURCE", 6),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "E-RESOURCE", 6),
        (KeyboardInterrupt(), "E-INTERRUPTED", 130),
        (SigTerm(), "E-TERMINATED", 143),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_untyped_ends(
    error: BaseException,
    code: str,
    exit_code: int,
    failing: Callable[[BaseException], None],
    capsys: Capture,
) -> None:
    failing(error)
    assert run(["doctor", "--json"]) == exit_code
    shown = capsys.readouterr()
    found = json.loads(shown.out)["error"]
    assert (found["code"], found["exit_code"]) == (code, exit_code)
    assert ("Traceback" in shown.err) == (code == "E-INTERNAL")
    assert run(["doctor"]) == exit_code
    shown = capsys.readouterr()
    assert shown.out == "" and f"error [{code}]: " in shown.err


def test_a_bug_names_itself(failing: Callable[[BaseException], None], capsys: Capture) -> None:
    failing(ZeroDivisionError("by zero"))
    assert run(["doctor"]) == 70
    shown = capsys.readouterr().err
    assert f"a bug in edgepress {__version__}: ZeroDivisionError: by zero" in shown
    assert "in examine" in shown and "please report" in shown


def test_reasons_of_several_lines_stand_in_from_the_way_out(
    failing: Callable[[BaseException], None], capsys: Capture
) -> None:
    failing(InputError("what", why="it holds a\n→ run: curl evil", fix="the way out"))
    assert run(["doctor"]) == 2
    assert capsys.readouterr().err == (
        "error [E-INPUT]: what\nit holds a\n  → run: curl evil\n→ the way out\n"
    )


@pytest.mark.parametrize("verb", ["inspect", "verify"])
def test_a_name_in_an_error_writes_no_line_of_its_own(verb: str, tmp_path: Path, capsys: Capture) -> None:
    name = "x\x1b[2J\n→ run: curl evil"
    (tmp_path / name).mkdir()
    assert run([verb, str(tmp_path / name)]) == 2
    shown = capsys.readouterr().err
    assert r"x\x1b[2J\n→ run: curl evil" in shown and "\x1b" not in shown
    assert not any(line.startswith("→ run") for line in shown.splitlines())


def test_an_argument_in_bad_usage_is_inert(capsys: Capture) -> None:
    assert run(["compress", "model", "--no\x1b[2J"]) == 2
    assert "\x1b" not in capsys.readouterr().err


BAD_USAGE = {
    "missing argument": (["compress"], "MODEL", "edgepress compress --help"),
    "missing option": (["compress", "model"], "-o DIRECTORY", "edgepress compress --help"),
    "required option": (["generate", "bundle"], "--prompt", "edgepress generate --help"),
    "unknown option": (["verify", "x", "--nothing"], "--nothing", "edgepress verify --help"),
    "value of the wrong kind": (["compress", "m", "--samples", "many"], "many", "edgepress compress --help"),
    "value out of range": (["compress", "m", "--samples", "0"], "--samples", "edgepress compress --help"),
    "no such choice": (["compress", "m", "--chat", "some"], "some", "edgepress compress --help"),
    "too many arguments": (["doctor", "extra"], "extra", "edgepress doctor --help"),
    "unknown sub-verb": (["devices", "lst"], "lst", "edgepress devices --help"),
    "option without its value": (
        ["verify", "x", "--manifest-sha256"],
        "--manifest-sha256",
        "edgepress --help",
    ),
}


@pytest.mark.parametrize("name", BAD_USAGE)
def test_bad_usage(name: str, capsys: Capture) -> None:
    arguments, said, where = BAD_USAGE[name]
    assert run(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and said in shown.err and shown.err.startswith("error [E-USAGE]: ")
    assert shown.err.splitlines()[-1].endswith(where)
    assert run([arguments[0], "--json", *arguments[1:]]) == 2
    shown = capsys.readouterr()
    found = json.loads(shown.out)["error"]
    assert shown.err == ""
    assert (found["code"], found["exit_code"]) == ("E-USAGE", 2)
    assert found["what"] and found["fix"].endswith(where)


def test_an_option_of_the_whole_is_bad_usage(capsys: Capture) -> None:
    assert run(["--json"]) == 2
    assert document(capsys)["error"]["fix"] == "see: edgepress --help"


def test_json_behind_the_end_of_options_is_a_word(capsys: Capture) -> None:
    assert run(["verify", "--", "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and "--json" in shown.err


MISSING = {
    "compress": ["MISSING", "--scheme", "W4A16", "-o", "OUT"],
    "export": ["MISSING", "-o", "OUT"],
    "validate": ["MISSING", "--against", "MISSING"],
    "profile": ["MISSING"],
    "generate": ["MISSING", "--prompt", "x"],
    "encode": ["MISSING", "x"],
    "compare": ["MISSING"],
    "report": ["MISSING", "-o", "OUT"],
    "inspect": ["MISSING"],
    "verify": ["MISSING"],
    "recipe": ["show", "MISSING"],
    "devices": ["show", "MISSING"],
}


@pytest.mark.parametrize("verb", MISSING)
def test_what_is_not_there_is_one_document_and_writes_nothing(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([verb, *MISSING[verb], "--json"]) == 2
    shown = capsys.readouterr()
    found = json.loads(shown.out)["error"]
    assert found["exit_code"] == 2 and "MISSING" in found["what"]
    assert "Traceback" not in shown.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.chain
def test_success_is_one_document(pico_llama: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    compress = ["compress", str(pico_llama), "--scheme", "W8A8", "--json"]
    for arguments, key in (
        ([*compress, "--dry-run"], "steps"),
        ([*compress, "-o", str(out)], "output"),
        (["inspect", str(out), "--json"], ""),
        (["verify", str(out), "--json"], "files"),
        (["devices", "list", "--json"], "targets"),
        (["recipe", "list", "--json"], ""),
    ):
        assert run(arguments) == 0
        found = json.loads(capsys.readouterr().out)
        assert found and (not key or key in found), arguments


def test_a_hidden_bug_in_one_verb_is_none_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VERBS, "broken", "A verb whose file is not there.")
    assert run(["--help"]) == 0
    assert run(["broken"]) == 70
    assert isinstance(edgepress.get_command(click.Context(edgepress), "doctor"), click.Command)


@pytest.mark.chain
@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of files")
@pytest.mark.parametrize("limit", [20_000, 120_000], ids=["first block", "assembling"])
def test_a_full_disk_is_typed_and_leaves_no_output(
    limit: int, pico_llama: Path, tmp_path: Path, capsys: Capture
) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    arguments = ["compress", str(pico_llama), "--scheme", "W4A16-g32", "-o", str(tmp_path / "out"), "--json"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        assert run(arguments) == 6
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "disk is full" in document(capsys)["error"]["what"]
    left = [] if limit == 20_000 else [".out.partial"]  # what no block was finished for is not kept
    assert [path.name for path in tmp_path.iterdir()] == left
    assert run(arguments) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# In a process of its own: block 1 says that it began and then takes a minute.
# A shell's background job ignores SIGINT, and so would its children.
SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from edgepress.compress.pipeline import sweep
real = sweep.Sweep._sweep_block
def slow(self, skeleton, anatomy):
    if anatomy.index == 1:
        print("block 1", file=sys.stderr, flush=True)
        time.sleep(60)
    return real(self, skeleton, anatomy)
sweep.Sweep._sweep_block = slow
from edgepress.cli.entry import main
main()
"""


def stop(arguments: list[str], number: signal.Signals) -> tuple[int, str, str]:
    """Run the command line, send it the signal while it works on block 1: exit code, stdout, stderr."""
    command = [sys.executable, "-c", SLOW, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        before = []
        for line in child.stderr:
            before.append(line)
            if line == "block 1\n":
                break
        child.send_signal(number)
        out, rest = child.communicate(timeout=50)
    return child.returncode, out, "".join(before) + rest


@pytest.fixture(scope="module")
def command(pico_llama: Path, pico_text: Path) -> list[str]:
    """A calibrated compression without its output."""
    text = ["--calibration", str(pico_text), "--samples", "8", "--length", "32"]
    return ["compress", str(pico_llama), "--scheme", "W4A16-g32", *text, "-o"]


@pytest.fixture(scope="module")
def whole(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The hashes of what the command writes when nothing stops it."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert run([*command, str(out), "--quiet"]) == 0
    return hash_tree(out)


@pytest.mark.chain
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_ctrl_c_says_how_to_continue_and_the_end_has_the_same_bytes(
    command: list[str], whole: dict[str, Any], tmp_path: Path
) -> None:
    arguments = [*command, str(tmp_path / "my out")]
    code, out, err = stop([*arguments, "--restart"], signal.SIGINT)
    assert (code, out) == (130, ""), err
    assert "Traceback" not in err and "[E-INTERRUPTED]: interrupted" in err
    again = shlex.split(err.splitlines()[-1].removeprefix("→ continue with: "))
    assert again == ["edgepress", *arguments]  # without --restart, which would drop what is finished
    assert [path.name for path in tmp_path.iterdir()] == [".my out.partial"]
    assert run([*again[1:], "--quiet"]) == 0
    assert hash_tree(tmp_path / "my out") == whole
    assert [path.name for path in tmp_path.iterdir()] == ["my out"]


@pytest.mark.chain
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_sigterm_is_one_document_and_the_end_has_the_same_bytes(
    command: list[str], whole: dict[str, Any], tmp_path: Path
) -> None:
    arguments = [*command, str(tmp_path / "out"), "--json", "-q"]
    code, out, err = stop(arguments, signal.SIGTERM)
    found = json.loads(out)["error"]
    assert (code, found["exit_code"], found["code"]) == (143, 143, "E-TERMINATED")
    assert found["fix"] == f"continue with: {shlex.join(['edgepress', *arguments])}"
    assert err.strip() == "block 1"
    assert run(shlex.split(found["fix"])[3:]) == 0
    assert hash_tree(tmp_path / "out") == whole
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.chain
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["--help"], 0),
        (["compress", "--help"], 0),
        (["devices", "list"], 0),
        (["devices", "list", "--json"], 0),
        (["verify", "nothing", "--json"], 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_ends_it_quietly(arguments: list[str], exit_code: int, unbuffered: str) -> None:
    """``edgepress … | head -1``: the pipe breaks at the first line, or when the buffer is flushed."""
    command = [sys.executable, "-m", "edgepress", *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (exit_code, "")


@pytest.mark.chain
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("as_json", [False, True])
def test_any_terminal_can_show_it(encoding: str, as_json: bool) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    for arguments, exit_code in (
        (["devices", "show", "raspberry-pi-5"], 0),
        (["recipe", "show", "größe → 大"], 2),
    ):
        command = [sys.executable, "-m", "edgepress", *arguments, *(["--json"] if as_json else [])]
        done = subprocess.run(command, capture_output=True, env=environment)
        assert done.returncode == exit_code, done.stderr
        if as_json:
            json.loads(done.stdout.decode(encoding))
        assert (b"\xe2\x89\xa4" in done.stdout) == (encoding == "utf-8" and not as_json and exit_code == 0)


@pytest.mark.chain
def test_python_m_edgepress_is_the_console_script() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgepress", "nothing"], capture_output=True, text=True, check=False
    )
    assert done.returncode == InputError.exit_code and "unknown verb" in done.stderr


def limited(code: str, *arguments: str, megabytes: int) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, timeout=120)


@pytest.mark.chain
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep to the limit")
@pytest.mark.parametrize("megabytes", [150, 175, 200, 225, 250, 300, 400, 1000])
def test_generate_answers(decoder_bundle: Path, megabytes: int) -> None:
    arguments = ("generate", str(decoder_bundle), "--prompt", "the sea", "--json", "--threads", "1")
    done = limited(VERB, *arguments, "--max-new-tokens", "2", megabytes=megabytes)
    document = json.loads(done.stdout)
    if done.returncode != 0:
        assert (done.returncode, document["error"]["code"]) == (6, "E-RESOURCE")
    assert done.returncode == 0 or megabytes < 1000
    assert "Traceback" not in done.stderr


@pytest.mark.chain
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep to the limit")
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


@pytest.mark.chain
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep to the limit")
def test_a_verb_s_own_code_is_kept_though_the_end_of_the_interpreter_is_an_abort() -> None:
    assert limited(ENDING.format(ending="pass"), megabytes=600).returncode == 5
    late = "import atexit; atexit.register(os.abort)"
    assert limited(ENDING.format(ending=late), megabytes=600).returncode == 5


@pytest.mark.chain
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep to the limit")
def test_sigterm_reaches_the_verb() -> None:
    ending = """try:
        os.kill(os.getppid(), signal.SIGTERM)
        signal.pause()
    except entry.SigTerm:
        return 143"""
    assert limited(ENDING.format(ending=ending), megabytes=600).returncode == 143


def test_a_nul_in_an_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "a\0b"]) == 2
    assert "E-INPUT" in capsys.readouterr().err


@pytest.mark.chain
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep to the limit")
@pytest.mark.parametrize("verb", ["compress", "export", "generate", "profile", "validate", "demo"])
def test_where_no_file_may_grow_the_answer_is_typed_and_nothing_is_left(
    verb: str, pico_llama: Path, decoder_bundle: Path, pico_text: Path, tmp_path: Path
) -> None:
    arguments = {
        "compress": [str(pico_llama), "--scheme", "W8A16", "-o", "out"],
        "export": [str(pico_llama), "-o", "out"],
        "generate": [str(decoder_bundle), "--prompt", "a"],
        "profile": [str(decoder_bundle)],
        "validate": [str(pico_llama), "--against", str(pico_llama), "--text", str(pico_text)],
        "demo": [],
    }[verb]
    command = [sys.executable, "-c", VERB, verb, *arguments, "--json"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
        timeout=120,
        check=False,
    )
    assert done.returncode == 6, done.stderr
    assert json.loads(done.stdout)["error"]["code"] == "E-RESOURCE"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
