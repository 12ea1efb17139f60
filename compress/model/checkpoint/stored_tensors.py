"""A ``QTensor`` as a compressed-tensors checkpoint stores it, and back: what transformers and vLLM open.

``pack-quantized`` integers: ``weight_packed`` as :mod:`.packed_codes` says. Transposed, a row is an input
channel, scales are float32 and zero points int8, both ``[groups, out]``. ``int-quantized``: ``weight`` int8.
``float-quantized``: ``weight`` E4M3, ``weight_scale`` a row, ``input_scale`` where activations are static.
``mxfp4-pack-quantized`` and ``nvfp4-pack-quantized``: ``weight_packed``, ``weight_scale`` E8M0 (the exponent
plus 127) or E4M3, and for NVFP4 what the scales are multiplied by, ``weight_global_scale`` and
``input_global_scale``. Types of GGUF: ``weight_blocks``, as :mod:`.packed_codes` says. Trellis grids:
``weight_words``, as it says, and ``weight_scale [out, 1]``.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ....errors import CheckpointError
from ...numbers.grid import storable
from ...numbers.qtensor import E4M3, QTensor, unit_of
from ...numbers.scheme import WORD_SIDE, Scheme
from .packed_codes import (
    pack,
    pack_blocks,
    pack_e2m1,
    pack_words,
    unpack,
    unpack_blocks,
    unpack_e2m1,
    unpack_e8m0,
    unpack_words,
)
from .quantization_config import INTEGER, PUBLISHED, TRANSPOSED, UNPACKED

BLOCKS, WORDS = "weight_blocks", "weight_words"
PARTS = ("weight_packed", "weight_scale", "weight_global_scale", "input_scale", "input_global_scale")

_BIAS = 127  # of E8M0


def stored(name: str, tensor: QTensor, form: str, largest: float | None = None) -> dict[str, Tensor]:
    """The tensors that store ``tensor`` as the module ``name``; ``form`` as
    :func:`.quantization_config.forms` says. ``largest`` is the largest scale of the matrices that a runtime
    fuses with this one.
    """
    if tensor.scheme.of_gguf:
        return {f"{name}.{BLOCKS}": pack_blocks(tensor)}
    scale = _stored_scale(tensor)
    if tensor.scheme.of_trellis:
        return {f"{name}.{WORDS}": pack_words(tensor), f"{name}.weight_scale": scale}
    if form == PUBLISHED:
        packed, exponents = _stored_float(name, tensor, scale, largest).values()
        return {f"{name}.blocks": packed.view(*exponents.shape, -1), f"{name}.scales": exponents}
    if tensor.scheme.format != "int":
        return _stored_float(name, tensor, scale, largest)
    if form == INTEGER:
        tensors = {f"{name}.weight": tensor.codes, f"{name}.weight_scale": scale}
        if tensor.input_scale is not None:
            tensors[f"{name}.input_scale"] = torch.tensor([tensor.input_scale])
        if tensor.zero_point is not None:
            tensors[f"{name}.weight_zero_point"] = tensor.zero_point
        return tensors
    codes = tensor.codes
    if form == UNPACKED:  # in the precision of the stored scale
        scale = tensor.scale
    if form == TRANSPOSED:
        codes, scale = codes.T.contiguous(), tensor.scale.T
    tensors = {
        f"{name}.weight_packed": pack(codes, tensor.scheme.bits),
        f"{name}.weight_scale": scale,
        f"{name}.weight_shape": torch.tensor(codes.shape, dtype=torch.int64),
    }
    if tensor.zero_point is not None and form == TRANSPOSED:
        return tensors | {f"{name}.weight_zero_point": tensor.zero_point.T}
    if tensor.zero_point is not None:
        packed = pack(tensor.zero_point.T.contiguous(), tensor.scheme.bits)
        tensors[f"{name}.weight_zero_point"] = packed.T.contiguous()
    return tensors


def _stored_scale(tensor: QTensor) -> Tensor:
    half = tensor.scale.to(torch.float16)
    exact = torch.equal(half.to(torch.float32), tensor.scale) and torch.equal(
        storable(tensor.scale), tensor.scale
    )
    return half if exact and tensor.zero_point is None else tensor.scale


def _stored_float(name: str, tensor: QTensor, scale: Tensor, largest: float | None) -> dict[str, Tensor]:
    """The tensors that store ``tensor`` as the module ``name``; ``scale`` as the integer forms store it,
    ``largest`` as in :func:`stored`.
    """
    tensors: dict[str, Tensor] = {}
    if tensor.scheme.format == "fp8":
        tensors = {f"{name}.weight": tensor.codes, f"{name}.weight_scale": scale}
        if tensor.input_scale is not None:
            tensors[f"{name}.input_scale"] = torch.tensor([tensor.input_scale])
        return tensors
    block = 2 * tensor.scale
    tensors[f"{name}.weight_packed"] = pack_e2m1(tensor.codes)
    if tensor.scheme.format == "mxfp4":
        exponent = torch.frexp(block).exponent - 1
        tensors[f"{name}.weight_scale"] = (exponent + _BIAS).to(torch.uint8)
        return tensors
    unit = _unit(name, block, largest)
    tensors[f"{name}.weight_scale"] = (block / unit).to(E4M3)
    tensors[f"{name}.weight_global_scale"] = torch.tensor([1 / unit])
    if tensor.input_scale is not None:
        tensors[f"{name}.input_global_scale"] = torch.tensor([1 / tensor.input_scale])
    return tensors


def _unit(name: str, block: Tensor, largest: float | None) -> float:
    """The power of two that the scales ``block [out, groups]`` of an NVFP4 layer are stored in."""
    own = float(block.max())
    units = [unit_of(own if largest is None else 2 * largest), unit_of(own)]
    exact = [unit for unit in units if torch.equal((block / unit).to(E4M3).to(torch.float32) * unit, block)]
    if not exact:
        raise CheckpointError(
            f"{name} has NVFP4 scales that count in no power of two",
            why="another tool wrote them, and a layer that is not changed is kept bit for bit",
            fix="start from the model as it was before it was quantized",
        )
    return exact[0]


def restored(name: str, scheme: Scheme, read: Callable[[str], Tensor], form: str) -> QTensor:
    """The ``QTensor`` stored as the module ``name`` in ``form``; ``read`` gives a stored tensor by name."""
    if scheme.of_gguf:
        tensor = unpack_blocks(read(f"{name}.{BLOCKS}"), scheme)
        if not bool(torch.isfinite(tensor.dequantize()).all()):
            raise CheckpointError(f"{name}.{BLOCKS} holds scales that are no numbers")
        return tensor
    scale = None if scheme.format != "int" and not scheme.of_trellis else _scale(name, read)
    if scale is None:
        return _restored_float(name, scheme, read)
    if scheme.of_trellis:
        words = read(f"{name}.{WORDS}")
        if words.dtype != torch.uint8 or words.dim() != 2 or words.shape[0] != -(-len(scale) // WORD_SIDE):
            raise CheckpointError(
                f"{name}.{WORDS} has shape {list(words.shape)}, not words of {len(scale)} rows"
            )
        return QTensor(scheme, unpack_words(words, scheme.bits)[: len(scale)], scale)
    if form == INTEGER:
        codes = _codes(f"{name}.weight", scheme, read)
        zero_point = None if scheme.symmetric else _codes(f"{name}.weight_zero_point", scheme, read)
        inputs = restored_input_scale(name, scheme, read)
        return _checked(name, QTensor(scheme, codes, scale, zero_point, inputs))
    rows, columns = (int(size) for size in read(f"{name}.weight_shape"))
    words = read(f"{name}.weight_packed")
    if words.shape != (rows, -(-columns * scheme.bits // 32)):
        raise CheckpointError(
            f"{name}.weight_packed has shape {tuple(words.shape)}, "
            f"which does not hold {scheme.bits}-bit codes of {rows} × {columns}"
        )
    codes, zero_point = unpack(words, scheme.bits, columns), None
    if form == TRANSPOSED:
        if not scheme.symmetric:
            zero_point = _codes(f"{name}.weight_zero_point", scheme, read).T.contiguous()
        return _checked(name, QTensor(scheme, codes.T.contiguous(), scale.T.contiguous(), zero_point))
    if not scheme.symmetric:
        packed = read(f"{name}.weight_zero_point")
        if packed.dim() != 2 or packed.shape[0] != -(-rows * scheme.bits // 32):
            raise CheckpointError(f"{name}.weight_zero_point has shape {list(packed.shape)}")
        zero_point = unpack(packed.T.contiguous(), scheme.bits, rows).T.contiguous()
    return _checked(name, QTensor(scheme, codes, scale, zero_point))


def _scale(name: str, read: Callable[[str], Tensor]) -> Tensor:
    """The scales of a matrix ``[out, groups]`` float32."""
    stored = read(f"{name}.weight_scale")
    scale = stored.to(torch.float32)
    if not stored.is_floating_point() or not bool(torch.isfinite(scale).all()):
        raise CheckpointError(f"{name}.weight_scale holds scales that float32 does not hold")
    return scale


def _codes(stored: str, scheme: Scheme, read: Callable[[str], Tensor]) -> Tensor:
    """Codes or zero points that are stored a byte each."""
    codes = read(stored)
    low, high = scheme.code_range
    if codes.dtype != torch.int8 or (
        codes.numel() and not low <= int(codes.min()) <= int(codes.max()) <= high
    ):
        raise CheckpointError(f"{stored} holds values outside the {low} to {high} of {scheme.name} in int8")
    return codes


def _checked(name: str, tensor: QTensor) -> QTensor:
    """``tensor``, whose codes and scales have been read, with what its parts say of each other."""
    zero_point, size = tensor.zero_point, tensor.scheme.group_size
    if zero_point is not None and zero_point.shape != tensor.scale.shape:
        raise CheckpointError(
            f"{name}.weight_zero_point has shape {list(zero_point.shape)}, not {list(tensor.scale.shape)}"
        )
    if size is not None and tensor.shape[1] % size:
        raise CheckpointError(f"{name} has {tensor.shape[1]} columns, which groups of {size} do not divide")
    return tensor


def _restored_float(name: str, scheme: Scheme, read: Callable[[str], Tensor]) -> QTensor:
    """The ``QTensor`` stored as the module ``name``; ``read`` gives a stored tensor by name."""
    inputs = restored_input_scale(name, scheme, read)
    if scheme.format == "fp8":
        codes, scale = read(f"{name}.weight"), _scale(name, read).reshape(-1, 1)
        if codes.dtype != E4M3 or scale.shape[0] not in (1, codes.shape[0]):
            raise CheckpointError(f"{name} holds no FP8 codes with one scale, or one a row")
        return QTensor(scheme, codes, scale.expand(codes.shape[0], 1).contiguous(), None, inputs)
    codes = unpack_e2m1(read(f"{name}.weight_packed"))
    if scheme.format == "mxfp4":
        scale = unpack_e8m0(f"{name}.weight_scale", read(f"{name}.weight_scale")) / 2
        return _checked(name, QTensor(scheme, codes, scale, None, inputs))
    divisor = _positive(f"{name}.weight_global_scale", read)
    return _checked(name, QTensor(scheme, codes, _scale(name, read) / divisor / 2, None, inputs))


def _positive(stored: str, read: Callable[[str], Tensor]) -> float:
    """The one number in the tensor ``stored``."""
    tensor = read(stored)
    if tensor.numel() != 1 or not float(tensor) > 0:
        raise CheckpointError(f"{stored} is not one positive number")
    return float(tensor)


def restored_input_scale(name: str, scheme: Scheme, read: Callable[[str], Tensor]) -> float | None:
    """``QTensor.input_scale`` of the module ``name``."""
    if not scheme.calibrated:
        return None
    if scheme.format != "nvfp4":
        return _positive(f"{name}.input_scale", read)
    return 1 / _positive(f"{name}.input_global_scale", read)
