"""``ModelPass``: an algorithm that needs the whole model, a barrier in the sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..model.anatomy import Anatomy
from ..model.block_anatomy import BlockAnatomy
from .advance import Work
from .algorithm import Pass
from .block_pass import BlockPass

if TYPE_CHECKING:
    from ..model.weights import WeightSource
    from .stage import Stage, StageResult


# A backward sweep in units of a forward pass: forth, again, and two products on the way back. Of the head in
# units of its logits: labels are drawn of them, and its table gets no gradient.
_BACKWARD, _BACKWARD_HEAD = 3.0, 2.0


@dataclass(frozen=True)
class Workload:
    """What the work of a pass is planned from: the ``anatomy``, the ``tokens`` of calibration text that it
    reads, how many ``scales`` the codes have in all, and what one token takes, in multiply-adds: a forward
    pass through the ``blocks``, and its ``logits``.
    """

    anatomy: Anatomy
    tokens: int
    scales: int
    blocks: float
    logits: float

    @property
    def forward(self) -> float:
        """A token through the whole model."""
        return self.blocks + self.logits

    @property
    def backward(self) -> float:
        """A token through the whole model and back."""
        return _BACKWARD * self.blocks + _BACKWARD_HEAD * self.logits


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

    def disk_bytes(self, anatomy: Anatomy, tokens: int, scales: int) -> int:
        """Bytes that it keeps on disk while it works, with so many ``tokens`` of calibration text, when its
        codes have so many ``scales`` in all; none by default.
        """
        return 0

    def disk_bytes_at_end(self, anatomy: Anatomy, tokens: int, scales: int) -> int:
        """Those of them that are still there while its result is written; all by default."""
        return self.disk_bytes(anatomy, tokens, scales)

    def swept_with(self) -> Sequence[BlockPass]:
        """The passes of an ordinary sweep that this one ends with."""
        return ()

    @property
    def measures(self) -> bool:
        """Whether a backward sweep comes first."""
        return False

    @property
    def looked_tokens(self) -> int:
        """Tokens that its observers are shown first."""
        return 0

    def observers_bytes(self, block: BlockAnatomy) -> int:
        """What the observers of a backward sweep hold of a block and take to find what they are for."""
        return 0

    def sweep_bytes(self, source: WeightSource, tokens: int, scales: int) -> int:
        """Peak memory of a sweep of its own over the blocks of ``source``, with so many ``tokens`` of
        calibration text, when its codes have so many ``scales`` in all; none by default.
        """
        return 0

    def work(self, load: Workload) -> Work:
        """Its work in all; by default a forward pass through the blocks."""
        return Work(load.tokens * load.blocks)

    def apply(self, stage: Stage) -> StageResult:
        """Read the model of ``stage`` and write the changed one into its output directory."""
        raise TypeError(f"{type(self).__name__} does not define apply")
