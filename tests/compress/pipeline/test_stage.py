"""What passes prepare ahead of a sweep: for each kind once, and read again where it is stored."""

from pathlib import Path

import pytest
import torch
from edgepress.compress.measure.fisher import Measure
from edgepress.compress.model.anatomy import Anatomy
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.passes.block_qat import BlockQat
from edgepress.compress.passes.rtn import Rtn
from edgepress.compress.pipeline.block_pass import BlockPass
from edgepress.compress.pipeline.stage import prepared
from edgepress.compress.text.calibration import Calibration
from edgepress.compress.text.token_batch import TokenBatch
from edgepress.files.hashed_tree import hash_tree
from edgepress.terminal.progress import Silent
from safetensors.torch import load_file

CPU = torch.device("cpu")


def test_it_is_measured_once_for_all_passes_of_a_kind(
    pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = WeightSource.open(pico_llama)
    ids = torch.randint(3, 100, (4, 16), generator=torch.Generator().manual_seed(0))
    batches = (TokenBatch(ids, torch.ones_like(ids)),)
    calibration = Calibration(batches, "text", 0, 4, 16, 64, 4, 0, 0, False, "")
    scheme = {"bits": 4, "group_size": 32}
    plain: list[BlockPass] = [Rtn.model_validate({"scheme": scheme})]
    fisher = {"scheme": scheme, "distance": "fisher"}
    steps = [
        *plain,
        BlockQat.model_validate({**fisher, "fisher_tokens": 16}),
        BlockQat.model_validate({**fisher, "fisher_tokens": 48}),
    ]

    def run(passes: list[BlockPass]) -> list[list[Path]]:
        return prepared(passes, source, calibration, CPU, Silent(), tmp_path)

    assert run(plain) == [] and not list(tmp_path.iterdir())
    measured: list[int] = []
    prepare = BlockQat.prepare

    def counted(anatomy: Anatomy) -> Measure:
        measured.append(1)
        return prepare(anatomy)

    monkeypatch.setattr(BlockQat, "prepare", counted)
    (found,) = run(steps)
    assert len(measured) == 1 and len(found) == len(source.anatomy.blocks)
    assert [list(load_file(file)) for file in found] == [["output_fisher"]] * len(found)
    before = hash_tree(tmp_path)
    assert run(steps) == [found] and hash_tree(tmp_path) == before
