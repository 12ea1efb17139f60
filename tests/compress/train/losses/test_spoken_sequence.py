"""Sequence-level distillation of models that hear: the answers are transformers' own, and students learn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.hearing.speech_prompt import speech_prompt
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.compress.train.losses.objective import Objective, ask, total_loss
from edgepress.compress.train.losses.sequence_terms import SpokenSequence
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json

from ....conftest import spoken_settings
from ...conftest import Watched

pytestmark = pytest.mark.chain

CPU = torch.device("cpu")
NEW = 20
SETTINGS: list[dict[str, Any] | None] = [
    None,
    {"is_multilingual": False, **dict.fromkeys(("lang_to_id", "task_to_id", "forced_decoder_ids"))},
    {"language": "german", "task": "translate"},
]


def heard_sounds() -> MicroBatch:
    read = torch.randn(3, 16, 200, generator=torch.Generator().manual_seed(4))
    return MicroBatch(0, read, torch.ones(3, 100, dtype=torch.int64), 300)


def objective(path: Path, beams: int) -> Objective:
    source = WeightSource.open(path)
    prompt = speech_prompt(path, source.reader.config, source.anatomy.vocab_size)
    return Objective(((1.0, SpokenSequence(beams, NEW, prompt, source.anatomy.max_positions)),))


def theirs(path: Path, read: torch.Tensor, beams: int) -> list[int]:
    """What transformers writes of a sound by itself, the end with it."""
    from transformers import AutoModelForSpeechSeq2Seq

    model: Any = AutoModelForSpeechSeq2Seq.from_pretrained(path).eval()
    found: list[int] = model.generate(read[None], max_new_tokens=NEW, do_sample=False, num_beams=beams)[
        0
    ].tolist()
    return found if len(found) == NEW else [*found, spoken_settings()["eos_token_id"]]


def until(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("settings", SETTINGS, ids=["open", "english", "german"])
def test_answers_are_what_transformers_writes_and_the_loss_is_theirs(
    settings: dict[str, Any] | None, beams: int, make_whisper: Callable[..., Path], tmp_path: Path
) -> None:
    path, batch = make_whisper(tmp_path / "m", settings=settings), heard_sounds()
    wanted, model = objective(path, beams), load_model(path)
    answers = ask(wanted, model, batch, CPU)
    given, labels = answers["sequence.given"].long(), answers["sequence.labels"].long()
    source, end = WeightSource.open(path), spoken_settings()["eos_token_id"]
    places = speech_prompt(path, source.reader.config, source.anatomy.vocab_size).places
    assert given.shape == labels.shape and given.shape[1] <= len(places) + NEW
    for read, row in zip(batch.input_ids, labels.tolist(), strict=True):
        answer = [token for token in row[len(places) :] if token >= 0]
        assert answer == until(theirs(path, read, beams), end)
    for number, place in enumerate(places):
        assert all(one in place for one in given[:, number + 1].tolist())
        alone = labels[:, number].tolist()
        assert alone == (given[:, number + 1].tolist() if len(place) > 1 else [-1] * len(alone))
    with torch.no_grad():
        logits = model(input_features=batch.input_ids, decoder_input_ids=given).logits  # type: ignore[operator]
    chances = torch.log_softmax(logits, -1).gather(-1, labels.clamp_min(0)[..., None])[..., 0]
    expected = -chances[labels >= 0].mean() * batch.tokens
    assert total_loss(wanted, model, batch, answers, CPU) == pytest.approx(float(expected), rel=1e-5)


LEARN: dict[str, Any] = {
    "pass": "distill",
    "student_layers": [2, 1],
    "beams": 2,
    "answer_tokens": 8,
    "training": {"epochs": 4, "learning_rate": 0.01, "precision": "float32", "micro_batch_tokens": 256},
}


def test_a_cut_student_writes_more_like_its_teacher_also_after_a_kill(
    pico_whisper: Path,
    pico_sounds: Path,
    tmp_path: Path,
    recipe: Callable[..., str],
    watched: Watched,
) -> None:
    from transformers import AutoModelForSpeechSeq2Seq

    steps = recipe(tmp_path, LEARN, embedding=None)
    options: dict[str, Any] = {"recipe": steps, "calibration": str(pico_sounds), "samples": 12}
    whole = compress_model(str(pico_whisper), output=tmp_path / "whole", **options)
    details = read_json(whole / "edgepress.json")["steps"][0]["details"]
    losses = [loss for _, loss in details["held_out"]]
    assert details["measure"] == "sequence" and min(losses) < 0.95 * losses[0]
    assert WeightSource.open(whole).anatomy.layers() == (2, 1)
    batch = heard_sounds()
    given = {"input_features": batch.input_ids, "decoder_input_ids": torch.tensor([[33, 3, 5]] * 3)}
    with torch.no_grad():
        plain = AutoModelForSpeechSeq2Seq.from_pretrained(whole).eval()(**given).logits
        assert torch.allclose(load_model(whole)(**given).logits, plain, atol=1e-5)
    with watched("learning", kill_at=3):
        compress_model(str(pico_whisper), output=tmp_path / "o", **options)
    assert hash_tree(compress_model(str(pico_whisper), output=tmp_path / "o", **options)) == hash_tree(whole)
