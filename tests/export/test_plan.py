"""What an export needs is known from shapes, and not far from what it takes."""

from pathlib import Path

import pytest
from edgepress.compress.model.weights import WeightSource
from edgepress.export.api import export_bundle
from edgepress.export.plan import export_needs

pytestmark = pytest.mark.chain


def test_disk_is_that_of_the_bundle(pico_llama: Path, tmp_path: Path) -> None:
    needs = export_needs(WeightSource.open(pico_llama), validate=False)
    bundle = export_bundle(pico_llama, output=tmp_path / "bundle", validate=False)
    taken = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    assert taken / 1.2 <= needs.disk <= 1.2 * taken
    proven = export_needs(WeightSource.open(pico_llama))
    assert proven.disk >= needs.disk and proven.memory >= needs.memory
    assert proven.multiplications > needs.multiplications == 0
