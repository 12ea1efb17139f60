"""What every compression algorithm is: a frozen options model, and ``apply``.

A ``BlockPass`` works on one block of the sweep; a ``ModelPass`` needs the whole model and is a barrier in it.
A file in ``passes/`` defines one subclass and names it ``PASS``; the fields are the keys a recipe may set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ..model.anatomy import Anatomy
from ..model.block_anatomy import BlockAnatomy, Linear
from ..model.kv_scheme import KVScheme
from ..numbers.grid import grids_tried
from ..numbers.scheme import Scheme
from .advance import FORWARD, Work
from .block import Block

if TYPE_CHECKING:
    from ..measure.fisher import Measure
    from ..model.weights import WeightSource
    from .stage import Stage, StageResult

_REGULAR = "re:"  # as in other tools
PREPARED_AT_ONCE = 2048  # tokens that go through the whole model and back ahead of a sweep


@dataclass(frozen=True)
class Fixed:
    """What an option is fixed at that recipes could set once, and why; equal values are still accepted."""

    value: Any
    why: str


class Pass(BaseModel):
    """Options shared by all passes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fixed: ClassVar[Mapping[str, Fixed]] = {}  # former options, by name
    text: ClassVar[str] = "yes"  # when calibration text is needed, for the list of passes
    knows_experts: ClassVar[bool] = False  # whether it works on models with blocks of experts
    keeps_codes: ClassVar[bool] = False  # whether its scheme is for layers alone that have no codes yet

    samples: int | None = Field(
        None, ge=1, description="how many of the calibration sequences the pass reads; null reads all"
    )

    @property
    def knows_encoder_decoders(self) -> bool:
        """Whether it works on models that write from an encoder's states."""
        return False

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
    def kv_scheme(self) -> KVScheme | None:
        """The scheme this pass gives the key/value cache, or None when it leaves that alone."""
        return None

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
        return type(self).__name__.lower()

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
        return (self.weight_scheme and self.weight_scheme.group_size) or 1

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


def whole_model(why: str) -> dict[str, Fixed]:
    """``targets`` and ``ignore`` of a pass that works on all layers."""
    return {"targets": Fixed(("*",), why), "ignore": Fixed((), why)}


class BlockPass(Selective):
    """A pass that works on one block with its statistics."""

    needs: ClassVar[tuple[str, ...]] = ()  # statistics of the inputs that it reads
    reads_batches: ClassVar[bool] = False  # it runs the calibration batches through the block itself
    compares: ClassVar[bool] = False  # it wants the original model's inputs beside those of this one
    # All layers of a block learn together from its output: the activations of a batch wait for the way back.
    learns: ClassVar[bool] = False

    @property
    def calibrated(self) -> bool:
        return bool(self.needs) or self.reads_batches or self.compares

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

    @property
    def factors_grams(self) -> bool:
        """Whether it solves its layers from a factor of the Gram of their inputs."""
        return False

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
                total += Work(2.5 * rows * wide**2, wide**3, wide, rows * wide)
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


class ModelPass(Pass):
    """A pass that needs the whole model: the sweep ends before it and another begins after it.

    One that is ``together`` is applied by all processes of a launch at once; the first one's result counts.
    """

    together: ClassVar[bool] = False

    @property
    def max_seconds(self) -> float | None:
        """Of its work at most, or None."""
        return None

    def working_bytes(self, weights: int) -> int:
        """Peak memory for a model of ``weights`` float32 bytes; by default two copies of it."""
        return 2 * weights

    def disk_bytes(self, anatomy: Anatomy, tokens: int) -> int:
        """Bytes that it keeps on disk while it works, with so many ``tokens`` of calibration text; none by
        default.
        """
        return 0

    def swept_with(self) -> Sequence[BlockPass]:
        """The passes of an ordinary sweep that this one ends with."""
        return ()

    @property
    def measures(self) -> bool:
        """Whether a backward sweep comes first."""
        return False

    def observers_bytes(self, block: BlockAnatomy) -> int:
        """What the observers of a backward sweep hold of a block and take to find what they are for."""
        return 0

    def sweep_bytes(self, source: WeightSource, tokens: int, scales: int) -> int:
        """Peak memory of a sweep of its own over the blocks of ``source``, with so many ``tokens`` of
        calibration text, when its codes have so many ``scales`` in all; none by default.
        """
        return 0

    def multiplications(self, weights: int, tokens: int) -> float:
        """Multiply-adds for a model with so many weights in its blocks; by default one forward pass."""
        return float(weights) * tokens

    def solving(self, anatomy: Anatomy) -> float:
        """Multiply-adds beside those, which depend on the shapes of single layers; none by default."""
        return 0.0

    def apply(self, stage: Stage) -> StageResult:
        """Read the model of ``stage`` and write the changed one into its output directory."""
        raise TypeError(f"{type(self).__name__} does not define apply")


def float_bytes(linear: Linear) -> int:
    """Bytes of the weight of ``linear`` in float32."""
    return 4 * linear.out_features * linear.in_features
