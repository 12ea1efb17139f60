"""llm-compressor: SparseGPT and Wanda, half of the weights or two of four, uniform or by OWL."""

from typing import Any

from ..contract import CompressionTask
from ..quantizers.llm_compressor import DISTRIBUTIONS as DISTRIBUTIONS
from ..quantizers.llm_compressor import PACKAGES as PACKAGES
from ..quantizers.llm_compressor import TITLE as TITLE
from ..quantizers.llm_compressor import calibrated_on

# By variant: what tables call it, and what is sparse.
VARIANTS = {
    "sparsegpt-50": ("SparseGPT", "50 %"),
    "wanda-50": ("Wanda", "50 %"),
    "sparsegpt-24": ("SparseGPT", "2:4"),
    "wanda-24": ("Wanda", "2:4"),
}


def prune(task: CompressionTask, variant: str) -> None:
    """``oneshot`` with the tool's own defaults; the zeros are saved dense."""
    import torch
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(task.checkpoint, dtype=torch.float32).eval()
    oneshot(model=model, recipe=[_modifier(variant)], **calibrated_on(task))
    model.save_pretrained(task.result, save_compressed=False)


def _modifier(variant: str) -> Any:
    from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier

    kind = SparseGPTModifier if variant.startswith("sparsegpt") else WandaPruningModifier
    structure = {"mask_structure": "2:4"} if variant.endswith("24") else {}
    return kind(sparsity=0.5, targets=["Linear"], ignore=["re:.*lm_head"], **structure)
