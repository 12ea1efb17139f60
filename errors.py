"""The typed error tree. Every failure a user can cause ends here, never in a traceback.

A message says what happened, why, and what to do; ``code`` is stable and greppable, ``exit_code`` is what the
process returns: 0 ok, 1 gate failed, 2 bad usage or input, 3 degraded under ``--strict``, 4 missing extra,
device or execution provider, 5 refused by policy, 6 out of disk, RAM or VRAM, 70 internal bug, 130/143
signal.
"""

from collections.abc import Iterable, Mapping
from typing import ClassVar


class EdgepressError(Exception):
    """Root of the tree. ``what`` happened, ``why``, and the ``fix``: by default the class's way out."""

    code: ClassVar[str] = "E-INTERNAL"
    exit_code: ClassVar[int] = 70
    way_out: ClassVar[str] = "this should not happen: please report it with the command that led here"

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.fix = what, why, fix or self.way_out

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


def together(errors: Mapping[str, EdgepressError]) -> EdgepressError | None:
    """One error for all places that failed, the first's, which names the others; None where none did."""
    if not errors:
        return None
    (_, first), *others = errors.items()
    first.why = "\n".join([first.why, *(f"{name}: {error.what}" for name, error in others)]).strip()
    return first


class GateFailed(EdgepressError):
    """A check that guards publication did not pass (parity, accuracy, verification)."""

    code, exit_code = "E-GATE", 1
    way_out = "the message says what failed; nothing was published"


class InputError(EdgepressError):
    """The request or an input file is wrong."""

    code, exit_code = "E-INPUT", 2
    way_out = "correct the value or the file that is named; `edgepress VERB --help` says what a verb takes"


class BadUsage(InputError):
    """The command line is not one: an unknown option, a missing argument, a value of the wrong kind."""

    code = "E-USAGE"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that ``name`` begins, in any case, or else the one spelt most like it; None where
    none is near.
    """
    import difflib

    spelt = {choice.casefold(): choice for choice in known}
    begun = [word for word in spelt if name and word.startswith(name.casefold())]
    near = begun or difflib.get_close_matches(name.casefold(), spelt, n=1, cutoff=0.5)
    return spelt[near[0]] if near else None


class UnknownName(InputError):
    """A name that nothing answers to; carries the nearest known one."""

    code = "E-UNKNOWN"

    def __init__(self, kind: str, name: str, known: Iterable[str], *, fix: str = "") -> None:
        choices = sorted(known)
        near = nearest(name, choices)
        hint = f"did you mean {near!r}? " if near else ""
        super().__init__(
            f"unknown {kind} {name!r}",
            fix=fix or f"{hint}known: {', '.join(choices) if choices else 'none'}",
        )


class RecipeError(InputError):
    """A recipe that does not parse, has an unknown key, or asks for what cannot be."""

    code = "E-RECIPE"
    way_out = "`edgepress recipe schema` lists every option, `edgepress recipe show balanced` is an example"


class CheckpointError(InputError):
    """A model directory or file that is incomplete, inconsistent or hostile."""

    code = "E-CHECKPOINT"
    way_out = "`edgepress inspect PATH` shows what it holds; where it is damaged, fetch or save it again"


class CalibrationError(InputError):
    """Calibration text that cannot serve: empty, duplicates only, too short, not UTF-8."""

    code = "E-CALIBRATION"
    way_out = "give a UTF-8 .txt or .jsonl file, a directory of them, or a name like wikipedia"


class TrainingError(InputError):
    """Learning that cannot begin: nothing to learn, or a loss that is no number."""

    code = "E-TRAINING"
    way_out = "lower the learning rate, or look at train.jsonl for the step where the loss left"


class BundleError(InputError):
    """A bundle whose files do not match its manifest, or that this runtime cannot read."""

    code = "E-BUNDLE"
    way_out = "copy it again where it is damaged, or make it again: edgepress export CHECKPOINT -o BUNDLE"


class EngineError(InputError):
    """The server of another engine died, did not answer, or answered something else than it should."""

    code = "E-ENGINE"
    way_out = "look at its last lines above; the same checkpoint can be served by hand to see more"


class ShapeError(InputError):
    """A layer whose dimensions do not fit the scheme."""

    code = "E-SHAPE"
    way_out = "choose a scheme or group size that fits, or `ignore` the layer in the recipe"


class OutputExists(InputError):
    """The output is already there."""

    code = "E-EXISTS"
    way_out = "pass --overwrite, or choose another output"


class OutputBusy(InputError):
    """Another process is writing the output."""

    code = "E-BUSY"
    way_out = "wait for the other process, or choose another output"


class Degraded(EdgepressError):
    """Under ``--strict``: the work finished, but a layer fell back."""

    code, exit_code = "E-DEGRADED", 3
    way_out = "the summary names the layers; without --strict the result is kept with their status"


class MissingDependency(EdgepressError):
    """An extra, device or execution provider is not there."""

    code, exit_code = "E-MISSING", 4
    way_out = "`edgepress doctor` lists what is installed and how to get the rest"


class RefusedByPolicy(EdgepressError):
    """Safe by default: pickles, remote code, paths that leave their directory."""

    code, exit_code = "E-REFUSED", 5
    way_out = "files from elsewhere may not do this: get the model from a source that you trust"


class OutOfResource(EdgepressError):
    """Out of disk, RAM or VRAM, preferably found before the work starts."""

    code, exit_code = "E-RESOURCE", 6
    way_out = "free some memory or disk, or choose a smaller setting"


class Interrupted(EdgepressError):
    """Ctrl-C (SIGINT) ended the work."""

    code, exit_code = "E-INTERRUPTED", 130
    way_out = ""


class Terminated(Interrupted):
    """SIGTERM ended the work."""

    code, exit_code = "E-TERMINATED", 143


class SigTerm(KeyboardInterrupt):
    """SIGTERM arrived: ends the work as Ctrl-C does, under its own exit code."""


def stopped(cause: BaseException | None, *, why: str = "", fix: str = "") -> Interrupted:
    """The error of what the signal behind ``cause`` ended."""
    if isinstance(cause, SigTerm):
        return Terminated("terminated", why=why, fix=fix)
    return Interrupted("interrupted", why=why, fix=fix)


# Which extra brings a package that the core install lacks.
EXTRAS = {
    "torch": "compress",
    "transformers": "compress",
    "huggingface_hub": "compress",
    "accelerate": "compress",
    "gguf": "compress",
    "onnx": "compress",
    "onnx_ir": "compress",
    "onnxruntime": "cpu",
    "scipy": "fit",
    "model_signing": "sign",
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
