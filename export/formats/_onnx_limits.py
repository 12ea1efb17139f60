"""What no ONNX graph holds: it is refused before anything is written, with the way out."""

from __future__ import annotations

from ...compress.numbers.scheme import runs_on
from ...errors import InputError
from ..graph.forms.providers import CPU
from ..job import ExportJob


def check_numbers(job: ExportJob) -> None:
    """Refuse layers in FP8, MXFP4 or NVFP4, unless they are exported in float.

    Raises:
        InputError: names the runtime that executes them.
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


def check_form(job: ExportJob) -> None:
    """Refuse what has no form but the CPU's, before anything is written.

    Raises:
        InputError: an encoder, integer products, or codes in the cache.
    """
    source, form = job.source, job.form
    if form == CPU:
        return
    integer = any(scheme.activations for scheme in source.schemes.values())
    if source.anatomy.kind != "decoder":
        why = "the graphs of encoders are written for the CPU only"
    elif integer and not job.as_float:
        why = "integer products of rounded activations are written for the CPU only"
    elif job.kv_dtype != form.dtype:
        why = f"its cache is {form.dtype}, and another is written for the CPU only"
    else:
        return
    raise InputError(
        f"{job.name} cannot be exported for {form.name}",
        why=why,
        fix="export it with --provider cpu, or a decoder of which only the weights are compressed (W4A16)",
    )
