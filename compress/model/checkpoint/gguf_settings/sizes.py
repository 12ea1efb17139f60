"""Sizes that a GGUF file states, held against its tensors before a library builds a model of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..gguf_cursor import GgufCursor

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
