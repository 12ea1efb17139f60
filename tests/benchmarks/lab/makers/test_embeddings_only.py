"""What an encoder says without its blocks."""

from pathlib import Path

import pytest
import torch
from edgepress.benchmarks.lab.makers import embeddings_only
from edgepress.benchmarks.lab.study.sources import Sources
from edgepress.compress.model.torch_model import load_model
from edgepress.errors import InputError

pytestmark = pytest.mark.chain


def test_what_is_left_is_the_embeddings(pico_bert: Path, tmp_path: Path) -> None:
    embeddings_only.make(tmp_path / "e", Sources(tmp_path / "s"), model=str(pico_bert))
    ids = torch.tensor([[2, 9, 17, 30, 3]])
    mask = torch.ones_like(ids)
    with torch.no_grad():
        wanted = load_model(pico_bert).embeddings(ids)  # type: ignore[operator]
        found = load_model(tmp_path / "e")(input_ids=ids, attention_mask=mask)[0]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_a_decoder_is_refused(pico_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more outside its blocks"):
        embeddings_only.make(tmp_path / "e", Sources(tmp_path / "s"), model=str(pico_llama))
