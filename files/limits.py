"""Bounds that every floor must keep to: of numbers that a caller chooses, and of this process's memory."""

import sys

from ..errors import InputError

# What torch, NumPy and JSON all take.
LARGEST_SEED = (1 << 63) - 1
# More than the cores of any machine; beyond it a typing error takes gigabytes of stacks.
MOST_THREADS = 1024


def finite_number(value: object) -> float | None:
    """``value`` as a float where it is a number that a float holds, and else None: a whole number in JSON may
    have any size, and ``float`` and ``math.isfinite`` raise OverflowError for some.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= sys.float_info.max else None


def require_seed(seed: int) -> int:
    """``seed``; raises InputError where it is none."""
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"seed is {seed}, it must be a whole number from 0 to {LARGEST_SEED}")
    return seed


def require_threads(threads: int | None) -> int | None:
    """``threads``, or None for what the machine has; raises InputError where there cannot be so many."""
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise InputError(f"threads is {threads}, it must be at least 1 and at most {MOST_THREADS}")
    return threads


def threads_in_words(threads: int) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{threads} thread{'s' * (threads != 1)}"


def address_space_limit() -> int | None:
    """Bytes of address space that this process may have (``ulimit -v`` or ``-d``); None without a limit.

    Under one a thread may fail to start, and ``Thread.start`` then waits for ever.
    """
    try:
        import resource
    except ImportError:  # not a POSIX system
        return None
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return min((limit for limit in limits if limit != resource.RLIM_INFINITY), default=None)
