"""Torch-Pruning: channels of the MLPs by its dependency graph, the same share in every block, by magnitude or
by its first-order Taylor criterion. The tool has no repair without training.
"""

from typing import Any

from ..contract import CompressionTask

TITLE = "Torch-Pruning"
PACKAGES = ("torch-pruning==1.6.1", "torch", "transformers==5.24.0")
DISTRIBUTIONS = ("torch-pruning", "transformers", "torch")
SHARES = (90, 80, 70, 60, 50)
# By variant: the criterion, and the share of all block weights that stays.
VARIANTS = {f"{name}-{share}": (name, share) for name in ("magnitude", "taylor") for share in SHARES}
_ROUND_TO = 8


def prune(task: CompressionTask, variant: str) -> None:
    """Prune the MLPs until the blocks keep their share of weights; saved as a plain model of its family."""
    import torch
    import torch_pruning
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    criterion, share = VARIANTS[variant]
    decodes = "CausalLM" in AutoConfig.from_pretrained(task.checkpoint).architectures[0]
    kind = AutoModelForCausalLM if decodes else AutoModel
    model = kind.from_pretrained(task.checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    model.config.use_cache = False
    rows, makers = torch.tensor(task.tokens()[:1])[:, :32], channel_makers(model)
    importance: Any = torch_pruning.importance.GroupMagnitudeImportance()
    if criterion == "taylor":
        importance = torch_pruning.importance.GroupTaylorImportance()
    pruner = torch_pruning.pruner.BasePruner(
        model,
        {"input_ids": rows},
        importance=importance,
        pruning_ratio=0.0,
        pruning_ratio_dict=dict.fromkeys(makers, pruned_share(model, makers, share / 100)),
        ignored_layers=[module for module in model.modules() if is_kept(module, makers)],
        round_to=_ROUND_TO,
        output_transform=lambda out: out.logits if decodes else out.last_hidden_state,
    )
    if criterion == "taylor":
        for row in task.tokens():
            ids = torch.tensor([row])
            model(input_ids=ids, labels=ids).loss.backward()
    pruner.step()
    model.config.intermediate_size = next(iter(channel_makers(model))).out_features
    model.zero_grad()
    model.save_pretrained(task.result)


def channel_makers(model: Any) -> list[Any]:
    """The linears that make the channels of an MLP: its gate and up, or the one that it has."""
    ends = ("mlp.gate_proj", "mlp.up_proj", "intermediate.dense")
    return [module for name, module in model.named_modules() if name.endswith(ends)]


def is_kept(module: Any, makers: list[Any]) -> bool:
    """Whether the pruner leaves the outputs of ``module`` alone: all but the MLPs' own channels."""
    import torch

    return (
        isinstance(module, torch.nn.Linear | torch.nn.Embedding | torch.nn.LayerNorm) and module not in makers
    )


def pruned_share(model: Any, makers: list[Any], share: float) -> float:
    """The share of channels to drop so that blocks keep ``share`` of their weights."""
    import torch

    blocks = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    total: int = sum(one.weight.numel() for one in blocks.modules() if isinstance(one, torch.nn.Linear))
    made: int = sum(maker.weight.numel() for maker in makers)
    read = made * len(blocks) // len(makers)  # one linear a block reads the channels
    return (1 - share) * total / (made + read)
