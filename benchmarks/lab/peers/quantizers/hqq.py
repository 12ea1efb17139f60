"""HQQ: half-quadratic quantization, no data."""

from typing import Any

from ..contract import CompressionTask, QuantizerVariant
from ._dense import between, linears, load_model, write_dense

TITLE = "HQQ"
PACKAGES = (
    "hqq==0.2.8.post1",
    "transformers==5.24.0",
    "torch",
    "accelerate",
    "safetensors",
)
DISTRIBUTIONS = ("hqq", "transformers", "torch")
_STORED: dict[str, Any] = {"zero_bits": 16, "calibrated": False}
VARIANTS = {f"w{bits}": QuantizerVariant("HQQ", bits, **_STORED) for bits in (4, 3, 2)} | between(
    "HQQ", **_STORED
)


def quantize(task: CompressionTask, variant: str) -> None:
    """Every linear with HQQ's defaults for its bits."""
    import torch
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    chosen = VARIANTS[variant]
    config = BaseQuantizeConfig(nbits=chosen.bits, group_size=chosen.group_size, axis=1)
    options = {"compute_dtype": torch.float32, "device": "cpu", "del_orig": False}
    found = {
        name: HQQLinear(linear, config, **options).dequantize()
        for name, linear in linears(load_model(task)).items()
    }
    write_dense(task, chosen, found)
