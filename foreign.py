"""The one place where a library's untyped errors become typed ones.

Some libraries raise bare ``Exception`` for a broken file, and a panic in native code arrives as a
``BaseException`` of a class that cannot be imported. No ``except`` can name them; both are bad input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import EdgepressError


@contextmanager
def foreign_errors_are_typed(typed: Callable[[str], EdgepressError]) -> Iterator[None]:
    """Raise ``typed("Class: message")`` for whatever a library raises in the body, but for interrupts."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, EdgepressError):
        raise
    except BaseException as error:
        raise typed(f"{type(error).__name__}: {str(error)[:400]}") from error
