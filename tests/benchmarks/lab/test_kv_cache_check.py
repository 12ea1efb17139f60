"""The check of key/value caches: its rows are what the package can do, and no window is run twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from edgepress.benchmarks.lab.programs import kv_cache_types as kv_cache
from edgepress.benchmarks.lab.programs.kv_cache_types import VARIANTS, Remembered, speed
from edgepress.compress.recipe import load_recipe
from edgepress.export.api import export_bundle
from edgepress.export.graph.attention.cache_io import TYPES
from pytest import MonkeyPatch


def test_every_row_can_be_made(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    commands: list[str] = []

    def run(command: str) -> None:
        commands.append(command)
        Path(command.split(" -o ")[1].split()[0]).mkdir()

    monkeypatch.setattr(kv_cache, "edgepress", run)
    bundles = {variant: kv_cache.made(tmp_path, variant) for variant in VARIANTS}
    assert len(set(bundles.values())) == len(VARIANTS)
    assert sum(command.startswith("compress smollm2") for command in commands) == 1
    for variant in VARIANTS:
        assert variant.kv in TYPES
        if variant.step:
            scheme = load_recipe(str(tmp_path / f"{variant.name}.yaml")).steps[-1][1].kv_scheme
            assert scheme is not None
            assert f"int{scheme.bits}-{scheme.granularity.removeprefix('per-')}" == variant.name
    count = len(commands)
    kv_cache.made(tmp_path, VARIANTS[-1])
    assert len(commands) == count  # what is there is not made again


def test_windows_are_run_once() -> None:
    class Counting:
        tokenizer = None
        runs = 0

        def logits(self, ids: np.ndarray) -> np.ndarray:
            self.runs += 1
            return np.full((1, ids.shape[1], 3), float(ids.sum()), np.float32)

    subject = Counting()
    remembered = Remembered(subject)  # type: ignore[arg-type]
    first, second = np.array([[1, 2]]), np.array([[3, 4]])
    found = [remembered.logits(ids)[0, 0, 0] for ids in (first, second, first)]
    assert (found, subject.runs) == ([3, 7, 3], 2)


def test_speeds_are_of_every_prompt(pico_llama: Path, tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache, "PROMPTS", (4, 9))
    monkeypatch.setattr(kv_cache, "NEW_TOKENS", 2)
    plain, half = VARIANTS[:2]
    bundles = {
        variant: export_bundle(pico_llama, output=tmp_path / variant.name, kv=variant.kv, validate=False)
        for variant in (plain, half)
    }
    cells = speed(bundles, 7)
    assert [len(row) for row in cells.values()] == [4, 4]
    assert all("×" in cell for cell in cells[half]) and not any("×" in cell for cell in cells[plain])
