"""Which ``MatMulNBits`` storage holds a scheme exactly: bits, block size, and how often a scale is repeated.

The kernel knows 2, 4 and 8 bits and blocks of 16, 32, 64, 128 and 256 inputs; at 2 bits only 32, 64 and 128
are fast. Any other group is held by smaller blocks that share its scale, and 3-bit codes by 4-bit ones: the
numbers stay the same, only the bytes grow.
"""

from __future__ import annotations

from dataclasses import dataclass

from ....compress.numbers.scheme import Scheme
from ....errors import ShapeError

# Blocks with a native int8 kernel, largest first: fewer scales are fewer bytes.
NATIVE_BLOCKS = {2: (128, 64, 32), 4: (256, 128, 64, 32, 16), 8: (256, 128, 64, 32, 16)}


@dataclass(frozen=True)
class Layout:
    """Storage of a ``[out, in]`` matrix.

    Attributes:
        bits: stored bits per code.
        block: inputs per stored scale.
        blocks: stored scales per output, the last of which may reach beyond ``in_features``.
        repeats: stored blocks that share one scale of the scheme.
    """

    bits: int
    block: int
    blocks: int
    repeats: int

    @property
    def zero(self) -> int:
        """What is added to a signed code to store it; also the stored zero point of a symmetric scheme."""
        return 1 << (self.bits - 1)

    @property
    def blob(self) -> int:
        """Bytes of the codes of one block."""
        return self.block * self.bits // 8

    @property
    def zero_point_bytes(self) -> int:
        """Bytes of the packed zero points of one output."""
        return -(-self.blocks * self.bits // 8)

    def note(self, scheme: Scheme) -> str | None:
        """How the storage differs from the scheme, or None when it does not."""
        parts = []
        if self.bits != scheme.bits:
            parts.append(f"{scheme.bits}-bit codes are stored in {self.bits} bits")
        if scheme.group_size is not None and self.block != scheme.group_size:
            parts.append(
                f"each group of {scheme.group_size} is stored as {self.repeats} blocks of {self.block}"
            )
        return f"{scheme.name}: {', '.join(parts)} (no native kernel for it as it is)" if parts else None


def layout_of(scheme: Scheme, in_features: int, name: str) -> Layout:
    """The storage for ``scheme`` over ``in_features`` inputs; ``name`` is the layer that errors name.

    Raises:
        ShapeError: the group does not divide the inputs, or no native block divides the group.
    """
    group = scheme.group_size or in_features
    if in_features % group:
        raise ShapeError(
            f"{name}: its {in_features} inputs are not a multiple of the group size {group}",
            fix="choose a group size that divides them, or null for one scale per channel",
        )
    wanted = 4 if scheme.bits == 3 else scheme.bits
    for bits in (wanted, 4) if wanted == 2 else (wanted,):
        block = _dividing_block(bits, group)
        if block is None and scheme.group_size is None:
            block = _covering_block(bits, in_features)
        if block is not None:
            blocks = -(-in_features // block)
            return Layout(bits, block, blocks, blocks * group // in_features if scheme.group_size else blocks)
    raise ShapeError(
        f"{name}: ONNX Runtime has no block size for groups of {group}",
        why="its blocks are powers of two from 16 to 256, and a group must be a multiple of one",
        fix="compress with a group size that is a multiple of 16",
    )


def _dividing_block(bits: int, group: int) -> int | None:
    return next((block for block in NATIVE_BLOCKS[bits] if group % block == 0), None)


def _covering_block(bits: int, in_features: int) -> int:
    # One scale per channel may run past the last input, so any block will do: the largest that is not mostly
    # padding.
    native = NATIVE_BLOCKS[bits]
    return next((block for block in native if block <= in_features), native[-1])
