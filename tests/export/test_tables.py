"""An embedding and a head of its own, each with a scheme: from the recipe into the bundle."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.errors import RecipeError
from edgepress.export.api import export_bundle
from edgepress.files.storage import read_json
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine.decoder import Decoder

pytestmark = pytest.mark.chain

IDS = np.random.default_rng(0).integers(3, 200, size=(1, 24))


@pytest.mark.parametrize("form", ["edgepress", "standard"])
@pytest.mark.parametrize("head", ["W4A16-g32", "W3A16-g32", None])
def test_embedding_and_head_have_a_scheme_each(
    head: str | None, form: str, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_decoder(tmp_path / "m", tie_word_embeddings=False)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "passes: [{pass: rtn, scheme: W8A16-g32}]\nembedding: W8A16-g32\n" + f"head: {head or 'null'}\n"
    )
    out = compress_model(str(model), recipe=str(recipe), output=tmp_path / "o")
    source = WeightSource.open(out)
    table, last = source.table(source.anatomy.embedding), source.table(str(source.anatomy.head))
    assert isinstance(table, QTensor) and table.scheme.name == "W8A16-g32"
    assert (last.scheme.name if isinstance(last, QTensor) else None) == head
    bundle = export_bundle(out, output=tmp_path / "b", operators=form, activations="float32")
    assert read_json(bundle / "manifest.json")["source"]["head"] == head
    with torch.no_grad():
        wanted = load_model(out, embedding=True)(torch.from_numpy(IDS)).logits.numpy()
    found = Decoder.open(Bundle.open(bundle), 1).logits(IDS)
    assert np.abs(found - wanted).max() < 0.005 * np.abs(wanted).max()


def test_a_head_that_is_the_embedding_has_no_scheme_of_its_own(
    pico_llama: Path, pico_bert: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("passes: [{pass: rtn, scheme: W8A16-g32}]\nhead: W4A16-g32\n")
    for model, why in ((pico_llama, "tied"), (pico_bert, "no head")):
        with pytest.raises(RecipeError) as refused:
            plan_model(str(model), recipe=str(recipe))
        assert why in refused.value.why
