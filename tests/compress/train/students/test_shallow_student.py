"""A student cut from an encoder–decoder: which layers, and that they are the teacher's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.train.students.shallow_student import evenly_spaced, shallow_anatomy, shallow_source
from edgepress.errors import RecipeError
from torch import nn


def test_layers_are_spread_as_in_the_paper() -> None:
    assert evenly_spaced(12, 6) == [0, 2, 4, 7, 9, 11]
    assert evenly_spaced(12, 3) == [0, 6, 11]
    assert evenly_spaced(12, 1) == [0]
    assert evenly_spaced(6, 3) == [0, 2, 5]
    assert all(evenly_spaced(count, count) == list(range(count)) for count in range(1, 30))
    for count in range(1, 30):
        for kept in range(1, count):
            chosen = evenly_spaced(count, kept)
            assert len(set(chosen)) == kept and chosen == sorted(chosen) and chosen[0] == 0


@pytest.mark.parametrize("own_head", [False, True])
def test_the_student_is_the_teacher_without_the_other_layers(
    own_head: bool, make_encoder_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForSeq2SeqLM

    path = make_encoder_decoder(tmp_path / "m", own_head=own_head, num_layers=4, num_decoder_layers=3)
    teacher = WeightSource.open(path)
    student = shallow_source(teacher, (2, 2), tmp_path)
    assert student.anatomy == shallow_anatomy(teacher.anatomy, (2, 2))
    whole = load_model(path)
    for stack, chosen in ((whole.encoder, (0, 3)), (whole.decoder, (0, 2))):
        stack.block = nn.ModuleList([stack.block[index] for index in chosen])
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = whole(input_ids=ids, decoder_input_ids=ids, use_cache=False).logits
        for model in (
            load_model(student.reader.path),
            AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "student"),
        ):
            assert (model.config.num_layers, model.config.num_decoder_layers) == (2, 2)
            assert torch.equal(model(input_ids=ids, decoder_input_ids=ids).logits, expected)
    assert (tmp_path / "student" / "tokenizer.json").is_file()


def test_what_cannot_be_cut_is_refused(pico_t5: Path, pico_llama: Path, pico_bert: Path) -> None:
    with pytest.raises(RecipeError, match=r"\[3, 2\]"):
        shallow_anatomy(WeightSource.open(pico_t5).anatomy, (3, 3))
    for path in (pico_llama, pico_bert):
        with pytest.raises(RecipeError, match="student_layers are those of an encoder–decoder"):
            shallow_anatomy(WeightSource.open(path).anatomy, (1, 1))
