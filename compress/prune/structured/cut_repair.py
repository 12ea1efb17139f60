"""What is left of a model without some of its blocks: the block before each cut is refitted, one after the
other, with all that earlier cuts have changed counted in.

A cut at the beginning of a stack has nothing before it: both models begin behind it there.
"""

from collections.abc import Sequence

from torch import Tensor

from ....errors import RecipeError
from ...model.block_anatomy import BlockAnatomy
from ...pipeline.block import LayerStatus
from ...pipeline.block_inputs import BlockRunner, Stream
from ...pipeline.stage import Stage
from .layer_removal import refit
from .residual_fit import adds_plainly

NOTHING_BEFORE = "no layer comes before it"


class CutRepair:
    """Of the model of ``stage``, without the blocks ``removed``; ``refits``, or only runs what is left.

    ``changed`` gathers new parameters by stored name, ``statuses`` one for each cut.
    """

    def __init__(self, stage: Stage, runner: BlockRunner, removed: Sequence[int], *, refits: bool) -> None:
        self.stage, self.runner, self.removed, self.refits = stage, runner, removed, refits
        self.stacks = stage.source.anatomy.ranges()
        self.changed: dict[str, Tensor] = {}
        self.statuses: list[LayerStatus] = []

    def run(self, inputs: Stream) -> None:
        """Send the ``inputs`` of the first block through all blocks, and beside them through those that
        stay.
        """
        blocks = self.runner.blocks
        begin = len(self._beginning(self.stacks[0]))
        original, shortened = (inputs.fork(name, 0, begin) for name in ("original", "shortened"))
        with self.stage.progress.task("refitting cuts", len(blocks)) as task:
            for block in blocks:
                task.advance(1)
                if block.index not in self.removed:
                    self._through(block, original, shortened)
        for stack in self.stacks:
            first = self._beginning(stack)
            if first and self.refits:
                status = _status(blocks[stack.start], first, "fallback-unrepaired", 1.0, NOTHING_BEFORE)
                self.statuses.append(status)

    def _through(self, block: BlockAnatomy, original: Stream, shortened: Stream) -> None:
        """Send both through ``block``, which stays, and the original through the cut behind it."""
        runner, run = self.runner, self._run_after(block.index)
        last = run[-1] if run else block.index
        to = last + 1 + sum(len(self._beginning(stack)) for stack in self.stacks if stack.start == last + 1)
        for index in (block.index, *run):
            with runner.loaded(index) as module:
                runner.advance(original, index, module, to if index == last else None)
        with runner.loaded(block.index) as module:
            if run and self.refits:
                self.statuses.append(self._refit(block, run, shortened, original, to))
            runner.advance(shortened, block.index, module, to)

    def _refit(
        self, block: BlockAnatomy, run: Sequence[int], shortened: Stream, original: Stream, to: int
    ) -> LayerStatus:
        """Fit the last linear of ``block``, which is loaded, so that what leaves it in the ``shortened``
        model comes closest to what left ``run`` in the ``original``, and waits at the block ``to``.
        """
        name, stage, skeleton = block.last.name, self.stage, self.runner.skeleton
        if name in stage.source.schemes:
            raise RecipeError(
                f"layers: {name} would be refitted, and it is quantized",
                fix="drop layers before quantizing, or set repair: none",
            )
        if not adds_plainly(block, block.last):
            return _status(block, run, "fallback-unrepaired", 1.0, "its MLP is normalized before it is added")
        fitted = refit(skeleton, block, shortened, original.left(run[-1], to), None)
        if fitted.fit.damping is None:
            return _status(block, run, "fallback-unrepaired", 1.0, "the Gram is not positive definite")
        mask = stage.masks.of(block, stage.device).get(name)
        new = {f"{name}.weight": fitted.fit.weight if mask is None else fitted.fit.weight * mask}
        if fitted.fit.bias is not None:
            new[f"{name}.bias"] = fitted.fit.bias
        module = skeleton.submodule(block.prefix)
        for parameter, value in new.items():
            stored = value.to(stage.source.stored_type(parameter))
            self.changed[parameter] = stored
            skeleton.assign(module, parameter.removeprefix(f"{block.prefix}."), stored.float())
        return _status(block, run, "ok", fitted.error, "")

    def _beginning(self, stack: range) -> list[int]:
        """The blocks that are cut at the beginning of ``stack``."""
        return self._removed_from(stack.start, stack)

    def _run_after(self, index: int) -> list[int]:
        """The blocks of its stack that are cut right after the block ``index``."""
        stack = next(stack for stack in self.stacks if index in stack)
        return self._removed_from(index + 1, stack)

    def _removed_from(self, index: int, stack: range) -> list[int]:
        run: list[int] = []
        while index in stack and index in self.removed:
            run.append(index)
            index += 1
        return run


def _status(block: BlockAnatomy, run: Sequence[int], status: str, error: float, detail: str) -> LayerStatus:
    label = f"without {run[0]}–{run[-1]}" if len(run) > 1 else f"without {run[0]}"
    return LayerStatus(block.last.name, "layers", label, status, error, "output", detail)
