"""The table of planted faults: thirty, and what a stage says is what the fault was."""

from pathlib import Path

import pytest
from edgepress.benchmarks.lab.programs.planted_faults import FAULTS, found, made

SOME = (
    "scales of q shifted by one group",
    "two tokens of the tokenizer swapped",
    "tokenizer of another model",
)


def test_there_are_thirty() -> None:
    assert len(FAULTS) == len({(fault.where, fault.name) for fault in FAULTS}) == 30


@pytest.mark.chain
def test_each_stage_finds_its_faults(tmp_path: Path) -> None:
    place = made(tmp_path)
    stages = [found(fault, place)[0] for fault in FAULTS if fault.name in SOME]
    assert stages == ["proof", "verify", "check before the work"]
