"""``RemadeLinear``: what a bundle's manifest says of a product whose int8 weights the device makes.

Apart from the making (:mod:`..prepack.int8_weights`), so that reading a manifest loads nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from .typed_json import integer, text

_WIDEST = 1 << 24


@dataclass(frozen=True)
class RemadeLinear:
    """A product of the prefill graph: ``name``, and rows ``first`` to ``first + out`` of the weight of the
    product ``of`` in the model's graph, which has ``columns`` inputs. They come from the smoothed ``norm``,
    unless that is "".
    """

    name: Annotated[str, text()]
    of: Annotated[str, text()]
    first: Annotated[int, integer(0, _WIDEST)]
    out: Annotated[int, integer(1, _WIDEST)]
    columns: Annotated[int, integer(1, _WIDEST)]
    norm: Annotated[str, text()] = ""
