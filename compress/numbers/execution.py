"""Which runtime computes with a scheme, as the runtimes' documentation and release notes have it.

Integers run here, in ONNX Runtime, after an export. The float formats are for server GPUs: here a checkpoint
in one of them is emulated (weights and activations are rounded as hardware does it, products are float32),
so that its quality can be measured before a GPU is rented.
"""

from __future__ import annotations

from collections.abc import Iterable

from .scheme import Scheme

EMULATED = "emulated here, in float32"

_INTEGERS = "ONNX Runtime after `edgepress export`"
# By the name of the scheme; capability is CUDA's compute capability.
_SERVERS = {
    "FP8_DYNAMIC": "vLLM ≥ 0.5 on GPUs of capability ≥ 8.9 (Ada, Hopper, Blackwell)",
    "FP8": "vLLM ≥ 0.5 on GPUs of capability ≥ 8.9 (Ada, Hopper, Blackwell)",
    "NVFP4": "vLLM ≥ 0.9.1 on GPUs of capability ≥ 10 (Blackwell); on older ones with activations in 16 bits",
    "NVFP4A16": "vLLM ≥ 0.9 on GPUs of capability ≥ 8 (Ampere and later)",
    "MXFP4": "vLLM ≥ 0.14 on GPUs of capability ≥ 8; it may leave activations in 16 bits, and does below 10",
    "MXFP4A16": "vLLM ≥ 0.14 on GPUs of capability ≥ 8 (Ampere and later)",
}


def runs_on(schemes: Iterable[Scheme]) -> list[str]:
    """One line for each kind of scheme in ``schemes``: who executes it."""
    lines = []
    for scheme in sorted(set(schemes), key=lambda one: one.name):
        if scheme.format == "int":
            lines.append(f"integers: {_INTEGERS}")
        else:
            lines.append(f"{scheme.name}: {_SERVERS[scheme.name]}; {EMULATED}")
    return list(dict.fromkeys(lines))
