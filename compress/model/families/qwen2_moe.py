"""Qwen1.5 and Qwen2 as mixtures of experts: Qwen2's attention, a router before many small MLPs, and one that
every token goes through.

Yang et al., Qwen2 Technical Report, 2024, arXiv 2407.10671.
"""

from __future__ import annotations

from ..anatomy import Anatomy, Shapes
from ._config import SizeKeys, layer_windows
from ._experts import ExpertNames
from ._llama_like import LlamaLike, llama_like
from ._tensors import Config

SIZES = SizeKeys(experts=("num_experts", "num_local_experts"))
EXPERTS = ExpertNames(normalized=False, shared="shared_expert", shared_gate="shared_expert_gate")


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    family = LlamaLike(max_positions=32_768, experts=EXPERTS)
    return llama_like(config, shapes, family, windows=layer_windows(config))
