"""A model of transformers in memory is compressed to one of its class."""

from pathlib import Path

import edgepress
import pytest
import torch
from edgepress.errors import InputError
from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.mark.chain
def test_a_model_in_memory_becomes_what_its_directory_becomes(pico_llama: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(pico_llama)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = edgepress.compress(model, AutoTokenizer.from_pretrained(pico_llama), scheme="W4A16-g32")
    assert type(found) is type(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    edgepress.compress_model(str(pico_llama), scheme="W4A16-g32", output=tmp_path / "wanted")
    wanted = AutoModelForCausalLM.from_pretrained(tmp_path / "wanted")
    ids = torch.arange(20)[None]
    assert torch.equal(found(ids).logits, wanted(ids).logits)
    found.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert torch.equal(found(ids).logits, again(ids).logits)
    found.export(tmp_path / "bundle")
    opened = edgepress.Model.from_pretrained(tmp_path / "bundle")
    prompt = "hello world"
    assert opened(prompt, max_new_tokens=2)[0]["generated_text"].startswith(prompt)


def test_what_transformers_did_not_make_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        edgepress.compress(torch.nn.Linear(2, 2), scheme="W4A16")
    with pytest.raises(InputError):
        edgepress.compress(AutoModelForCausalLM, scheme="W4A16", output=tmp_path / "out")
