"""Activation checkpointing: of each block only the input is kept, and the rest is computed again on the way
back (Chen et al. 2016, arXiv 1604.06174). A third more work, for memory that no longer grows with the depth.
"""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_blocks(blocks: nn.ModuleList) -> None:
    """Let each of ``blocks`` forget its activations in the forward pass; values and gradients stay."""
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
