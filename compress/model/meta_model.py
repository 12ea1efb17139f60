"""A transformers model without weights for a checkpoint: the modules are transformers' own, built on the meta
device, so that any family runs as its authors wrote it.

Layers whose stored shapes differ from the config (pruned models) are resized.
"""

from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import CheckpointError
from ...files.third_party_errors import third_party_errors_are_typed
from .anatomy import Anatomy, module_name
from .block_anatomy import Attention, BlockAnatomy
from .separate_experts import separated

GENERATION = "generation_config.json"
_WITHOUT_HEAD = "AutoModel"
# By what has labels.
_OF_LABELS = {
    "text": "AutoModelForSequenceClassification",
    "token": "AutoModelForTokenClassification",
    "span": "AutoModelForQuestionAnswering",
    "image": "AutoModelForImageClassification",
}


def build(path: Path, anatomy: Anatomy) -> nn.Module:
    """The transformers module for the checkpoint at ``path``: parameters on the meta device, buffers real,
    eval mode.
    """
    with third_party_errors_are_typed(
        lambda why: CheckpointError(
            f"transformers makes no model of {path / 'config.json'}",
            why=why,
            fix="take config.json from the save that wrote the weights",
        )
    ):
        model = _without_weights(path, anatomy)
        for block in anatomy.blocks:
            if block.experts is not None:
                place = module_name(anatomy, block.experts.prefix)
                model.set_submodule(place, separated(block, block.experts))
            _resize(model, anatomy, block)
            if block.repeats > 1:
                repeat(model.get_submodule(module_name(anatomy, block.prefix)), block.repeats)
    return model.eval()


def _without_weights(path: Path, anatomy: Anatomy) -> nn.Module:
    from accelerate import init_empty_weights
    from transformers import AutoConfig, GenerationConfig
    from transformers.initialization import no_init_weights

    config = AutoConfig.from_pretrained(path)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    if any(block.repeats > 1 for block in anatomy.blocks):  # each of them repeats itself
        config.num_hidden_layers = len(anatomy.blocks)
    if anatomy.looks_back:  # as an encoder does: in one go
        config.use_cache = False
    # First values for parameters that hold none would take twice as long as all else.
    with init_empty_weights(include_buffers=False), no_init_weights():
        model = _made(config, anatomy)
    model.tie_weights()  # the rest of what was left out
    if anatomy.kind == "encoder_decoder" and (path / GENERATION).is_file():
        model.generation_config = GenerationConfig.from_pretrained(path)
    return model  # type: ignore[no-any-return]


def _made(config: Any, anatomy: Anatomy) -> Any:
    """transformers' model of ``config``. The form of attention is its choice: torch's fused one, save for
    models that it does not fit.
    """
    import transformers

    if anatomy.tower is not None:  # none of the Auto classes keeps a projection
        return getattr(transformers, anatomy.tower.architecture)._from_config(config, dtype=torch.float32)
    name, options = _auto_class(anatomy), {}
    if name == _WITHOUT_HEAD:
        built = transformers.MODEL_MAPPING[type(config)]
        pools = "add_pooling_layer" in signature(built.__init__).parameters
        options = {"add_pooling_layer": False} if pools else {}
    return getattr(transformers, name).from_config(config, dtype=torch.float32, **options)


def _auto_class(anatomy: Anatomy) -> str:
    """Which of transformers' Auto classes has the head of such a model."""
    if anatomy.kind == "decoder":
        return "AutoModelForCausalLM"
    if anatomy.kind == "encoder_decoder":
        return "AutoModelForSeq2SeqLM" if anatomy.hearing is None else "AutoModelForSpeechSeq2Seq"
    return _WITHOUT_HEAD if anatomy.classifier is None else _OF_LABELS[anatomy.classifier.labelled]


def _linear(model: nn.Module, name: str) -> nn.Module:
    """The module ``name``; a linear that keeps its weight transposed (GPT-2) becomes a plain one first."""
    from transformers.pytorch_utils import Conv1D

    module = model.get_submodule(name)
    if not isinstance(module, Conv1D):
        return module
    inputs, outputs = module.weight.shape
    plain = nn.Linear(inputs, outputs, device="meta")
    model.set_submodule(name, plain.requires_grad_(False))
    return plain


def _resize(model: nn.Module, anatomy: Anatomy, block: BlockAnatomy) -> None:
    for linear in block.linears():
        module = _linear(model, module_name(anatomy, linear.name))
        if not isinstance(module, nn.Linear):
            raise CheckpointError(f"{linear.name} is a {type(module).__name__} in transformers, not a Linear")
        if (module.out_features, module.in_features) != (linear.out_features, linear.in_features):
            module.out_features, module.in_features = linear.out_features, linear.in_features
            empty = torch.empty(linear.out_features, linear.in_features, device="meta")
            module.weight = nn.Parameter(empty, requires_grad=False)
            if linear.bias:
                module.bias = nn.Parameter(empty[:, 0].clone(), requires_grad=False)
    for attention in block.attentions():
        set_heads(model.get_submodule(module_name(anatomy, attention.module)), attention)


def set_heads(module: nn.Module, attention: Attention) -> None:
    """Tell transformers' attention ``module`` how many heads it has now: families call it differently."""
    sizes = {
        "num_key_value_groups": attention.heads // attention.kv_heads,
        "num_attention_heads": attention.heads,
        "num_heads": attention.heads,
        "num_kv_heads": attention.kv_heads,
        "n_heads": attention.heads,
        "split_size": attention.heads * attention.head_dim,
        "all_head_size": attention.heads * attention.head_dim,
        "dim": attention.heads * attention.head_dim,
    }
    for name, value in sizes.items():
        if isinstance(getattr(module, name, None), int):
            setattr(module, name, value)


class RepeatedBlock(nn.Module):
    """What :func:`repeat` puts before the class of a block.

    Attributes:
        repeats: how many times a call applies the block.
    """

    repeats: int

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **named: Any) -> Tensor:
        for _ in range(self.repeats):
            hidden_states = super().forward(hidden_states, attention_mask, **named)
        return hidden_states


def repeat(block: nn.Module, repeats: int) -> None:
    """Let each call of ``block`` apply it ``repeats`` times."""
    kind = type(block)
    block.__class__ = type(f"Repeated{kind.__name__}", (RepeatedBlock, kind), {})
    block.repeats = repeats  # type: ignore[assignment]
