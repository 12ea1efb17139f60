"""The ``awq`` format: AutoAWQ's checkpoint form (``gemm``), which transformers and vLLM open, of
weights of 4 bits with or without zero points.

``qweight [in, out / 8]`` holds eight output channels in a word, in the order 0 2 4 6 1 3 5 7, the first one
lowest; ``qzeros [groups, out / 8]`` the zero points in the same way, ``scales [groups, out]`` float16. Codes
count from 0, so that the zero point of symmetric weights is 8.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...compress.model.checkpoint.packed_codes import pack, unpack
from ...compress.numbers.qtensor import QTensor
from ...compress.numbers.scheme import Scheme
from ..format import ExportFormat, Prepared
from ._packed_checkpoint import packed_checkpoint

_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
_PLACES = [0, 4, 1, 5, 2, 6, 3, 7]  # of channels 0 to 7 in a word


class Awq:
    """The form."""

    name, packages = "AWQ", "gptqmodel"
    bits: tuple[int, ...] = (4,)
    group_sizes: tuple[int | None, ...] = (None, 16, 32, 64, 128)
    # Of these it expects scales of the MLP's activation too, which no other reader knows.
    families_not_opened: tuple[str, ...] = ("bloom", "gpt_neox", "gptj", "mpt", "starcoder2")
    families_served: tuple[str, ...] = ("gemma", "glm4", "llama", "mistral", "phi3", "qwen2", "qwen3")

    def served_instead(self, scheme: Scheme) -> str:
        """Nothing: whatever the form holds."""
        return ""

    def settings(self, scheme: Scheme, head: str | None) -> dict[str, Any]:
        """What AutoAWQ writes."""
        return {
            "quant_method": "awq",
            "version": "gemm",
            "bits": scheme.bits,
            "group_size": -1 if scheme.group_size is None else scheme.group_size,
            "zero_point": True,
            "modules_to_not_convert": None if head is None else [head],
        }

    def pack(self, tensor: QTensor) -> dict[str, Tensor]:
        """``qweight``, ``qzeros`` and ``scales``."""
        zeros = torch.zeros_like(tensor.scale) if tensor.zero_point is None else tensor.zero_point
        return {
            "qweight": _words(tensor.codes),
            "qzeros": _words(zeros.to(torch.int8)),
            "scales": tensor.scale.to(torch.float16).T,
        }

    def unpack(self, parts: Mapping[str, Tensor], scheme: Scheme) -> QTensor:
        """With zero points, also where the scheme has none."""
        scale = parts["scales"].T.to(torch.float32).contiguous()
        codes, zeros = (_values(parts[name], len(scale)) for name in ("qweight", "qzeros"))
        return QTensor(scheme.model_copy(update={"symmetric": False}), codes, scale, zeros)


def _words(values: Tensor) -> Tensor:
    """``[columns, rows / 8]`` of ``values [rows, columns]``."""
    turned = values.T.reshape(values.shape[1], -1, len(_ORDER))[..., _ORDER]
    return pack(turned.flatten(1).contiguous(), 4)


def _values(words: Tensor, rows: int) -> Tensor:
    found = unpack(words, 4, rows).reshape(len(words), -1, len(_ORDER))
    return found[..., _PLACES].flatten(1).T.contiguous()


FORMAT: ExportFormat[Prepared] = packed_checkpoint(Awq())
