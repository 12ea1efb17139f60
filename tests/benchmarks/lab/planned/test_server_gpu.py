"""How often weights are copied to a device is counted, not assumed."""

from pathlib import Path

import pytest
from edgepress.benchmarks.lab.planned import server_gpu
from edgepress.benchmarks.lab.planned.server_gpu import Size, copied, on_the_gpu
from edgepress.compress.rates import measured_rates


@pytest.mark.slow
def test_rounding_copies_each_weight_once_and_learning_each_code_in_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_gpu, "COUNTED", Size(64, 128, 2))
    assert copied(tmp_path, "rtn") == 4
    steps = "{pass: tune, training: {tokens: %d, batch_tokens: 128, micro_batch_tokens: 128}}"
    found = []
    for count in (256, 512):
        passes = f"[{{pass: rtn, scheme: W4A16-g64}}, {steps % count}]"
        monkeypatch.setitem(server_gpu.RECIPES, "tune", passes)
        found.append(copied(tmp_path, "tune"))
    # Two steps more: a byte on the way there, one on the way back, one to measure what is held out.
    assert found[1] - found[0] == 2 * 3


def test_the_gpu_is_slower_only_where_the_host_works() -> None:
    here, there = measured_rates(), on_the_gpu()
    assert (there.stored, there.start) == (here.stored, here.start)
    assert there.products > here.products and there.roundings > here.roundings
