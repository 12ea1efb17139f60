"""Mixtral: Mistral with a router and eight experts in the place of each MLP.

Jiang et al., Mixtral of Experts, 2024, arXiv 2401.04088.
"""

from dataclasses import replace

from ..anatomy import Anatomy, Shapes
from ._config import SizeKeys
from ._experts import ExpertNames
from ._llama_like import LlamaLike, llama_like
from ._tensors import Config, integer

EXPERTS = ExpertNames(module="block_sparse_moe", gate="w1", up="w3", down="w2")
SIZES = SizeKeys(experts=("num_local_experts", "num_experts"))


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    window = None if config.get("sliding_window") is None else integer(config, "sliding_window", 4096)
    windows = [window] * integer(config, "num_hidden_layers")
    family = LlamaLike(max_positions=131_072, experts=EXPERTS)
    found = llama_like(config, shapes, family, windows=windows)
    # transformers calls the module of router and experts as other families do.
    renamed = [
        (f"{block.prefix}.{EXPERTS.module}.", f"{block.prefix}.{ExpertNames.module}.")
        for block in found.blocks
    ]
    return replace(found, renamed=tuple(renamed))
