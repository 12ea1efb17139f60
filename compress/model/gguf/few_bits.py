"""Types of GGUF that the gguf package does not dequantize: one and two bits a weight, and a float16 scale.

``Q1_0``: 128 signs, of which 1 is plus. ``Q2_0``: 64 codes, lowest bits first, that stand for −1, 0, 1 and 2
times the scale; files from before it was llama.cpp's have 128 of them. Weights that are −1, 0 and 1 times the
scale are kept as such codes.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...numbers.qtensor import QTensor
from ...numbers.scheme import Scheme

# By type its number in a file, the weights of a block, and the bytes.
KINDS = {"Q1_0": (41, 128, 18), "Q2_0": (42, 64, 18)}
EARLIER_Q2_0 = (128, 34)
_SCALE = 2  # bytes


def floats_of(stored: NDArray[np.uint8], kind: str, block: int) -> NDArray[np.float32]:
    """``[rows, in]`` of ``stored [rows, bytes]``, in a type of :data:`KINDS` with so many weights a block."""
    bits = 1 if kind == "Q1_0" else 2
    blocks = stored.reshape(len(stored), -1, _SCALE + block * bits // 8)
    scale = np.ascontiguousarray(blocks[..., :_SCALE]).view(np.float16).astype(np.float32)
    each = blocks[..., _SCALE:, None] >> np.arange(0, 8, bits, dtype=np.uint8) & (1 << bits) - 1
    codes = each.reshape(*blocks.shape[:2], block).astype(np.float32)
    return ((2 * codes - 1 if bits == 1 else codes - 1) * scale).reshape(len(stored), -1)


def codes_of(weight: Tensor, group_size: int) -> QTensor | None:
    """``weight [out, in]`` as codes −1, 0 and 1 with a scale a group; None where it is anything else."""
    groups = weight.reshape(len(weight), -1, group_size)
    scale = groups.abs().amax(-1)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    codes = (groups / scale.unsqueeze(-1)).round_()
    if not torch.equal(codes * scale.unsqueeze(-1), groups):
        return None
    return QTensor(Scheme(bits=2, group_size=group_size), codes.flatten(1).to(torch.int8), scale)
