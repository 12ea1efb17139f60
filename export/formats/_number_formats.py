"""Formats of numbers that no graph holds: they are refused before anything is written, with the way out."""

from __future__ import annotations

from ...compress.numbers.execution import runs_on
from ...errors import InputError
from ..job import ExportJob


def check_numbers(job: ExportJob) -> None:
    """Refuse layers in FP8, MXFP4 or NVFP4, unless they are exported in float.

    Raises:
        InputError: says which runtime executes them.
    """
    floats = {scheme for scheme in job.source.schemes.values() if scheme.format != "int"}
    if not floats or job.as_float:
        return
    names = ", ".join(sorted(scheme.name for scheme in floats))
    raise InputError(
        f"{job.name} holds {names}, which ONNX Runtime has no kernels for",
        why="; ".join(runs_on(floats)),
        fix=f"serve the checkpoint itself, as in `vllm serve {job.path}`, or compress the model with W4A16 "
        "or W8A8 for ONNX",
    )
