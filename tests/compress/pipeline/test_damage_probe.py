"""The damage of each step, against whole models in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.pipeline.damage_probe import TOKENS, probe_rows
from edgepress.compress.text.calibration import calibration_from
from edgepress.runtime.text.tokenizer import Tokenizer
from edgepress.storage import read_json

pytestmark = pytest.mark.chain


RECIPE = """
passes:
  - {pass: magnitude, sparsity: 0.3}
  - {pass: gptq, scheme: W4A16-g32}
  - {pass: w8a8, targets: [up]}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "r.yaml"
    path.write_text(RECIPE)
    return path


def test_damage_of_the_last_step_is_that_of_the_finished_model(
    pico_llama: Path, pico_text: Path, recipe: Path, tmp_path: Path
) -> None:
    size = {"samples": 12, "length": 32}
    out = compress_model(
        str(pico_llama), recipe=str(recipe), output=tmp_path / "o", calibration=str(pico_text), **size
    )
    damage = [step["damage"] for step in read_json(out / "edgepress.json")["steps"]]
    calibration = calibration_from(
        str(pico_text), Tokenizer.open(pico_llama), kind="decoder", batch_size=64, **size
    )
    ids = calibration.batches[0].input_ids[: damage[0]["tokens"] // 32]
    with torch.no_grad():
        original, small = (torch.log_softmax(load_model(path)(ids).logits, -1) for path in (pico_llama, out))
    kl = float((original.exp() * (original - small)).sum(-1).mean())
    assert damage[-1]["kl"] == pytest.approx(kl, rel=1e-3)
    assert damage[-1]["top1"] == pytest.approx(
        float((original.argmax(-1) == small.argmax(-1)).float().mean())
    )
    assert 0 < damage[0]["kl"] < damage[1]["kl"]


def test_encoders_are_told_apart_by_the_distance_of_their_states(
    pico_bert: Path, pico_text: Path, tmp_path: Path
) -> None:
    paths = [
        compress_model(
            str(pico_bert), scheme=scheme, output=tmp_path / scheme, calibration=str(pico_text), samples=12
        )
        for scheme in ("W2A16-g32", "W8A16-g32")
    ]
    two, eight = (read_json(path / "edgepress.json")["steps"][0]["damage"]["distance"] for path in paths)
    assert 0 <= eight < two


@pytest.mark.parametrize(("rows", "length"), [(1, 2048), (4, 512), (8, 64), (64, 8)])
def test_a_probe_is_short_but_never_empty(rows: int, length: int) -> None:
    from edgepress.compress.text.token_batch import TokenBatch

    ids = torch.zeros(rows, length, dtype=torch.int64)
    count = probe_rows(TokenBatch(ids, torch.ones_like(ids)))
    assert 1 <= count <= rows and (count == 1 or count * length <= TOKENS)
