"""The ``gptq`` format: the checkpoint form of auto-gptq and GPTQModel, which transformers and vLLM open,
of weights of 2, 3, 4 or 8 bits.

``qweight [in · bits / 32, out]`` holds the codes of an output channel one below the other as a stream of
bits, lowest first; ``qzeros [groups, out · bits / 32]`` the zero points of a group side by side; ``scales
[groups, out]`` float16; ``g_idx [in]`` says which group an input is in. Codes count from 0. Symmetric weights
take the first version of the form, which every reader knows and whose zero points are less by one; others the
second one (``gptq_v2``), since the first has no room for a zero point of 0.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ... import __version__
from ...compress.model.checkpoint.packed_codes import pack, unpack
from ...compress.numbers.qtensor import QTensor
from ...compress.numbers.scheme import Scheme
from ..format import ExportFormat, Prepared
from ._packed_checkpoint import packed_checkpoint


class Gptq:
    """The form."""

    name, packages = "GPTQ", "optimum and gptqmodel"
    bits: tuple[int, ...] = (2, 3, 4, 8)
    group_sizes: tuple[int | None, ...] = (None, 16, 32, 64, 128)
    families_not_opened: tuple[str, ...] = ("mpt",)
    families_served: tuple[str, ...] = ("gemma", "llama", "mistral", "phi3", "qwen2", "qwen3")

    def served_instead(self, scheme: Scheme) -> str:
        """Symmetric weights of 4 and 8 bits alone."""
        return "" if scheme.symmetric and scheme.bits in (4, 8) else "symmetric weights of 4 and 8 bits"

    def settings(self, scheme: Scheme, head: str | None) -> dict[str, Any]:
        """What GPTQModel writes."""
        return {
            "quant_method": "gptq",
            "checkpoint_format": "gptq" if scheme.symmetric else "gptq_v2",
            "bits": scheme.bits,
            "group_size": -1 if scheme.group_size is None else scheme.group_size,
            "sym": scheme.symmetric,
            "desc_act": False,
            "lm_head": False,
            "pack_dtype": "int32",
            "meta": {"quantizer": [f"edgepress:{__version__}"]},
        }

    def pack(self, tensor: QTensor) -> dict[str, Tensor]:
        """``qweight``, ``qzeros``, ``scales`` and ``g_idx``."""
        bits, columns = tensor.scheme.bits, tensor.shape[1]
        zeros = torch.full_like(tensor.scale, -1) if tensor.zero_point is None else tensor.zero_point
        groups = tensor.scale.shape[1]
        return {
            "qweight": pack(tensor.codes, bits).T,
            "qzeros": pack(zeros.to(torch.int8).T.contiguous(), bits),
            "scales": tensor.scale.to(torch.float16).T,
            "g_idx": torch.arange(columns, dtype=torch.int32) // (columns // groups),
        }

    def unpack(self, parts: Mapping[str, Tensor], scheme: Scheme) -> QTensor:
        """A symmetric tensor's zero points are looked at too."""
        scale = parts["scales"].T.to(torch.float32).contiguous()
        codes = unpack(parts["qweight"].T.contiguous(), scheme.bits, len(parts["g_idx"]))
        zeros = unpack(parts["qzeros"], scheme.bits, len(scale)).T
        if scheme.symmetric:
            zeros = zeros + 1
        return QTensor(scheme.model_copy(update={"symmetric": False}), codes, scale, zeros)


FORMAT: ExportFormat[Prepared] = packed_checkpoint(Gptq())
