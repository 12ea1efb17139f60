"""``BlockPass``: an algorithm that works on one block of the sweep, on the layers that a recipe names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, field_validator

from ..model.anatomy import Anatomy
from ..model.block_anatomy import BlockAnatomy, Linear
from ..numbers.grid import grids_tried
from .advance import FORWARD, Work
from .algorithm import EVERY, STATES, Pass, float_bytes
from .block import Block

if TYPE_CHECKING:
    from ..measure.fisher import Measure

_REGULAR = "re:"  # as in other tools
COARSE_BITS = 4
PREPARED_AT_ONCE = 2048  # tokens that go through the whole model and back ahead of a sweep


class Selective(Pass):
    """A pass that works on the layers that a recipe names."""

    targets: tuple[str, ...] = Field(
        ("*",),
        description="layers that it works on: roles (q k v o gate up down), globs on names, or regular "
        "expressions behind re:",
    )
    ignore: tuple[str, ...] = Field((), description="layers to leave alone, named in the same ways")

    @field_validator("targets", "ignore", check_fields=False)  # some passes have neither
    @classmethod
    def _patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            try:
                names_layer(pattern, "", "")
            except re.error as error:
                raise ValueError(f"{pattern} is no regular expression: {error}") from None
        return value

    def selects(self, linear: Linear) -> bool:
        """Whether ``targets`` name ``linear`` and ``ignore`` does not."""
        targeted, ignored = (
            any(names_layer(pattern, linear.name, linear.role) for pattern in patterns)
            for patterns in (self.targets, self.ignore)
        )
        return targeted and not ignored


def names_layer(pattern: str, name: str, role: str) -> bool:
    """Whether ``pattern`` of ``targets`` or ``ignore`` means the layer ``name``, whose ``role`` it may be."""
    if pattern.startswith(_REGULAR):
        return re.match(pattern.removeprefix(_REGULAR), name) is not None
    return pattern == role or fnmatchcase(name, pattern)


class BlockPass(Selective):
    """A pass that works on one block with its statistics."""

    works_on: ClassVar[frozenset[str]] = EVERY  # what it does to linears, whatever is between them

    needs: ClassVar[tuple[str, ...]] = ()  # statistics of the inputs that it reads
    reads_batches: ClassVar[bool] = False  # it runs the calibration batches through the block itself
    compares: ClassVar[bool] = False  # it wants the original model's inputs beside those of this one
    # All layers of a block learn together from its output: the activations of a batch wait for the way back.
    learns: ClassVar[bool] = False

    @property
    def coarse(self) -> bool:
        """Whether what it does to weights is far coarser than bfloat16: text may then go through a block in
        that, where the processor computes in it. By default where it has a scheme of 4 bits or fewer.
        """
        scheme = self.weight_scheme
        return scheme is not None and scheme.bits <= COARSE_BITS and scheme.activations is None

    @property
    def calibrated(self) -> bool:
        return bool(self.needs) or self.reads_batches or self.compares

    def refuses(self, anatomy: Anatomy) -> Mapping[str, str]:
        """What comes back through the model does not come through a state."""
        return {} if self.prepared_tokens is None else {STATES: ""}

    @property
    def prepared_tokens(self) -> int | None:
        """Tokens of calibration text for :meth:`prepare`; None where the pass needs nothing ahead."""
        return None

    @property
    def alone(self) -> bool:
        """Whether each sequence of a batch goes through the block by itself where the pass ``learns``."""
        return False

    @classmethod
    def prepare(cls, anatomy: Anatomy) -> Measure:
        """What passes of this kind measure on the whole model ahead of a sweep; a block has what was found of
        it in ``Block.prepared``.
        """
        raise TypeError(f"{cls.__name__} does not define prepare")

    def prepared_bytes(self, anatomy: Anatomy) -> int:
        """Bytes of what :meth:`prepare` finds of the largest block."""
        return 0

    def working_bytes(self, layers: Sequence[Linear]) -> int:
        """The most memory that ``apply`` takes at once for ``layers``, which read the same inputs, or are all
        layers of a block where the pass ``learns``.

        Weights, statistics and codes are counted elsewhere. By default what rounding takes: three float
        copies of the largest layer.
        """
        return 3 * max(float_bytes(linear) for linear in layers)

    def collected_bytes(self, block: BlockAnatomy) -> int:
        """Of statistics that ``apply`` itself collects of experts, several of which it looks at in one run;
        what it needs of one group of layers is in :meth:`working_bytes`.
        """
        return 0

    @property
    def factors_grams(self) -> bool:
        """Whether it solves its layers from a factor of the Gram of their inputs."""
        return False

    @property
    def recursion_damping(self) -> float | None:
        """The damping with which GPTQ finds its codes; None where they are found in another way."""
        return None

    def work(self, groups: Sequence[Sequence[Linear]], tokens: int, batch_tokens: int) -> Work:
        """What the layers of a block take, in ``groups`` that share their inputs.

        By default what collecting statistics, a column recursion, its error and rounding take; a pass without
        data only rounds.
        """
        total = Work()
        for group in groups:
            wide, rows = group[0].in_features, sum(linear.out_features for linear in group)
            if self.calibrated:
                total += Work(products=tokens * (FORWARD * rows * wide + wide**2))
            if self.factors_grams:
                total += Work(1.6 * rows * wide**2, wide**3, wide, rows * wide)
            total += Work(roundings=rows * wide * self.roundings)
        return total

    @property
    def roundings(self) -> int:
        """How many grids a weight is rounded to."""
        scheme = self.weight_scheme
        return 1 if scheme is None else grids_tried(scheme)

    def apply(self, block: Block) -> None:
        """Change the selected layers of ``block`` and leave a status for each."""
        raise TypeError(f"{type(self).__name__} does not define apply")
