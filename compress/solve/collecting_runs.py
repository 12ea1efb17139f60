"""Which layers of a block have their inputs collected in one run of the calibration text through it.

A pass that looks at the inputs of each group of layers once those before it are done runs the text again for
each. Of a mixture that would be two runs an expert. But experts do not read each other: the inputs of gate
and up of all of them are there in one run, and in another those of down, as far as their statistics have
room: beside the block as much as its experts weigh in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..model.block_anatomy import BlockAnatomy, Linear
from ..pipeline.algorithm import float_bytes

Group = Sequence[Linear]


def collecting_runs(
    block: BlockAnatomy, selects: Callable[[Linear], bool], bytes_of: Callable[[Group], int]
) -> Iterator[list[list[Linear]]]:
    """The groups of selected layers that read the same inputs, those of one run together, in the order in
    which they are worked on. ``bytes_of`` says what the statistics of a group take.
    """
    before = block.mixer.inputs() if block.experts is not None else block.inputs()
    for group in before:
        if layers := list(filter(selects, group)):
            yield [layers]
    if block.experts is None:
        return
    most = sum(map(float_bytes, block.expert_linears()))
    for groups in ([mlp.projections for mlp in block.mlps()], [(mlp.down,) for mlp in block.mlps()]):
        waiting: list[list[Linear]] = []
        for layers in (found for group in groups if (found := list(filter(selects, group)))):
            if waiting and sum(map(bytes_of, [*waiting, layers])) > most:
                yield waiting
                waiting = []
            waiting.append(layers)
        if waiting:
            yield waiting
