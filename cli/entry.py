"""The command line as a process: this file alone turns exceptions into messages and exit codes.

A verb under a limit of address space runs in a child process, whose death is an answer.

Where native code cannot allocate it aborts, exits or crashes, and nothing in its process can catch that.
"""

import atexit
import errno
import io
import os
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from .. import __version__
from ..errors import (
    BadUsage,
    EdgepressError,
    InputError,
    OutOfResource,
    SigTerm,
    missing_extra,
    stopped,
)
from ..files.disk import FULL, disk_error
from ..files.escaping import one_line, printable
from ..files.limits import address_space_limit
from ..files.third_party_errors import memory_shortage, no_scratch
from ..terminal.progress import fitted, print_json
from .program import discard, edgepress

# The verbs that go on where they were stopped.
CONTINUED = ("compress", "fit", "demo")


def _wants_json(arguments: list[str]) -> bool:
    return "--json" in (arguments[: arguments.index("--")] if "--" in arguments else arguments)


def _verbose(arguments: list[str]) -> bool:
    return not {"-v", "--verbose"}.isdisjoint(arguments)


def _trace(error: BaseException) -> None:
    import traceback

    sys.stderr.write(printable("".join(traceback.format_exception(error))))


def _shown(error: EdgepressError) -> str:
    """The error's text; a name in it must not write a line of its own, such as another way out."""
    why = re.sub(r"\n(?!  )", "\n  ", printable(error.why))
    parts = (one_line(error.what), why, error.fix and f"→ {one_line(error.fix)}")
    return "\n".join(part for part in parts if part)


def _fail(error: EdgepressError, arguments: list[str]) -> int:
    as_json = _wants_json(arguments)
    if error.__traceback__ is not None and _verbose(arguments):
        _trace(error)
    try:
        if as_json:
            print_json({"error": error.as_dict()})
        else:
            print(fitted(f"error [{error.code}]: {_shown(error)}"), file=sys.stderr, flush=True)
    except BrokenPipeError:
        discard(sys.stdout if as_json else sys.stderr)
    return error.exit_code


def _usage(error: click.ClickException, arguments: list[str]) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError) and not _wants_json(arguments):
        print(error.format_message(), file=sys.stderr)
        return error.exit_code
    context = getattr(error, "ctx", None)
    verb = context.command_path if context is not None else "edgepress"
    said = error.format_message().rstrip(".")
    kind = getattr(getattr(error, "param", None), "type", None)
    if isinstance(kind, click.IntRange):
        bounds = f"from {kind.min}" if kind.max is None else f"from {kind.min} to {kind.max}"
        said = said.replace("is not a valid integer range", f"is not a whole number {bounds}")
    return _fail(BadUsage(said[:1].lower() + said[1:], fix=f"see: {verb} --help"), arguments)


def _stopped(cause: BaseException | None, arguments: list[str]) -> int:
    if not arguments or arguments[0] not in CONTINUED:
        return _fail(stopped(cause), arguments)
    # A second --restart would drop what the first run finished.
    again = shlex.join(["edgepress", *(word for word in arguments if word != "--restart")])
    return _fail(stopped(cause, why="what is finished is kept", fix=f"continue with: {again}"), arguments)


def _internal(error: BaseException, arguments: list[str]) -> int:
    _trace(error)
    bug = f"a bug in edgepress {__version__}: {type(error).__name__}: {error}"
    return _fail(EdgepressError(bug, fix="please report it with the traceback on stderr"), arguments)


def _bad_path(error: Exception) -> InputError | None:
    """The typed error where the system says of a path that it is none, or not for this user."""
    known = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM)
    if not isinstance(error, OSError) or error.errno not in known or error.filename is None:
        return None
    denied = error.errno in (errno.EACCES, errno.EPERM)
    return InputError(
        f"cannot use the path {str(error.filename)[:200]}",
        why=error.strerror or "",
        fix="look at its owner and mode with ls -ld, or name another path" if denied else "name another path",
    )


def _disk_full(error: Exception) -> EdgepressError | None:
    """The typed error where the system says that a file could not grow, or that it was interrupted."""
    if not isinstance(error, OSError) or error.errno not in (*FULL, errno.EINTR):
        return None
    return disk_error(Path(error.filename or ".").absolute(), error)


def _run(arguments: list[str]) -> int:
    try:
        if any("\0" in word for word in arguments):
            raise InputError("an argument holds a NUL character", fix="leave it out")
        outcome = edgepress.main(args=arguments, prog_name="edgepress", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except EdgepressError as error:
        return _fail(error, arguments)
    except click.exceptions.Abort as error:
        # click makes it of an interrupt, and of the end of a file, which no verb expects.
        cause = error.__cause__
        return _internal(cause, arguments) if isinstance(cause, EOFError) else _stopped(cause, arguments)
    except KeyboardInterrupt as error:
        return _stopped(error, arguments)
    except click.ClickException as error:
        return _usage(error, arguments)
    except ModuleNotFoundError as error:
        missing = missing_extra(error.name or "")
        return _internal(error, arguments) if missing is None else _fail(missing, arguments)
    except Exception as error:  # noqa: BLE001 - the CLI's edge is where unknown errors end
        known = memory_shortage(error) or no_scratch(error) or _disk_full(error) or _bad_path(error)
        return _internal(error, arguments) if known is None else _fail(known, arguments)


def run(arguments: list[str] | None = None) -> int:
    """Run the CLI with ``arguments`` (of the process when None) and return its exit code."""
    code = 0
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
    return code


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise SigTerm


def _plain_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"WARNING: {message}\n"


def _leave(code: int) -> NoReturn:
    """End one of several processes: threads that connect them may outlive the interpreter, and abort it."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


def main() -> NoReturn:
    """The console script."""
    warnings.formatwarning = _plain_warning
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a question mark for what the terminal cannot show
    limit = address_space_limit()
    if limit is None:
        code = run()
        if "WORLD_SIZE" in os.environ:
            _leave(code)
        sys.exit(code)

    sys.exit(run_in_child(run, lambda error: _fail(error, sys.argv[1:]), limit))


def run_in_child(run: Callable[[], int], failed: Callable[[EdgepressError], int], limit: int) -> int:
    """The exit code of ``run()``, or what ``failed`` makes of the child's end where native code ended it."""
    reader, writer = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    child = os.fork()
    if child == 0:
        os.close(reader)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sys.exit(_answer(run, writer))
    os.close(writer)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells the child too
    signal.signal(signal.SIGTERM, lambda number, frame: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    said = os.read(reader, 1)
    _, status = os.waitpid(child, 0)
    return said[0] if said else failed(_shortage(status, limit))


def _answer(run: Callable[[], int], writer: int) -> int:
    try:
        code = run()
    except MemoryError:  # where it was to be reported
        os._exit(1)
    os.write(writer, bytes([code]))
    return code


def _shortage(status: int, limit: int) -> OutOfResource:
    code = os.waitstatus_to_exitcode(status)
    end = f"signal {-code}" if code < 0 else f"code {code}"
    return OutOfResource(
        "out of memory",
        why=f"native code ended the process ({end}), whose address space is limited to {limit >> 20} MB",
        fix="raise the limit (ulimit -v, ulimit -d), or choose a smaller model",
    )
