"""A pass that another one runs: named in its options as ``using: {pass: NAME, …}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ..pipeline.algorithm import BlockPass, pass_type


def inner_pass(using: Mapping[str, Any], needed: str, **own: Any) -> BlockPass:
    """The block pass ``using`` names, with its options and those in ``own``, which it may not set.

    Raises:
        ValueError: no block pass with the option ``needed``, or its options are wrong.
    """
    options = {key: value for key, value in using.items() if key != "pass"}
    if "pass" not in using or own.keys() & options.keys():
        raise ValueError(f"using names a pass and its options but {', '.join(own)}")
    kind = pass_type(str(using["pass"]))
    if not issubclass(kind, BlockPass) or needed not in kind.model_fields:
        raise ValueError(f"using: {using['pass']} works on no block by itself or has no {needed}")
    try:
        return kind.model_validate({**options, **own})
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"using: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
