"""Reading a model's states of a micro-batch: the last hidden states, and the outputs of modules on the way.
Of an encoder–decoder those of the encoder, which reads the micro-batch as its source.

Names that begin with ``maps.`` are attention modules, whose maps are read; they compute them only in
transformers' eager form, which the model has for as long.

In which precision a model computes while it learns; parameters and losses stay float32.

float16 has few exponents: where it is computed in, a loop has to scale its losses (``loss_scale``), and what
has no such loop does not choose it.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..text.micro_batches import MicroBatch
from ..text.token_batch import model_inputs

LAST = "last"
MAPS = "maps."
# By name, ``[tokens, width]``: the states of a micro-batch's real tokens, row after row.
States = dict[str, Tensor]
Precision = Literal["auto", "float32", "bfloat16"]
LoopPrecision = Literal["auto", "float32", "bfloat16", "float16"]
_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_TENSOR_CORES = (7, 0)  # CUDA's first capability with products of float16 matrices in hardware


def read(
    model: nn.Module, batch: MicroBatch, device: torch.device, modules: Mapping[str, str] | None = None
) -> States:
    """The last hidden states of the real tokens, after the final norm if there is one, as ``last``; and the
    outputs of ``modules``, a path in the model by the name that the states get.
    """
    mask = batch.attention_mask.to(device)
    whole = bool(mask.all())
    reader, cached = _reader(model)
    maps = any(name.startswith(MAPS) for name in modules or {})
    with eager(model) if maps else nullcontext(), captured(model, modules or {}) as outputs:
        output = reader(**model_inputs(batch.input_ids.to(device), None if whole else mask), **cached)
        outputs[LAST] = output.last_hidden_state
        found = dict(outputs)
    rows = mask.bool()
    return {name: value.flatten(0, 1) if whole else value[rows] for name, value in found.items()}


def last_states(model: nn.Module, batch: MicroBatch, device: torch.device) -> Tensor:
    """The real tokens' last hidden states ``[tokens, hidden]``, after the final norm if there is one."""
    return read(model, batch, device)[LAST]


def _reader(model: Any) -> tuple[nn.Module, dict[str, Any]]:
    """What reads the tokens, and its further arguments."""
    if model.config.is_encoder_decoder:
        return model.get_encoder(), {}
    return model.base_model, {"use_cache": False} if model.get_output_embeddings() is not None else {}


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """``model`` computes its attention maps, for as long as the context lasts."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def captured(model: nn.Module, modules: Mapping[str, str]) -> Iterator[States]:
    """The outputs of ``modules``, a path by name, as they come."""
    outputs: States = {}

    def hook(name: str) -> Any:
        def keep(module: nn.Module, arguments: Any, output: Any) -> None:
            if name.startswith(MAPS):
                outputs[name] = output[1].transpose(1, 2)
            else:
                outputs[name] = output[0] if isinstance(output, tuple) else output

        return keep

    handles = [model.get_submodule(path).register_forward_hook(hook(name)) for name, path in modules.items()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 matrices in hardware, where they are faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def chosen(precision: LoopPrecision, device: torch.device) -> LoopPrecision:
    """What ``auto`` means on ``device`` to a loop that scales its losses: bfloat16 where it is in hardware,
    else float16 (CUDA before Ampere), else float32.
    """
    if precision != "auto":
        return precision
    if computes_in_bfloat16(device):
        return "bfloat16"
    halves = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _TENSOR_CORES
    return "float16" if halves else "float32"


def autocast(precision: LoopPrecision, device: torch.device) -> AbstractContextManager[object]:
    """The context that a forward pass in training runs under; ``auto`` is bfloat16 or float32 here."""
    if precision == "auto":
        precision = "bfloat16" if computes_in_bfloat16(device) else "float32"
    return nullcontext() if precision == "float32" else torch.autocast(device.type, _TYPES[precision])
