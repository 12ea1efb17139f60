"""What every tensor of a checkpoint must be: of a type that its part may have, finite, and no larger than
sums of squares bear.

Types are in the headers. Values are looked at when they are first read, in the memory that they were read
into: one pass over it, a fifteenth of a second for a gigabyte.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor

from ....errors import CheckpointError

TORCH_TYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
}
# Types of dense weights, by their safetensors names.
FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
# Of the parts of a quantized linear.
_INTEGERS = frozenset({"I8", "U8", "I16", "I32", "I64"})
_PARTS = {
    "weight": _INTEGERS | {"F8_E4M3"},
    "weight_packed": frozenset({"I32", "U8"}),
    "weight_blocks": frozenset({"U8"}),
    "weight_shape": _INTEGERS,
    "weight_scale": FLOATS | {"U8"},
    "weight_zero_point": _INTEGERS,
    "weight_global_scale": FLOATS,
    "input_scale": FLOATS,
    "input_global_scale": FLOATS,
}
# Damage is a sum of squares over rows and columns, and float32 ends at 3.4e38: products with values above
# this overflow. The largest in a published model is below 1e5; a mask is 1e9.
LARGEST = 1e15
_DIVISOR = "global_scale"  # NVFP4's, the inverse of a scale: large where weights are small
SHOWN = 5
_CHUNK = 1 << 20
# All bits of the exponent set: NaN, or infinity where the type has it.
_EIGHT_BITS = {torch.float8_e4m3fn: 0x7F, torch.float8_e5m2: 0x7C, torch.float8_e8m0fnu: 0xFF}


def check_types(
    dtypes: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], quantized: Collection[str]
) -> None:
    """Refuse weights of a type that they cannot have; ``quantized`` are the linears that are stored in
    parts.
    """
    for name, dtype in dtypes.items():
        module, _, part = name.rpartition(".")
        if module in quantized and part in _PARTS:
            _check_part(name, part, dtype, shapes[name])
        elif part in ("weight", "bias") and dtype not in FLOATS and len(shapes[name]) <= 2:
            raise CheckpointError(
                f"tensor {name!r} is stored as {dtype}, a float type was expected",
                why=f"float types are {', '.join(sorted(FLOATS))}; codes of a quantizer without its scales "
                "say nothing",
                fix="start from the model as it was before it was quantized",
            )


def _check_part(name: str, part: str, dtype: str, shape: tuple[int, ...]) -> None:
    if dtype not in _PARTS[part]:
        raise CheckpointError(f"tensor {name!r} is stored as {dtype}, a {part} is none of that type")
    matrices = dict.fromkeys(("weight", "weight_packed", "weight_blocks"), (2,))
    wanted = {**matrices, "weight_shape": (1,)}.get(part, (0, 1, 2))
    if len(shape) not in wanted or (part == "weight_shape" and shape != (2,)):
        raise CheckpointError(f"tensor {name!r} has the shape {list(shape)}, no {part} has")


class NonFinite:
    """Counts NaN and infinity by tensor, over as many parts as a tensor is seen in, and keeps the largest
    magnitude of one that has any above :data:`LARGEST`.
    """

    def __init__(self) -> None:
        self._nan, self._inf, self._size = Counter[str](), Counter[str](), Counter[str]()
        self._large: dict[str, float] = {}

    def see(self, name: str, values: Tensor) -> None:
        """Look at (more of) the values of the tensor ``name``."""
        self._size[name] += values.numel()
        if not values.numel():
            return
        largest = _magnitude(values)
        if math.isfinite(largest):
            if largest > LARGEST and not name.endswith(_DIVISOR):
                self._large[name] = max(largest, self._large.get(name, 0.0))
        else:
            for part in torch.split(values.reshape(-1), _CHUNK):
                wide = part.to(torch.float32) if part.element_size() == 1 else part
                self._nan[name] += int(torch.isnan(wide).sum())
                self._inf[name] += int(torch.isinf(wide).sum())

    @property
    def found(self) -> bool:
        """Whether there was any."""
        return bool(self._nan or self._inf or self._large)

    def refuse(self) -> None:
        """Raise CheckpointError for what was found; names the first tensors with their counts."""
        damaged = list(self._damaged())
        if damaged:
            more = f" and {len(damaged) - SHOWN} more tensors" if len(damaged) > SHOWN else ""
            raise CheckpointError(
                f"weights are not finite: {'; '.join(damaged[:SHOWN])}{more}",
                why="a training run that diverged, or an overflow in a cast of the weights to a smaller type",
                fix="use an earlier checkpoint, or convert again from the training precision",
            )
        for name, largest in self._large.items():
            raise CheckpointError(
                f"{name} holds a value of magnitude {largest:.3g}, above {LARGEST:g}",
                why="a product with it does not fit float32; no training leaves such a weight",
                fix="fetch the file again, or use an earlier checkpoint",
            )

    def _damaged(self) -> Iterator[str]:
        for name in self._nan | self._inf:
            nan, inf = self._nan[name], self._inf[name]
            yield f"{name} has {nan} NaN and {inf} Inf of {self._size[name]} values"


def all_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    return math.isfinite(_magnitude(values))


def _magnitude(values: Tensor) -> float:
    """The largest magnitude, NaN or infinite where a value is; 0 of integers and of finite 8-bit floats."""
    if not values.is_floating_point():
        return 0.0
    if values.dtype in _EIGHT_BITS:
        mask = _EIGHT_BITS[values.dtype]
        return math.nan if bool(((values.view(torch.uint8) & mask) == mask).any()) else 0.0
    # The extremes are NaN where a value is, and infinite where one is: one pass, and no copy.
    low, high = map(float, torch.aminmax(values.detach()))
    return max(-low, high)


def refuse_non_finite(tensors: Mapping[str, Tensor]) -> None:
    """Check every floating-point tensor for NaN and infinity."""
    found = NonFinite()
    for name, tensor in tensors.items():
        found.see(name, tensor)
    found.refuse()
