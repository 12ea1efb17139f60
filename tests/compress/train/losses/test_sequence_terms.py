"""Sequence-level distillation: the answers and the loss against transformers' own, and the gradient."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.compress.text.token_batch import TokenBatch
from edgepress.compress.train.losses.objective import Objective, ask, learn_from, objective_for, total_loss
from edgepress.compress.train.losses.sequence_terms import SequenceCrossEntropy
from edgepress.errors import CheckpointError
from edgepress.files.storage import read_json, write_json
from torch import Tensor

pytestmark = pytest.mark.chain


CPU = torch.device("cpu")
LENGTHS = (14, 6, 1, 9)
WRITTEN = 10
GATED = {"feed_forward_proj": "gated-gelu", "own_head": True}
FORMS: list[tuple[str, dict[str, Any]]] = [("t5", {}), ("t5", GATED), ("mt5", GATED)]


def batch() -> MicroBatch:
    ids = torch.randint(3, 30, (4, max(LENGTHS)), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    return MicroBatch(0, ids, mask, int(mask.sum()))


def changed(model: Any) -> Any:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator)
    return model


def transformers_model(path: Path) -> Any:
    from transformers import AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM.from_pretrained(path).eval()


def alone(path: Path, asked: MicroBatch, beams: int, **settings: Any) -> list[list[int]]:
    """What transformers writes for each source by itself, without the start and without padding."""
    model, rows = transformers_model(path), []
    for row, length in enumerate(LENGTHS):
        ids = model.generate(
            asked.input_ids[row : row + 1, :length],
            num_beams=beams,
            max_new_tokens=WRITTEN,
            max_length=None,
            do_sample=False,
            **settings,
        )
        rows.append(ids[0, 1:].tolist())
    return rows


def with_ends(path: Path, folder: Path, asked: MicroBatch, beams: int) -> Path:
    """The model at ``path``, ended by a token with which its answers have several lengths."""
    shutil.copytree(path, folder)
    settings = read_json(path / "generation_config.json")
    for end in sorted({token for row in alone(path, asked, beams) for token in row}):
        write_json(
            folder / "generation_config.json", settings | {"eos_token_id": [end, 1], "do_sample": True}
        )
        lengths = {len(row) for row in alone(folder, asked, beams)}
        if len(lengths) > 1:
            return folder
    raise AssertionError("no token ends the answers at several places")


def objective(beams: int) -> Objective:
    return Objective(((1.0, SequenceCrossEntropy(beams, WRITTEN)),))


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(("model_type", "changes"), FORMS)
def test_answers_are_what_transformers_writes(
    model_type: str,
    changes: dict[str, Any],
    beams: int,
    make_encoder_decoder: Callable[..., Path],
    tmp_path: Path,
) -> None:
    asked = batch()
    path = with_ends(
        make_encoder_decoder(tmp_path / "m", model_type, **changes), tmp_path / "e", asked, beams
    )
    answers = ask(objective(beams), load_model(path), asked, CPU)
    assert answers.keys() == {"sequence.labels"} and answers["sequence.labels"].dtype == torch.int32
    expected = alone(path, asked, beams)
    longest = max(map(len, expected))
    padded = [row + [-1] * (longest - len(row)) for row in expected]
    assert answers["sequence.labels"].tolist() == padded


def given_answers() -> dict[str, Tensor]:
    labels = torch.randint(3, 30, (4, 8), generator=torch.Generator().manual_seed(3))
    for row, length in enumerate((8, 3, 1, 5)):
        labels[row, length - 1], labels[row, length:] = 1, -1
    return {"sequence.labels": labels.to(torch.int32)}


def transformers_loss(model: Any, asked: MicroBatch, answers: dict[str, Tensor]) -> Tensor:
    labels = answers["sequence.labels"].long()
    loss: Tensor = model(
        input_ids=asked.input_ids,
        attention_mask=asked.attention_mask,
        labels=labels.masked_fill(labels < 0, -100),
        use_cache=False,
    ).loss
    return loss


@pytest.mark.parametrize(("model_type", "changes"), FORMS)
def test_the_loss_is_transformers_own(
    model_type: str, changes: dict[str, Any], make_encoder_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    path, asked, answers = make_encoder_decoder(tmp_path, model_type, **changes), batch(), given_answers()
    found = total_loss(objective(1), changed(load_model(path)), asked, answers, CPU)
    model = changed(transformers_model(path))
    with torch.no_grad():
        whole = float(transformers_loss(model, asked, answers))
        assert found == pytest.approx(whole * asked.tokens, rel=1e-5)
        lost, counted = 0.0, 0
        for row, length in enumerate(LENGTHS):  # each answer token by token, without any padding
            labels = [token for token in answers["sequence.labels"][row].tolist() if token >= 0]
            source = asked.input_ids[row : row + 1, :length]
            for place, token in enumerate(labels):
                logits = model(source, decoder_input_ids=torch.tensor([[0, *labels[:place]]])).logits[0, -1]
                lost -= float(logits.log_softmax(-1)[token])
                counted += 1
    assert found == pytest.approx(lost / counted * asked.tokens, rel=1e-4)


@pytest.mark.parametrize(("model_type", "changes"), FORMS)
def test_the_gradient_is_that_of_the_whole_model(
    model_type: str, changes: dict[str, Any], make_encoder_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    path, asked, answers = make_encoder_decoder(tmp_path, model_type, **changes), batch(), given_answers()
    student = changed(load_model(path)).requires_grad_(True)
    loss = learn_from(objective(1), student, asked, answers, 0.5, CPU)
    found = {name: parameter.grad.clone() for name, parameter in student.named_parameters()}
    student.zero_grad()
    expected = transformers_loss(student, asked, answers) * asked.tokens
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    (0.5 * expected).backward()
    for name, parameter in student.named_parameters():
        scale = float(parameter.grad.abs().max())
        assert scale > 0
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-4 * scale)


def test_rows_without_a_token_have_no_answer(pico_t5: Path) -> None:
    asked, model = batch(), load_model(pico_t5)
    ids = torch.cat([asked.input_ids[:2], torch.zeros_like(asked.input_ids[:1]), asked.input_ids[2:]])
    mask = torch.cat([asked.attention_mask[:2], torch.zeros_like(ids[:1]), asked.attention_mask[2:]])
    wider = MicroBatch(0, ids, mask, asked.tokens)
    answers = [ask(objective(1), model, one, CPU) for one in (asked, wider)]
    assert torch.equal(answers[0]["sequence.labels"], answers[1]["sequence.labels"])
    losses = [total_loss(objective(1), model, one, answers[0], CPU) for one in (asked, wider)]
    assert losses[0] == pytest.approx(losses[1])


def test_a_model_that_does_not_say_how_answers_begin(
    make_encoder_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_encoder_decoder(tmp_path / "m", decoder_start_token_id=None)
    with pytest.raises(CheckpointError, match="begin with") as refused:
        ask(objective(1), load_model(path), batch(), CPU)
    assert "decoder_start_token_id" in refused.value.fix


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_distributions_on_the_targets_are_compared_as_transformers_has_them(
    family: str, make_encoder_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    path, asked = make_encoder_decoder(tmp_path, family), batch()
    ids = torch.randint(3, 30, (4, 7), generator=torch.Generator().manual_seed(3))
    real = torch.arange(7) < torch.tensor([7, 2, 5, 1])[:, None]
    asked = replace(asked, answers=TokenBatch(ids, real.long()))
    teacher, student = load_model(path), changed(load_model(path))
    objective = objective_for(WeightSource.open(path).anatomy, top_k=1000)
    given = {
        "input_ids": asked.input_ids,
        "attention_mask": asked.attention_mask,
        "decoder_input_ids": torch.cat([torch.zeros(4, 1, dtype=torch.int64), ids[:, :-1]], 1),
    }
    with torch.no_grad():
        theirs, mine = (
            model(**given).logits[real].log_softmax(-1)
            for model in (transformers_model(path), changed(transformers_model(path)))
        )
    expected = float((theirs.exp() * (theirs - mine)).sum()) * asked.tokens / int(real.sum())
    answers = ask(objective, teacher, asked, CPU)
    assert total_loss(objective, student, asked, answers, CPU) == pytest.approx(expected, rel=1e-4)
    student.requires_grad_(True)
    assert learn_from(objective, student, asked, answers, 1.0, CPU) == pytest.approx(expected, rel=1e-4)
    inner = student if family == "t5" else student.model
    for stack in (inner.encoder, inner.decoder):
        assert all(bool(parameter.grad.any()) for parameter in stack.parameters() if parameter.ndim == 2)
