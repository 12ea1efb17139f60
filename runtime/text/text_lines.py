"""Texts from a file, one a line; ``-`` is stdin."""

from __future__ import annotations

import sys
from pathlib import Path

from ...errors import InputError


def text_lines(file: Path) -> list[str]:
    """The lines of ``file`` that are not blank.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return [line for line in raw.decode("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read texts from {file}", why=str(error)) from None
