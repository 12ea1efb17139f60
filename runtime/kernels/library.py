"""The library of edgepress's own operators: where it is, and which instructions it uses here.

It is built with the package where there is a compiler. Without it, or with ``EDGEPRESS_KERNELS=off``, only
bundles of standard operators run. ``EDGEPRESS_KERNELS_LIBRARY`` names another build of it, as the check with
sanitizers does.
"""

import ctypes
import os
from functools import cache
from pathlib import Path

from ...errors import MissingDependency

DOMAIN = "edgepress"
_OFF = "off"
_SUFFIXES = (".so", ".pyd", ".dylib")


def library() -> Path | None:
    """The library of operators; None where it was not built or is switched off."""
    if os.environ.get("EDGEPRESS_KERNELS", "").lower() == _OFF:
        return None
    if other := os.environ.get("EDGEPRESS_KERNELS_LIBRARY"):
        return Path(other).absolute()
    folder = Path(__file__).parent
    found = (path for path in sorted(folder.glob("_kernels*")) if path.suffix in _SUFFIXES)
    return next(found, None)


def instructions() -> str:
    """The instructions that the kernels use on this processor: ``amx``, ``avx512-vnni``, ``avx-vnni`` or
    ``avx2``, ``neon-i8mm``, ``neon-dotprod`` or ``neon``, or ``plain``; ``none`` where there is no library.
    """
    path = library()
    return "none" if path is None else _name(path, os.environ.get("EDGEPRESS_KERNELS", ""))


@cache
def _name(path: Path, _: str) -> str:
    try:
        function = ctypes.CDLL(str(path)).edgepress_kernels
    except (OSError, AttributeError) as error:
        raise MissingDependency(f"the library of operators {path} cannot be loaded", why=str(error)) from None
    function.restype = ctypes.c_char_p
    return str(function().decode("ascii"))


def why_missing() -> str:
    """Why there is no library; "" where there is one."""
    if library() is not None:
        return ""
    off = os.environ.get("EDGEPRESS_KERNELS", "").lower() == _OFF
    return "EDGEPRESS_KERNELS is off" if off else "the package was installed without a C compiler"


def require_library(what: str) -> Path:
    """The library for ``what``, which cannot do without."""
    path = library()
    if path is not None:
        return path
    why = why_missing()
    mend = "unset it" if "off" in why else "install a C compiler and edgepress again"
    raise MissingDependency(
        f"{what} needs edgepress's own operators",
        why=why,
        fix=f"{mend}; or export the checkpoint with: edgepress export CHECKPOINT -o BUNDLE --for standard",
    )
