"""``Keep``: has the weights of a bundle prepacked for this machine after the first answer."""

from __future__ import annotations

from ..bundle.bundle import Bundle
from . import prepacked


class Keep:
    """Called after each answer: has the weights prepacked once, if this machine has not kept them yet."""

    def __init__(self, bundle: Bundle, *, wanted: bool) -> None:
        self._bundle, self._wanted = bundle, wanted

    def __call__(self) -> None:
        if self._wanted:
            self._wanted = False
            if prepacked.worth(self._bundle) and prepacked.find(self._bundle) is None:
                from .prepack import prepack_later

                prepack_later(self._bundle)
