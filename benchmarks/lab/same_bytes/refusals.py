"""How a call to the public API was refused, as text that can be compared."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ....errors import EdgepressError

# What a bug raises; it is recorded, so that one does not hide the cases behind it.
BUGS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def refusal(work: Callable[[], object]) -> str | None:
    """The error of ``work``, such as ``refused E-RECIPE, exit 2``; None where there was none."""
    try:
        work()
    except EdgepressError as error:
        print(f"  {error.what}", flush=True)
        return f"refused {error.code}, exit {error.exit_code}"
    except BUGS as error:
        print(f"  {type(error).__name__}: {error}", file=sys.stderr)
        return f"bug {type(error).__name__}"
    return None
