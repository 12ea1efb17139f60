"""Protobuf's wire format, read in place: the fields of a message as numbers and spans of the file.

Enough to look into an ONNX file without the onnx package and without loading its weights.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple

Data = mmap.mmap | bytes

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Malformed(ValueError):
    """The bytes are not a protobuf message."""


class Field(NamedTuple):
    """One field: its ``number``, and either the span ``start:stop`` of its bytes or its varint ``value``."""

    number: int
    start: int
    stop: int
    value: int | None


def varint(data: Data, position: int, end: int) -> tuple[int, int]:
    """A number of up to ten bytes at ``position``, and where the next one begins."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise Malformed("a number runs past its message")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise Malformed("a number is longer than ten bytes")


def fields(data: Data, position: int, end: int) -> Iterator[Field]:
    """The fields of the message ``data[position:end]``; fixed-width numbers are skipped.

    Raises:
        Malformed: a field that runs past the message, or an unknown wire type.
    """
    while position < end:
        # Nearly all numbers here are one byte long, and a start of a bundle reads thousands of them.
        key = data[position]
        if key < 0x80:
            position += 1
        else:
            key, position = varint(data, position, end)
        number, wire = key >> 3, key & 7
        if wire == _BYTES:
            if position < end and data[position] < 0x80:
                length = data[position]
                position += 1
            else:
                length, position = varint(data, position, end)
            if position + length > end:
                raise Malformed("a field runs past its message")
            yield Field(number, position, position + length, None)
            position += length
        elif wire == _VARINT:
            start = position
            value, position = varint(data, position, end)
            yield Field(number, start, position, value)
        elif wire in (_FIXED64, _FIXED32):
            position += 8 if wire == _FIXED64 else 4
        else:
            raise Malformed(f"wire type {wire} does not occur in ONNX")


def packed(data: Data, field: Field) -> list[int]:
    """The numbers of a repeated integer field, packed or one by one."""
    if field.value is not None:
        return [field.value]
    numbers, position = [], field.start
    while position < field.stop:
        value, position = varint(data, position, field.stop)
        numbers.append(value)
    return numbers
