"""Granite as a mixture of experts: Granite's factors, and experts that are stored in one tensor.

Granite Team, Granite 3.0 Language Models, 2024.
"""

from dataclasses import replace

from ..anatomy import Anatomy, Shapes
from ._config import SizeKeys
from ._experts import ExpertNames
from ._llama_like import llama_like
from ._tensors import Config
from .granite import FAMILY, scaled

EXPERTS = ExpertNames(module="block_sparse_moe", router="router.layer", stacked=True)
SIZES = SizeKeys(experts=("num_local_experts",))


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    found = scaled(config, llama_like(config, shapes, replace(FAMILY, experts=EXPERTS)))
    # The router is a module in a module as stored, and in transformers one.
    routers = [block.experts.router for block in found.blocks if block.experts is not None]
    return replace(found, renamed=tuple((name, name.removesuffix(".layer")) for name in routers))
