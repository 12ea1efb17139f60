"""In which precision a model computes while it learns; parameters and losses stay float32.

float16 has few exponents: where it is computed in, a loop has to scale its losses (``loss_scale``), and what
has no such loop does not choose it.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]
LoopPrecision = Literal["auto", "float32", "bfloat16", "float16"]

_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_TENSOR_CORES = (7, 0)  # CUDA's first capability with products of float16 matrices in hardware


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 matrices in hardware, where they are faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def chosen(precision: LoopPrecision, device: torch.device) -> LoopPrecision:
    """What ``auto`` means on ``device`` to a loop that scales its losses: bfloat16 where it is in hardware,
    else float16 (CUDA before Ampere), else float32.
    """
    if precision != "auto":
        return precision
    if computes_in_bfloat16(device):
        return "bfloat16"
    halves = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _TENSOR_CORES
    return "float16" if halves else "float32"


def autocast(precision: LoopPrecision, device: torch.device) -> AbstractContextManager[object]:
    """The context that a forward pass in training runs under; ``auto`` is bfloat16 or float32 here."""
    if precision == "auto":
        precision = "bfloat16" if computes_in_bfloat16(device) else "float32"
    return nullcontext() if precision == "float32" else torch.autocast(device.type, _TYPES[precision])
