"""What every compression algorithm is: a frozen options model, and ``apply``.

A ``BlockPass`` works on one block of the sweep; a ``ModelPass`` needs the whole model and is a barrier in it.
A file in ``passes/`` defines one subclass and names it ``PASS``; the fields are the keys a recipe may set.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from ..model.anatomy import Anatomy
from ..model.block_anatomy import Linear
from ..model.kv_scheme import KVScheme
from ..numbers.option_model import OptionModel
from ..numbers.scheme import Scheme

# Features of models that a pass must know: blocks of experts, each of which reads some of the tokens; a
# decoder that reads an encoder's states; an encoder of sound; blocks that mix tokens by a state.
EXPERTS, CROSS, SOUND, STATES = "experts", "cross", "sound", "states"
ATTENDING = frozenset({EXPERTS, CROSS, SOUND})
EVERY = ATTENDING | {STATES}


@dataclass(frozen=True)
class Fixed:
    """What an option is fixed at that recipes could set once, and why; equal values are still accepted."""

    value: Any
    why: str


class Pass(OptionModel):
    """Options shared by all passes."""

    fixed: ClassVar[Mapping[str, Fixed]] = {}  # former options, by name
    text: ClassVar[str] = "yes"  # when calibration text is needed, for the list of passes
    keeps_codes: ClassVar[bool] = False  # whether its scheme is for layers alone that have no codes yet
    on_tables: ClassVar[bool] = False  # whether it works on embedding and head, and on no layer
    works_on: ClassVar[frozenset[str]] = (
        frozenset()
    )  # the features of models that it knows, beside plain ones

    samples: int | None = Field(
        None, ge=1, description="how many of the calibration sequences the pass reads; null reads all"
    )

    def refuses(self, anatomy: Anatomy) -> Mapping[str, str]:
        """Of what it ``works_on``, what it does not with these options, and why; empty where nobody tried."""
        return {}

    @property
    def weight_scheme(self) -> Scheme | None:
        """The scheme this pass gives its layers, or None when it does not quantize."""
        return None

    def scheme_of(self, linear: Linear) -> Scheme | None:
        """The scheme this pass gives ``linear``, which it selects."""
        return self.weight_scheme

    def quantizes(self, linear: Linear) -> bool:
        """Whether the pass gives ``linear``, which it selects, new codes."""
        return self.scheme_of(linear) is not None

    @property
    def tables(self) -> tuple[Scheme, Scheme] | None:
        """The schemes this pass rounds embedding and head to, or None when it leaves them alone."""
        return None

    @property
    def kv_scheme(self) -> KVScheme | None:
        """The scheme this pass gives the key/value cache, or None when it leaves that alone."""
        return None

    @property
    def rounds_cache(self) -> bool:
        """Whether it rounds keys and values, in the result or while it learns."""
        return self.kv_scheme is not None

    def bits_per_weight(self, in_features: int) -> float | None:
        """Stored bits a weight of a layer with so many inputs afterwards, or None when they stay as many."""
        scheme = self.weight_scheme
        return None if scheme is None else scheme.bits_per_weight(in_features)

    def added_bytes(self, anatomy: Anatomy) -> int:
        """Bytes in float32 of matrices that the pass adds to the model."""
        return 0

    @property
    def calibrated(self) -> bool:
        """Whether the pass needs calibration text."""
        return False

    @property
    def last(self) -> bool:
        """Whether no pass may follow."""
        return self.kv_scheme is not None

    @property
    def label(self) -> str:
        """How a table calls what the pass does, for a pass without a scheme."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(self).__name__).lower()

    def called(self, name: str) -> str:
        """How a summary calls the pass ``name`` beside its scheme or label; empty where those say it all."""
        return name

    @property
    def note(self) -> str | None:
        """What whoever uses the result should know, kept in its manifest."""
        return None

    def seen(self, tokens: int, samples: int) -> int:
        """How many of the ``tokens`` in so many ``samples`` the pass reads."""
        return tokens if self.samples is None or self.samples >= samples else tokens * self.samples // samples

    @property
    def lighter(self) -> str:
        """What whoever has too little memory for the pass can do; empty where nothing helps."""
        return ""

    def reads(self) -> tuple[Path, ...]:
        """Checkpoints or files besides the model and the text that the result depends on."""
        return ()

    @property
    def inputs_multiple(self) -> int:
        """What the number of inputs of each layer has to be a multiple of."""
        return 1 if self.weight_scheme is None else self.weight_scheme.block

    def selects(self, linear: Linear) -> bool:
        """Whether the pass works on ``linear``."""
        return True

    def selected(self, anatomy: Anatomy) -> list[Linear]:
        """All layers of a model the pass works on."""
        return [linear for linear in anatomy.linears() if self.selects(linear)]

    def anatomy_after(self, anatomy: Anatomy) -> Anatomy:
        """What the pass makes of a model's shapes: what the plan of the later passes goes by.

        Raises:
            RecipeError: the pass cannot do to such a model what its options ask.
        """
        return anatomy


def whole_model(why: str) -> dict[str, Fixed]:
    """``targets`` and ``ignore`` of a pass that works on all layers."""
    return {"targets": Fixed(("*",), why), "ignore": Fixed((), why)}


def float_bytes(linear: Linear) -> int:
    """Bytes of the weight of ``linear`` in float32."""
    return 4 * linear.out_features * linear.in_features
