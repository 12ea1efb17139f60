"""What the original says, kept for other runs: the same result without asking, other questions kept apart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.compress.text.token_batch import TokenBatch
from edgepress.compress.train import teacher as teacher_module
from edgepress.compress.train.losses.objective import Objective, ask, objective_for
from edgepress.compress.train.losses.sequence_terms import SequenceCrossEntropy
from edgepress.compress.train.teacher import CachedTeacher
from edgepress.files.hashed_tree import hash_tree
from edgepress.terminal.progress import Silent

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


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_an_encoder_decoder_says_what_it_does_whole(
    family: str, make_encoder_decoder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its blocks are read as they run, but where it writes, which would read them for each token."""
    path = make_encoder_decoder(tmp_path / "m", family)
    generator = torch.Generator().manual_seed(0)
    ids, written = (torch.randint(3, 30, (2, length), generator=generator) for length in (9, 6))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    batch = MicroBatch(0, ids, mask, int(mask.sum()), answers=TokenBatch(written, torch.ones_like(written)))
    held: list[bool] = []
    original = teacher_module.ask

    def watched(objective: Objective, model: Any, *rest: Any) -> Any:
        held.append(not any(parameter.is_meta for parameter in model.parameters()))
        return original(objective, model, *rest)

    monkeypatch.setattr(teacher_module, "ask", watched)
    reads = objective_for(WeightSource.open(path).anatomy, 1_000_000)
    writes = Objective(((1.0, SequenceCrossEntropy(1, 8)),))
    for number, objective in enumerate((reads, writes)):
        teacher = CachedTeacher(path, tmp_path / str(number), objective, torch.device("cpu"))
        teacher.prepare([batch], Silent())
        expected = ask(objective, load_model(path), batch, torch.device("cpu"))
        for name, found in teacher.answers(batch).items():
            torch.testing.assert_close(found, expected[name], rtol=1e-5, atol=1e-5)
    assert held == [False, True]
