"""torchao: weight-only rounding to any number of bits, and the same with HQQ's scales."""

from ..contract import CompressionTask, QuantizerVariant
from ._dense import between, linears, load_model, write_dense

TITLE = "torchao"
PACKAGES = (
    "torchao==0.18.0",
    "transformers==5.24.0",
    "torch",
    "accelerate",
)
DISTRIBUTIONS = ("torchao", "transformers", "torch")
VARIANTS = {
    **{f"w{bits}": QuantizerVariant("RTN", bits, calibrated=False) for bits in (4, 3, 2)},
    **{f"w{bits}-hqq": QuantizerVariant("HQQ scales", bits, calibrated=False) for bits in (4, 3, 2)},
    **between("RTN", calibrated=False),
}


def quantize(task: CompressionTask, variant: str) -> None:
    """``quantize_`` with symmetric groups."""
    import torch
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerAxis, PerGroup

    chosen = VARIANTS[variant]
    model = load_model(task)
    options = {"intx_choose_qparams_algorithm": "hqq_scale_only"} if variant.endswith("-hqq") else {}
    config = IntxWeightOnlyConfig(
        weight_dtype=getattr(torch, f"int{chosen.bits}"),
        granularity=PerGroup(chosen.group_size) if chosen.group_size else PerAxis(0),
        scale_dtype=torch.float16,
        **options,
    )
    wanted = {id(layer) for layer in linears(model).values()}
    quantize_(model, config, filter_fn=lambda module, name: id(module) in wanted)
    write_dense(task, chosen, {name: layer.weight.dequantize() for name, layer in linears(model).items()})
