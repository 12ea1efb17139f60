"""edgepress: make trained transformers small and fast enough for their machine, and prove it.

The public API is loaded lazily, so that ``import edgepress`` and ``edgepress --help`` cost nothing:

    import edgepress
    edgepress.compress_model("smollm2", scheme="W4A16", output="out")
    edgepress.export_bundle("out", output="bundle")
    for piece in edgepress.open_bundle("bundle").stream("The capital of France is"):
        print(piece, end="", flush=True)
"""

import os
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

# ONNX Runtime's own builds send events to their maker unless this is set before the library loads; with it
# they make no device id and open no connection. Processes that we start inherit it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

_API = {
    "compress_model": ("compress.api", "compress_model"),
    "plan_model": ("compress.api", "plan_model"),
    "export_bundle": ("export.api", "export_bundle"),
    "open_bundle": ("runtime.api", "open_bundle"),
    "Model": ("runtime.hub", "Model"),
    "validate_bundle": ("benchmarks.quality.validate", "validate_bundle"),
    "profile_bundle": ("benchmarks.speed.profile", "profile_bundle"),
    "write_report": ("benchmarks.page.report", "write_report"),
}

__all__ = ["__version__", "compress", *_API]


def __getattr__(name: str) -> Any:
    if name == "compress":  # the folder, which can be called
        return import_module(".compress", __name__)
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _API[name]
    found = getattr(import_module(f".{module}", __name__), attribute)
    return found if isinstance(found, type) else _for_people(found)


def _for_people(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as it is called from a session: progress is shown where somebody looks (``progress=False``
    shows none), and Ctrl-C ends without the frames of what it interrupted.
    """
    from inspect import signature  # only here: it costs a start

    takes_progress = "progress" in signature(function).parameters

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        from .terminal.progress import shown

        try:
            if not takes_progress:
                return function(*args, **kwargs)
            with shown(kwargs.pop("progress", None)) as progress:
                return function(*args, progress=progress, **kwargs)
        except KeyboardInterrupt:
            # The call again goes on where this one stopped, as far as it keeps what is finished.
            raise KeyboardInterrupt(f"{function.__name__} was interrupted") from None

    return called


def __dir__() -> list[str]:
    return sorted(__all__)
