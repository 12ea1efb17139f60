"""Which device the sweep runs on, and how its host gives memory back.

Freed tensors go back to the system at once, so that the peak of memory is what is in use. glibc raises the
size from which it maps a block of memory on its own whenever such a block is freed, up to 32 MiB; smaller
ones then come from an arena that fragments and is hardly ever returned. A fixed size costs a few per cent of
CPU and keeps the resident set at what the plan predicts. What smaller blocks leave behind is given back when
forward passes end and when a transformer block is finished.

A training loop takes and frees the same small blocks in every step. If the free end of the arena went back
every time, as it does with a fixed size, an eighth of the loop's CPU time would be page faults.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ...errors import MissingDependency, UnknownName
from ...runtime.session.allocator import call_allocator, return_freed_memory

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_BYTES = 16 << 20
# What may stay free: enough for the temporaries of a layer that is rounded, and for a training step's.
_TRIMMED, _KEPT = 32 << 20, 1 << 30


def choose_device(name: str) -> torch.device:
    """The torch device called ``name``; ``auto`` takes CUDA, then MPS, then the CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise UnknownName("device", name, ["auto", "cpu", "cuda", "mps"])
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[kind]
    if not present or (kind == "cuda" and index and int(index) >= torch.cuda.device_count()):
        raise MissingDependency(
            f"device {name!r} is not available here", fix="see `edgepress doctor`, or use --device cpu"
        )
    return torch.device(name)


def return_large_blocks() -> None:
    """Have blocks of 16 MiB and more mapped on their own from now on, and no more than 32 MiB of smaller ones
    kept; does nothing without glibc.
    """
    call_allocator("mallopt", _M_MMAP_THRESHOLD, _BYTES)
    call_allocator("mallopt", _M_TRIM_THRESHOLD, _TRIMMED)


def return_small_blocks() -> None:
    """Give the system back what the allocator holds free now; does nothing without glibc."""
    return_freed_memory()


@contextmanager
def small_blocks_kept() -> Iterator[None]:
    """Keep what is freed for the next step inside, and give it back after; does nothing without glibc."""
    call_allocator("mallopt", _M_TRIM_THRESHOLD, _KEPT)
    try:
        yield
    finally:
        call_allocator("mallopt", _M_TRIM_THRESHOLD, _TRIMMED)
        return_small_blocks()
