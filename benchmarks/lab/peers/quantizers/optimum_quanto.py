"""optimum-quanto: rounding with its own optimizer of scales, no data. It has 2, 4 and 8 bits.

Left alone it takes groups of 96 and of 128 for the layers of the subject: here they take 64.
"""

from typing import Any

from ..contract import CompressionTask, QuantizerVariant
from ._dense import between, linears, load_model, write_dense

TITLE = "optimum-quanto"
PACKAGES = (
    "optimum-quanto==0.2.7",
    "transformers==5.24.0",
    "torch",
    "accelerate",
)
DISTRIBUTIONS = ("optimum-quanto", "transformers", "torch")
_BITS = (4, 2)
_STORED: dict[str, Any] = {"zero_bits": 16, "calibrated": False}
VARIANTS = {f"w{bits}": QuantizerVariant("RTN", bits, **_STORED) for bits in _BITS} | {
    name: variant for name, variant in between("RTN", **_STORED).items() if variant.bits in _BITS
}


def quantize(task: CompressionTask, variant: str) -> None:
    """``quantize`` and ``freeze`` with the package's defaults, but for the size of the groups."""
    from optimum import quanto

    chosen = VARIANTS[variant]
    model = load_model(task)
    quanto.quantize(model, weights=getattr(quanto, f"qint{chosen.bits}"), exclude="lm_head")
    for layer in linears(model).values():
        layer.weight_group_size = chosen.group_size
    quanto.freeze(model)
    write_dense(task, chosen, {name: layer.weight.dequantize() for name, layer in linears(model).items()})
