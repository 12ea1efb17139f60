"""What the original says, kept for other runs: the same result without asking, other questions kept apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.train import teacher as teacher_module
from edgepress.hashed_tree import hash_tree

pytestmark = pytest.mark.chain


TUNE = {"pass": "tune", "batch_tokens": 64, "piece_tokens": 64, "epochs": 1, "precision": "float32"}
SETTINGS: dict[str, Any] = {"samples": 24, "length": 32}


def tuned(model: Path, text: Path, output: Path, answers: Path | None, **options: Any) -> Path:
    recipe = output.with_suffix(".yaml")
    passes = [{"pass": "rtn", "scheme": "W3A16-g16"}, {**TUNE, **options}]
    recipe.write_text(yaml.safe_dump({"name": "tuned", "passes": passes}))
    return compress_model(
        str(model), recipe=str(recipe), output=output, calibration=str(text), answers=answers, **SETTINGS
    )


def test_a_later_run_asks_nothing_and_ends_with_the_same_bytes(
    pico_llama: Path, pico_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "answers"
    plain = hash_tree(tuned(pico_llama, pico_text, tmp_path / "plain", None))
    first = hash_tree(tuned(pico_llama, pico_text, tmp_path / "first", kept))
    files = set(kept.rglob("*.safetensors"))
    assert len(files) == 12
    with monkeypatch.context() as patch:
        patch.setattr(teacher_module, "ask", None)
        again = hash_tree(tuned(pico_llama, pico_text, tmp_path / "again", kept))
    assert first["model.safetensors"] == again["model.safetensors"] == plain["model.safetensors"]
    tuned(pico_llama, pico_text, tmp_path / "fewer", kept, top_k=4)
    assert len(set(kept.rglob("*.safetensors")) - files) == 12


def test_a_damaged_answer_is_asked_again(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    kept = tmp_path / "answers"
    first = hash_tree(tuned(pico_llama, pico_text, tmp_path / "first", kept))
    damaged, cut, *_ = sorted(kept.rglob("*.safetensors"))
    written = damaged.read_bytes()
    damaged.write_bytes(written[:300] + bytes([written[300] ^ 1]) + written[301:])
    cut.write_bytes(cut.read_bytes()[:-9])
    again = hash_tree(tuned(pico_llama, pico_text, tmp_path / "o", kept))
    assert damaged.read_bytes() == written
    assert again["model.safetensors"] == first["model.safetensors"]
