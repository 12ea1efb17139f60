"""Sizes that a GGUF file states, held against its tensors before a library builds a model of them.

Little-endian values of a GGUF file one after the other, never past its end.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from io import BufferedReader
from pathlib import Path

from .....errors import CheckpointError

# Of all blocks together: each is several names. Those of 94 blocks with 512 are 48,128.
MAX_EXPERTS = 1 << 17
_OF_STATES = (
    *("ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank", "ssm.group_count"),
    "shortconv.l_cache",
)


def check_sizes(
    cursor: GgufCursor,
    settings: Mapping[str, object],
    architecture: str,
    dimensions: set[int],
    tensors: int,
) -> None:
    """Hold the ``settings`` of an ``architecture`` against the ``dimensions`` and the number of tensors."""

    def setting(name: str, default: int | None = None, least: int = 1) -> int:
        value = settings.get(name, default)
        value = max(value) if isinstance(value, tuple) and value else value
        if type(value) is not int or value < least:
            raise cursor.refusal(f"{architecture}.{name} is {value!r}, not a positive whole number")
        return value

    # A model of state spaces alone has neither heads nor an MLP, and its file says so.
    least = 0 if "ssm.inner_size" in settings else 1
    hidden, widest = setting("embedding_length"), max(dimensions, default=0)
    sizes = {"embedding_length": hidden, "vocab_size": setting("vocab_size", hidden)}
    if width := setting("feed_forward_length", least=least):
        sizes |= _widths(setting, width, settings.get("expert_count"))
    for name, size in sizes.items():
        if size not in dimensions:
            raise cursor.refusal(f"{architecture}.{name} is {size}, a size that no tensor has")
    blocks = setting("block_count")
    for name, count in (("block_count", blocks), ("decoder_block_count", setting("decoder_block_count", 1))):
        if count > tensors:
            raise cursor.refusal(f"{architecture}.{name} is {count} for {tensors} tensors")
    if blocks * (experts := sizes.get("expert_count", 1)) > MAX_EXPERTS:
        raise cursor.refusal(f"{blocks} blocks have {experts} experts each, more than {MAX_EXPERTS} in all")
    heads = setting("attention.head_count", least=least)
    for count in (heads, setting("attention.head_count_kv", heads, least)):
        if count * setting("attention.key_length", 1) > widest:
            raise cursor.refusal(f"{architecture} has {count} heads, too many for {widest} rows")
    for name in _OF_STATES:
        if (size := setting(name, 1)) > widest:
            raise cursor.refusal(f"{architecture}.{name} is {size}, more than any tensor has")


def _widths(setting: Callable[..., int], width: int, experts: object) -> dict[str, int]:
    """That of an MLP; where there are ``experts`` their number and width: no block need have another MLP."""
    if experts in (None, 0, 1):  # a Jamba without says one
        return {"feed_forward_length": width}
    setting("expert_used_count")
    own = setting("expert_feed_forward_length", width)
    return {"expert_count": setting("expert_count"), "expert_feed_forward_length": own}


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
