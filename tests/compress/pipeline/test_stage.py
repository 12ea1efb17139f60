"""What passes prepare ahead of a sweep: for each kind once, and read again where it is stored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from edgepress.compress.measure.fisher import FisherPass
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.passes.block_qat import BlockQat
from edgepress.compress.passes.rtn import Rtn
from edgepress.compress.pipeline.algorithm import BlockPass
from edgepress.compress.pipeline.stage import prepared
from edgepress.compress.text.calibration import Calibration
from edgepress.compress.text.token_batch import TokenBatch
from edgepress.terminal import Silent
from torch import Tensor

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

    def run(passes: list[BlockPass]) -> dict[str, Tensor]:
        return prepared(passes, source, calibration, CPU, Silent(), tmp_path)

    assert run(plain) == {} and not list(tmp_path.iterdir())
    loaded: list[int] = []
    load = FisherPass.load

    def counted(*arguments: object, **options: object) -> FisherPass:
        found = load(*arguments, **options)  # type: ignore[arg-type]
        loaded.append(sum(batch.tokens for batch in found.micro_batches))
        return found

    monkeypatch.setattr(FisherPass, "load", counted)
    found = run(steps)
    assert loaded == [48]
    assert list(found) == [f"{block.prefix}.output_fisher" for block in source.anatomy.blocks]
    again = run(steps)
    assert loaded == [48] and all(torch.equal(found[name], again[name]) for name in found)
