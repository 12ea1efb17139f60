"""The profile of GPTQ: every function that it names exists and is met, and the rows add up to the whole."""

from pathlib import Path

import pytest
from edgepress.benchmarks.lab.peers.floor import Floor
from edgepress.benchmarks.lab.planned.gptq_floor import FORWARD, GRAMS
from edgepress.benchmarks.lab.programs import gptq_profile
from edgepress.benchmarks.lab.programs.gptq_profile import KINDS, filled, profiled
from edgepress.compress import api

pytestmark = pytest.mark.chain


def test_every_kind_of_work_is_met_and_the_rows_add_up(
    pico_llama: Path, pico_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(model: str, **options: object) -> Path:
        changed = {"calibration": str(pico_text), "samples": 8, "length": 32, "scheme": "W4A16-g32"}
        return api.compress_model(str(pico_llama), **{**options, **changed})  # type: ignore[arg-type]

    monkeypatch.setattr(gptq_profile, "compress_model", small)
    each = {":".join(one): (one,) for functions in KINDS.values() for one in functions}
    monkeypatch.setattr(gptq_profile, "KINDS", KINDS | each)
    found, whole = profiled(tmp_path)
    assert found.keys() == KINDS.keys() | each.keys()
    assert [kind for kind, taken in found.items() if taken <= 0] == []
    seconds = {kind: found[kind] for kind in KINDS}
    rows = filled(seconds, whole, Floor(forward=4e9, grams=1e9, rate=1e9))
    assert sum(float(row[1]) for row in rows[:-1]) == pytest.approx(float(rows[-1][1]), abs=0.6)
    floors = {row[0]: row[3] for row in rows}
    assert (floors[FORWARD], floors[GRAMS], floors["whole process"]) == ("4.0", "1.0", "5.0")
