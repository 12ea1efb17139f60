"""The one place where a library's untyped errors become typed ones.

Some libraries raise bare ``Exception`` for a broken file, and a panic in native code arrives as a
``BaseException`` of a class that cannot be imported. No ``except`` can name them; both are bad input.
What says of itself that memory ran out is no bad input: native code says it in words.
"""

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import EdgepressError, OutOfResource

_SHORTAGE = re.compile(
    r"MemoryError|bad[ _]alloc|(failed to|can(no|')t|unable to) allocate|(out of|not enough) memory"
    r"|STATUS_ALLOC_FAILED"
    r"|failed to map segment|memory allocation of \d+ bytes failed|start new thread|pthread_create failed"
    r"|error return without exception set",
    re.IGNORECASE,
)


def memory_shortage(error: BaseException) -> OutOfResource | None:
    """The typed error where ``error`` says that there is no memory left, or no room for a thread's stack."""
    words = str(error).strip()
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or number == errno.ENOMEM or _SHORTAGE.search(words):
        return OutOfResource(
            "out of memory",
            why=(words or type(error).__name__)[:800],
            fix="free some memory, raise the limit (ulimit -v, the control group), or choose a smaller model",
        )
    return None


def no_scratch(error: BaseException) -> OutOfResource | None:
    """The typed error where ``error`` is that of :mod:`tempfile`, which found no directory that takes a
    file.
    """
    if isinstance(error, FileNotFoundError) and str(error.strerror).startswith("No usable temporary"):
        return OutOfResource(
            "no temporary file can be written",
            why=str(error.strerror),
            fix="free some disk, raise the limit of file sizes (ulimit -f), or set TMPDIR to a directory "
            "that you may write",
        )
    return None


@contextmanager
def shortages_are_typed() -> Iterator[None]:
    """Raise :class:`OutOfResource` for whatever says in the body that memory ran out; all else passes."""
    try:
        yield
    except Exception as error:
        shortage = None if isinstance(error, EdgepressError) else memory_shortage(error)
        if shortage is None:
            raise
        raise shortage from error


@contextmanager
def third_party_errors_are_typed(typed: Callable[[str], EdgepressError]) -> Iterator[None]:
    """Raise ``typed("Class: message")`` for whatever a library raises in the body, but for interrupts."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, EdgepressError):
        raise
    except BaseException as error:
        if shortage := memory_shortage(error) or no_scratch(error):
            raise shortage from error
        raise typed(f"{type(error).__name__}: {str(error)[:400]}") from error
