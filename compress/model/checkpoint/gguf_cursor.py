"""Little-endian values of a GGUF file one after the other, never past its end."""

from __future__ import annotations

import struct
from io import BufferedReader
from pathlib import Path

from ....errors import CheckpointError


class GgufCursor:
    """Where a reader is in the file ``path``, of which ``left`` bytes are still to come."""

    def __init__(self, path: Path, stream: BufferedReader, size: int) -> None:
        self.path, self.stream, self.left = path, stream, size

    def take(self, count: int, what: str) -> bytes:
        """The next ``count`` bytes, which are ``what``."""
        if count > self.left:
            raise self.refusal(f"{what} claims {count} bytes, {self.left} are left")
        self.left -= count
        data = self.stream.read(count)
        if len(data) != count:
            raise self.refusal(f"the file ends inside {what}")
        return data

    def unpack(self, form: str, what: str) -> int | float:
        """The next number, of a ``form`` of :mod:`struct`."""
        value: int | float = struct.unpack("<" + form, self.take(struct.calcsize("<" + form), what))[0]
        return value

    def count(self, form: str, limit: int, what: str) -> int:
        """The next number, which is no more than ``limit``."""
        value = int(self.unpack(form, what))
        if value > limit:
            raise self.refusal(f"{what} is {value}, more than {limit}")
        return value

    def string(self, limit: int, what: str) -> bytes:
        """The next text, of at most ``limit`` bytes, behind its length."""
        return self.take(self.count("Q", limit, f"the length of {what}"), what)

    def refusal(self, what: str) -> CheckpointError:
        """The error of a file that is not what it says: ``what`` of it is wrong."""
        return CheckpointError(
            f"{self.path} is not a valid GGUF file: {what}",
            why="the file is damaged, was cut short while it was copied, or was made to mislead a reader",
            fix="fetch the file again and compare its hash with the publisher's",
        )
