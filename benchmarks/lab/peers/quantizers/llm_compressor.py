"""llm-compressor: GPTQ, AWQ, SmoothQuant with GPTQ to W8A8, and rounding."""

from typing import Any

from ..contract import CompressionTask, QuantizerVariant
from ._dense import between, linears, load_model, write_dense

TITLE = "llm-compressor"
PACKAGES = ("llmcompressor==0.14.0.1", "torch")
DISTRIBUTIONS = ("llmcompressor", "compressed-tensors", "transformers", "torch")
VARIANTS = {
    **{f"w{bits}-gptq": QuantizerVariant("GPTQ", bits) for bits in (4, 3, 2)},
    "w4-awq": QuantizerVariant("AWQ", 4),
    "w4-rtn": QuantizerVariant("RTN", 4, calibrated=False),
    "w8a8-smoothquant": QuantizerVariant("SmoothQuant, then GPTQ", 8, group_size=None, activations=8),
    **between("GPTQ"),
}


def quantize(task: CompressionTask, variant: str) -> None:
    """``oneshot`` with modifiers, symmetric; W8A8 is kept as the tool saves it, for its activations."""
    from llmcompressor import oneshot

    chosen = VARIANTS[variant]
    model = load_model(task)
    data = calibrated_on(task) if chosen.calibrated else {}
    oneshot(model=model, recipe=_modifiers(chosen, variant), **data)
    if chosen.activations == 8:
        model.save_pretrained(task.result, save_compressed=True)
        return
    norms = {name: weight for name, weight in model.named_parameters() if name.endswith("norm.weight")}
    write_dense(task, chosen, {name: _on_grid(layer) for name, layer in linears(model).items()}, norms)


def calibrated_on(task: CompressionTask) -> dict[str, Any]:
    """The calibration tokens, as ``oneshot`` takes them."""
    from datasets import Dataset

    tokens = task.tokens()
    masks = [[1] * len(row) for row in tokens]
    return {
        "dataset": Dataset.from_dict({"input_ids": tokens, "attention_mask": masks}),
        "max_seq_length": max(map(len, tokens)),
        "num_calibration_samples": len(tokens),
    }


def _modifiers(chosen: QuantizerVariant, variant: str) -> list[Any]:
    from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier

    options: dict[str, Any] = {"ignore": ["lm_head"]}
    if chosen.activations == 8:
        from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

        return [SmoothQuantModifier(), GPTQModifier(targets="Linear", scheme="W8A8", **options)]
    options["config_groups"] = {"group_0": _scheme(chosen)}
    if variant.endswith("-awq"):
        from llmcompressor.modifiers.transform.awq import AWQModifier

        _leave_memory_unpinned()
        return [AWQModifier(), QuantizationModifier(**options)]
    return [GPTQModifier(**options) if chosen.calibrated else QuantizationModifier(**options)]


def _leave_memory_unpinned() -> None:
    """Its AWQ pins its cache for an accelerator even where there is none, and fails: that is left out."""
    import torch
    from llmcompressor.pipelines.cache import IntermediatesCache

    if not torch.accelerator.is_available():
        IntermediatesCache.pin_memory = lambda *_, **__: None


def _scheme(chosen: QuantizerVariant) -> Any:
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    strategy = "group" if chosen.group_size else "channel"
    weights = QuantizationArgs(
        num_bits=chosen.bits, type="int", symmetric=True, strategy=strategy, group_size=chosen.group_size
    )
    return QuantizationScheme(targets=["Linear"], weights=weights)


def _on_grid(layer: Any) -> Any:
    """The weight as the quantized module uses it; after GPTQ it is there already."""
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize

    zero = getattr(layer, "weight_zero_point", None)
    return fake_quantize(layer.weight, layer.weight_scale, zero, layer.quantization_scheme.weights)
