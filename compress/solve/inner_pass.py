"""A pass that another one runs: named in its options as ``using: {pass: NAME, …}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ..pipeline.algorithm import BlockPass
from ..pipeline.pass_options import read_options


def inner_pass(using: Mapping[str, Any], needed: str, **own: Any) -> BlockPass:
    """The block pass ``using`` names, with its options and those in ``own``, which it may not set.

    Raises:
        ValueError: no block pass with the option ``needed``, or its options are wrong.
        RecipeError: an option that is fixed at another value.
    """
    options = {key: value for key, value in using.items() if key != "pass"}
    if "pass" not in using or own.keys() & options.keys():
        raise ValueError(f"using names a pass and its options but {', '.join(own)}")
    read = read_options(str(using["pass"]), options)
    if not issubclass(read.kind, BlockPass) or needed not in read.kind.model_fields:
        raise ValueError(f"using: {using['pass']} works on no block by itself or has no {needed}")
    try:
        return read.kind.model_validate({**read.options, **own})
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"using: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
