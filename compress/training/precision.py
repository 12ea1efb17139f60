"""In which precision a model computes while it learns; parameters and losses stay float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 matrices in hardware, where they are faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context that a forward pass in training runs under."""
    if precision == "bfloat16" or (precision == "auto" and computes_in_bfloat16(device)):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
