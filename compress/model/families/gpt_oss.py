"""gpt-oss: a router before experts with biases, whose gate and up are one matrix and are clamped; every other
layer sees a window; each head of attention has a sink, which takes part in the softmax and gives nothing.

OpenAI, gpt-oss-120b & gpt-oss-20b Model Card, 2025, arXiv 2508.10925.
"""

from dataclasses import replace

from ....errors import CheckpointError
from ..anatomy import Anatomy, Shapes
from ..block_anatomy import BlockAnatomy
from ._config import SizeKeys, alternating_windows
from ._experts import ExpertNames
from ._llama_like import LlamaLike, llama_like
from ._tensors import Config, integer, number

SIZES = SizeKeys(experts=("num_local_experts",))
# Experts are stored [in, out].
TRANSPOSED = (".gate_up_proj.weight", ".down_proj.weight")
EXPERTS = ExpertNames(router="router", fused="gate_up_proj", stacked=True)
FAMILY = LlamaLike(max_positions=131_072, eps=1e-5, sinks=True, experts=EXPERTS)
WINDOW, EVERY = 128, 2
# ``x · σ(1.702 · x)``, as transformers calls it; swiglu_alpha says the factor.
ACTIVATION, ALPHA, LIMIT = "quick_gelu", 1.702, 7.0
DEFAULTS = {"rope_theta": 150_000.0}


def anatomy(config: Config, shapes: Shapes) -> Anatomy:
    """See :func:`edgepress.compress.model.family.anatomy_of`."""
    alpha, limit = number(config, "swiglu_alpha", ALPHA), number(config, "swiglu_limit", LIMIT)
    if alpha != ALPHA:
        raise CheckpointError(f"config.json: swiglu_alpha {alpha} is not supported, only {ALPHA}")
    if config.get("sliding_window", WINDOW) is None:
        raise CheckpointError("config.json: a gpt_oss without a sliding_window is not supported")
    windows = alternating_windows(config, integer(config, "sliding_window", WINDOW), EVERY)
    found = llama_like({**DEFAULTS, **config}, shapes, FAMILY, windows=windows)

    def clamped(block: BlockAnatomy) -> BlockAnatomy:
        return replace(
            block, feed_forward=replace(block.mlp, activation=ACTIVATION, limit=limit, up_offset=1.0)
        )

    return replace(found, blocks=tuple(map(clamped, found.blocks)))
