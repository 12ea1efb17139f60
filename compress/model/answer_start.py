"""The token that the answers of an encoder–decoder begin with."""

from __future__ import annotations

from typing import Any

from ...errors import CheckpointError


def start_token(model: Any) -> int:
    """Its id, of transformers' ``model``.

    Raises:
        CheckpointError: neither its config nor its generation config says it.
    """
    settings = model.generation_config
    start = settings.decoder_start_token_id
    start = settings.bos_token_id if start is None else start
    if not isinstance(start, int):
        raise no_start()
    return start


def no_start() -> CheckpointError:
    """The error where nothing says it."""
    return CheckpointError(
        "nothing says which token the answers of an encoder–decoder begin with",
        fix="set decoder_start_token_id in config.json, or in generation_config.json where there is one",
    )
