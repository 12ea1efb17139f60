"""Names of modules: as checkpoints store them, and as transformers builds them."""

from __future__ import annotations

from .anatomy import Anatomy


def module_name(anatomy: Anatomy, stored: str) -> str:
    """The path in the built model of a module by its stored name."""
    return _replaced(stored, anatomy.renamed)


def stored_name(anatomy: Anatomy, module: str) -> str:
    """The inverse of :func:`module_name`."""
    return _replaced(module, tuple((theirs, ours) for ours, theirs in anatomy.renamed))


def _replaced(name: str, prefixes: tuple[tuple[str, str], ...]) -> str:
    for old, new in prefixes:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
