"""Statistics that compare the partly compressed model with the original, through a whole sweep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.passes.rtn import Rtn
from edgepress.compress.pipeline.block import Block
from edgepress.compress.pipeline.block_pass import BlockPass
from edgepress.compress.pipeline.journal import Journal
from edgepress.compress.pipeline.sweep import Sweep
from edgepress.compress.solve.group_solving import HALVES
from edgepress.compress.text.calibration import calibration_from
from edgepress.runtime.text.tokenizer import Tokenizer
from edgepress.terminal import Silent

pytestmark = pytest.mark.chain


SEEN: dict[str, torch.Tensor] = {}


class Watch(BlockPass):
    """Keeps what it is shown."""

    needs: ClassVar[tuple[str, ...]] = HALVES
    compares: ClassVar[bool] = True

    def apply(self, block: Block) -> None:
        for linear in self.selected_in(block):
            SEEN[linear.name] = sum(block.statistic(linear, name) for name in HALVES) / 2

    def selected_in(self, block: Block) -> list[Any]:
        return [linear for linear in block.anatomy.linears() if self.selects(linear)]


def inputs_of(model: Path, names: list[str], ids: torch.Tensor, before: Callable[[Any], None]) -> Any:
    module = load_model(model)
    before(module)
    rows: dict[str, torch.Tensor] = {}
    for name in names:
        module.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: rows.__setitem__(name, args[0].flatten(0, 1))
        )
    with torch.no_grad():
        module(ids)
    return rows


def test_cross_grams_are_those_of_the_two_whole_models(
    pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    source = WeightSource.open(pico_llama)
    calibration = calibration_from(
        str(pico_text), Tokenizer.open(pico_llama), kind="decoder", batch_size=8, samples=8, length=32
    )
    rounding = Rtn(scheme="W2A16-g16")
    steps: Any = [[("watch", Watch())], [("rtn", rounding)]]
    SEEN.clear()
    journal = Journal.open(tmp_path, "key")
    schemes = {"every linear": rounding.scheme}
    Sweep(source, steps, schemes, calibration, torch.device("cpu"), journal, Silent()).run()
    blocks = source.anatomy.blocks
    names = [linear.name for linear in blocks[1].linears()]

    def quantize_first(module: Any) -> None:
        from edgepress.compress.numbers.grid import quantize

        for linear in blocks[0].linears():
            weight = module.get_submodule(linear.name).weight
            weight.copy_(quantize(source.dense(linear.name), rounding.scheme).dequantize())

    ids = calibration.batches[0].input_ids
    original = inputs_of(pico_llama, names, ids, lambda _: None)
    current = inputs_of(pico_llama, names, ids, quantize_first)
    for name in names:
        expected = (original[name] - current[name]).T @ current[name] / current[name].shape[0]
        assert torch.allclose(SEEN[name], expected, atol=1e-4), name
    assert all(bool((SEEN[linear.name] == 0).all()) for linear in blocks[0].linears())
