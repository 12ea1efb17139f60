"""The typed error tree. Every failure a user can cause ends here, never in a traceback.

A message says what happened, why, and what to do; ``code`` is stable and greppable, ``exit_code`` is what the
process returns: 0 ok, 1 gate failed, 2 bad usage or input, 3 degraded under ``--strict``, 4 missing extra,
device or execution provider, 5 refused by policy, 6 out of disk, RAM or VRAM, 70 internal bug, 130/143
signal.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class EdgepressError(Exception):
    """Root of the tree. ``what`` happened, ``why``, and the ``fix``: the way out."""

    code: ClassVar[str] = "E-INTERNAL"
    exit_code: ClassVar[int] = 70

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.fix = what, why, fix

    def __str__(self) -> str:
        return "\n".join(part for part in (self.what, self.why, self.fix and f"→ {self.fix}") if part)

    def as_dict(self) -> dict[str, str | int]:
        """The error as a JSON-ready mapping, printed on stdout under ``--json``."""
        return {
            "code": self.code,
            "exit_code": self.exit_code,
            "what": self.what,
            "why": self.why,
            "fix": self.fix,
        }


class GateFailed(EdgepressError):
    """A check that guards publication did not pass (parity, accuracy, verification)."""

    code, exit_code = "E-GATE", 1


class InputError(EdgepressError):
    """The request or an input file is wrong."""

    code, exit_code = "E-INPUT", 2


class BadUsage(InputError):
    """The command line is not one: an unknown option, a missing argument, a value of the wrong kind."""

    code = "E-USAGE"


class UnknownName(InputError):
    """A name that nothing answers to; carries the nearest known one."""

    code = "E-UNKNOWN"

    def __init__(self, kind: str, name: str, known: Iterable[str], *, fix: str = "") -> None:
        choices = sorted(known)
        near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(
            f"unknown {kind} {name!r}",
            fix=fix or f"{hint}known: {', '.join(choices) if choices else 'none'}",
        )


class RecipeError(InputError):
    """A recipe that does not parse, has an unknown key, or asks for what cannot be."""

    code = "E-RECIPE"


class CheckpointError(InputError):
    """A model directory or file that is incomplete, inconsistent or hostile."""

    code = "E-CHECKPOINT"


class CalibrationError(InputError):
    """Calibration text that cannot serve: empty, duplicates only, too short, not UTF-8."""

    code = "E-CALIBRATION"


class TrainingError(InputError):
    """Learning that cannot begin: nothing to learn, or a loss that is no number."""

    code = "E-TRAINING"


class BundleError(InputError):
    """A bundle whose files do not match its manifest, or that this runtime cannot read."""

    code = "E-BUNDLE"


class ShapeError(InputError):
    """A layer whose dimensions do not fit the scheme."""

    code = "E-SHAPE"


class OutputExists(InputError):
    """The output is already there."""

    code = "E-EXISTS"


class OutputBusy(InputError):
    """Another process is writing the output."""

    code = "E-BUSY"


class Degraded(EdgepressError):
    """Under ``--strict``: the work finished, but a layer fell back."""

    code, exit_code = "E-DEGRADED", 3


class MissingDependency(EdgepressError):
    """An extra, device or execution provider is not there."""

    code, exit_code = "E-MISSING", 4


class RefusedByPolicy(EdgepressError):
    """Safe by default: pickles, remote code, paths that leave their directory."""

    code, exit_code = "E-REFUSED", 5


class OutOfResource(EdgepressError):
    """Out of disk, RAM or VRAM, preferably found before the work starts."""

    code, exit_code = "E-RESOURCE", 6


class Interrupted(EdgepressError):
    """Ctrl-C (SIGINT) ended the work."""

    code, exit_code = "E-INTERRUPTED", 130


class Terminated(Interrupted):
    """SIGTERM ended the work."""

    code, exit_code = "E-TERMINATED", 143


# Which extra brings a package that the core install lacks.
EXTRAS = {
    "torch": "compress",
    "transformers": "compress",
    "accelerate": "compress",
    "compressed_tensors": "compress",
    "gguf": "compress",
    "onnx": "compress",
    "onnx_ir": "compress",
    "onnxruntime": "cpu",
}


def missing_extra(module: str) -> MissingDependency | None:
    """The error for a failed import of ``module``, when an extra of edgepress brings it."""
    extra = EXTRAS.get(module.partition(".")[0])
    return None if extra is None else _missing(module, extra)


def require(module: str, extra: str) -> None:
    """Raise :class:`MissingDependency` naming the extra when ``module`` is not installed."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise _missing(module, extra)


def _missing(module: str, extra: str) -> MissingDependency:
    return MissingDependency(
        f"this needs the package {module!r}, which is not installed",
        fix=f'install it with: pip install "edgepress[{extra}]"',
    )
