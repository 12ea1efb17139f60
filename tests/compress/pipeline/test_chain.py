"""Stages of a recipe: barriers, what survives a kill between them, masks and codes that pass through."""

from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.model.checkpoint.quantization_config import forms
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.compress.passes.gptq import Gptq
from edgepress.compress.passes.prune import Prune
from edgepress.compress.passes.rtn import Rtn
from edgepress.compress.pipeline.chain import StageChain, stages_of
from edgepress.compress.pipeline.model_pass import ModelPass
from edgepress.compress.pipeline.stage import Stage, StageResult
from edgepress.compress.text.calibration import Calibration, calibration_from
from edgepress.files.hashed_tree import hash_tree
from edgepress.runtime.text.tokenizer import Tokenizer
from edgepress.terminal.progress import Silent
from safetensors.torch import save_file

pytestmark = pytest.mark.chain


class Halved(ModelPass):
    """A barrier that halves the final norm, so that its passing is seen."""

    def apply(self, stage: Stage) -> StageResult:
        source = stage.source
        tensors = {}
        for name in source.names():
            stored = source.reader.shapes.get(name)
            if stored is not None and name.removesuffix(".weight") not in source.schemes:
                tensors |= source.reader.read([name])
        for name in source.reader.shapes:
            if name not in tensors:
                tensors |= source.reader.read([name])
        norm = f"{source.anatomy.final_norm.name}.weight"  # type: ignore[union-attr]
        tensors[norm] = tensors[norm] / 2
        path = stage.directory / "all.safetensors"
        save_file(tensors, path, {"format": "pt"})
        return StageResult(
            [path], [], dict(source.schemes), forms(source.schemes.values()), details={"by": 2}
        )


STEPS: list[tuple[str, Any]] = [
    ("prune", Prune(score="magnitude", sparsity=0.5, targets=("down",))),
    ("halved", Halved()),
    ("rtn", Rtn(scheme="W4A16-g16", targets=("q", "k", "down"))),
    ("halved", Halved()),
    ("rtn", Rtn(scheme="W8A16-g16", targets=("q", "v"))),
]


def run(model: Path, work: Path, result: Path, progress: Silent | None = None) -> Any:
    source = WeightSource.open(model)
    return StageChain(source, STEPS, None, torch.device("cpu"), work, "key", progress or Silent()).run(result)


def test_block_passes_share_a_stage_and_model_passes_have_their_own() -> None:
    steps: list[tuple[str, Any]] = [("a", STEPS[0][1]), ("b", STEPS[2][1]), *STEPS]
    assert [[name for name, _ in stage] for stage in stages_of(steps)] == [
        ["a", "b", "prune"],
        ["halved"],
        ["rtn"],
        ["halved"],
        ["rtn"],
    ]


def test_block_passes_that_read_other_samples_have_stages_of_their_own(
    pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    few, more = Gptq(scheme="W4A16-g16", samples=2, targets=("q",)), Gptq(scheme="W4A16-g16", targets=("k",))
    steps: list[tuple[str, Any]] = [("gptq", few), ("gptq", few), ("gptq", more)]
    assert [len(stage) for stage in stages_of(steps)] == [2, 1]
    source = WeightSource.open(pico_llama)
    device, tokenizer = torch.device("cpu"), Tokenizer.open(pico_llama)
    text = calibration_from(str(pico_text), tokenizer, kind="decoder", samples=4, length=16, batch_size=2)

    def codes(name: str, step: Gptq, known: Calibration) -> torch.Tensor:
        steps, work = [("gptq", step)], tmp_path / f"{name}-work"
        StageChain(source, steps, known, device, work, "key", Silent()).run(tmp_path / name)
        made = WeightSource.open(tmp_path / name)
        tensor = made.linear(next(one.name for one in made.anatomy.linears() if one.role == "q"))
        assert isinstance(tensor, QTensor)
        return tensor.codes

    every = Gptq(scheme="W4A16-g16", targets=("q",))
    assert torch.equal(codes("few", few, text), codes("given", every, text.spread(2)))
    assert not torch.equal(codes("all", every, text), codes("again", few, text))


def test_masks_codes_and_schemes_pass_the_barriers(pico_llama: Path, tmp_path: Path) -> None:
    record = run(pico_llama, tmp_path / "work", tmp_path / "o")
    before, after = WeightSource.open(pico_llama), WeightSource.open(tmp_path / "o")
    block = after.anatomy.blocks[1]
    assert {
        linear.role: after.schemes[linear.name].name
        for linear in block.linears()
        if linear.name in after.schemes
    } == {
        "q": "W8A16-g16",
        "k": "W4A16-g16",
        "v": "W8A16-g16",
        "down": "W4A16-g16",
    }
    dense = before.dense(block.mlp.down.name)
    pruned = dense.abs() <= dense.abs().flatten().kthvalue(dense.numel() // 2).values
    down = after.linear(block.mlp.down.name)
    assert isinstance(down, QTensor) and bool((down.dequantize()[pruned] == 0).all())
    norm = f"{after.anatomy.final_norm.name}.weight"  # type: ignore[union-attr]
    assert torch.equal(after.tensor(norm), before.tensor(norm) / 4)
    assert torch.equal(
        after.tensor(block.norm1.name + ".weight"), before.tensor(block.norm1.name + ".weight")
    )
    assert len(record.damage) == len(STEPS) and record.details == {"1": {"by": 2}, "3": {"by": 2}}


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_a_kill_between_stages_costs_one_stage_and_changes_nothing(
    pico_llama: Path, tmp_path: Path, stage: int
) -> None:
    notes: list[str] = []

    class Killed(BaseException):
        """Ends a run as a kill would: nothing may catch it."""

    class Killing(Silent):
        def note(self, text: str) -> None:
            notes.append(text)
            if text.startswith(f"stage {stage + 1} of") and notes.count(text) == 1:
                raise Killed

    run(pico_llama, tmp_path / "w", tmp_path / "whole")
    with pytest.raises(Killed):
        run(pico_llama, tmp_path / "work", tmp_path / "o", Killing())
    run(pico_llama, tmp_path / "work", tmp_path / "o", Killing())
    begun = [int(text.split()[1]) - 1 for text in notes if text.startswith("stage")]
    assert begun == [*range(stage + 1), *range(stage, len(STEPS))]
    assert hash_tree(tmp_path / "o") == hash_tree(tmp_path / "whole")
