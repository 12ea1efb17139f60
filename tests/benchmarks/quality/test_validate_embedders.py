"""``validate`` of decoders that embed sentences: the figures of encoders, of checkpoint and bundle."""

from pathlib import Path

import pytest
from edgepress.benchmarks.lab.same_bytes.pico_embedders import save_embedder
from edgepress.benchmarks.quality.validate import validate_bundle
from edgepress.compress.api import compress_model
from edgepress.export.api import export_bundle

pytestmark = [pytest.mark.chain, pytest.mark.usefixtures("few_word_pairs")]


def test_checkpoint_and_bundle(pico_text: Path, tmp_path: Path) -> None:
    model = save_embedder(tmp_path / "m", "mistral", {"max_position_embeddings": 160, "sliding_window": 24})
    same = export_bundle(model, output=tmp_path / "same", validate=False)
    line = validate_bundle(same, model, text=pico_text)
    assert line.subject.kind == "encoder"
    assert line.metrics["cosine"].value == pytest.approx(1, abs=1e-5)
    rounded = compress_model(str(model), output=tmp_path / "o", scheme="W4A16-g32")
    bundle = export_bundle(rounded, output=tmp_path / "b", validate=False)
    cosines = [
        validate_bundle(one, model, text=pico_text).metrics["cosine"].value for one in (rounded, bundle)
    ]
    assert all(0.8 < cosine < 0.9999 for cosine in cosines)
    assert cosines[0] == pytest.approx(cosines[1], abs=5e-3)
