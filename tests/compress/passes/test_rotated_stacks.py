"""Rotations of encoder–decoders: both stacks by one matrix, the same function, and what refuses them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import InputError
from edgepress.export.api import export_bundle
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json
from edgepress.runtime.api import open_bundle
from edgepress.runtime.engine.text_to_text import TextToTextModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..conftest import Watched

pytestmark = pytest.mark.chain

Make, Recipe = Callable[..., Path], Callable[..., str]
GATED = {"feed_forward_proj": "gated-gelu"}
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("t5", {}),
    ("t5", {**GATED, "own_head": True}),
    ("mt5", {"feed_forward_proj": "gated-silu", "num_heads": 2}),
    ("mt5", {**GATED, "own_head": True, "d_model": 48}),
]


def inputs(*, hears: bool = False) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    written = torch.randint(3, 30, (3, 7), generator=generator)
    if hears:
        return {"input_features": torch.randn(3, 16, 200, generator=generator), "decoder_input_ids": written}
    mask = torch.ones(3, 40, dtype=torch.int64)
    mask[1, 5:], mask[2, 1:] = 0, 0
    ids = torch.randint(3, 30, mask.shape, generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": written}


def reference(path: Path) -> Any:
    from transformers import AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM.from_pretrained(path).eval()


@torch.no_grad()
def logits(model: Any, **options: Any) -> Tensor:
    found: Tensor = model(**inputs(**options)).logits
    return found


def unlike_norms(model: Path) -> None:
    """Give each norm scales of its own, as a trained model has them."""
    weights, generator = load_file(model / "model.safetensors"), torch.Generator().manual_seed(1)
    for name, value in weights.items():
        if "norm" in name and name.endswith("weight"):
            weights[name] = value * (0.5 + torch.rand(value.shape, generator=generator))
    save_file(weights, model / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(("family", "changes"), FORMS)
def test_the_model_computes_the_same_in_plain_transformers_too(
    family: str, changes: dict[str, Any], make_encoder_decoder: Make, tmp_path: Path, recipe: Recipe
) -> None:
    model = make_encoder_decoder(tmp_path / "m", family, **changes)
    unlike_norms(model)
    steps = recipe(tmp_path, {"pass": "rotate"}, embedding=None)
    out = compress_model(str(model), recipe=steps, output=tmp_path / "o")
    before, after = WeightSource.open(model), WeightSource.open(out)
    want = logits(load_model(model))
    for found in (load_model(out), reference(out)):
        assert float((logits(found) - want).abs().max()) < 2e-5 * float(want.abs().max())
    for linear in before.anatomy.linears():
        assert not torch.allclose(before.dense(linear.name), after.dense(linear.name), atol=1e-3)
    details = read_json(out / "edgepress.json")["steps"][0]["details"]
    assert details["untied"] == before.anatomy.tied and not after.anatomy.tied
    assert after.anatomy.logit_form is None
    norms = [name for name in after.shapes if "norm" in name]
    assert all(torch.equal(after.tensor(name), torch.ones_like(after.tensor(name))) for name in norms)


def test_a_table_that_is_stored_again_is_stored_once(
    make_encoder_decoder: Make, tmp_path: Path, recipe: Recipe
) -> None:
    model = make_encoder_decoder(tmp_path / "m")
    weights, want = load_file(model / "model.safetensors"), logits(load_model(model))
    more = {"encoder.embed_tokens.weight": weights["shared.weight"].clone()}
    save_file(weights | more, model / "model.safetensors", {"format": "pt"})
    steps = recipe(tmp_path, {"pass": "rotate"}, embedding=None)
    found = logits(reference(compress_model(str(model), recipe=steps, output=tmp_path / "o")))
    assert float((found - want).abs().max()) < 2e-5 * float(want.abs().max())


@pytest.mark.parametrize("family", ["bart", "marian", "whisper"])
def test_norms_that_keep_their_scales_leave_the_heads_of_both_attentions(
    family: str, make_encoder_decoder: Make, tmp_path: Path, recipe: Recipe
) -> None:
    model, hears = make_encoder_decoder(tmp_path / "m", family), family == "whisper"
    why = "through an activation" if hears else "normalises its embeddings|give the residual"
    with pytest.raises(InputError, match="cannot be rotated") as refused:
        compress_model(str(model), recipe=recipe(tmp_path, {"pass": "rotate"}), output=tmp_path / "whole")
    assert refused.match(why) and refused.match("residual: false")
    steps = recipe(tmp_path, {"pass": "rotate", "residual": False}, embedding=None)
    out = compress_model(str(model), recipe=steps, output=tmp_path / "o")
    want, found = (logits(load_model(path), hears=hears) for path in (model, out))
    assert float((found - want).abs().max()) < 2e-5 * float(want.abs().max())
    before, after = WeightSource.open(model), WeightSource.open(out)
    for block in before.anatomy.blocks:
        for part in (block.attention, *([] if block.cross is None else [block.cross])):
            assert not torch.allclose(before.dense(part.v.name), after.dense(part.v.name), atol=1e-3)
            assert torch.equal(before.dense(part.q.name), after.dense(part.q.name))


def test_what_is_learned_loses_less_and_a_killed_run_goes_on_with_the_same_bytes(
    make_encoder_decoder: Make,
    pico_text: Path,
    tmp_path: Path,
    recipe: Recipe,
    watched: Watched,
) -> None:
    model = make_encoder_decoder(tmp_path / "m")
    learning = {"pass": "rotate", "learn": "W4A16-g16", "steps": 10}
    steps = recipe(tmp_path, learning, {"pass": "rtn", "scheme": "W4A16-g16"})
    options: dict[str, Any] = {"recipe": steps, "calibration": str(pico_text), "samples": 8, "length": 24}
    whole = compress_model(str(model), output=tmp_path / "whole", **options)
    found = read_json(whole / "edgepress.json")["steps"]
    for first, best in found[0]["details"]["learned"].values():
        assert 0 < best < first
    assert 0 < found[1]["damage"]["kl"] < 0.5
    with watched("learning rotations", kill_at=2):
        compress_model(str(model), output=tmp_path / "o", **options)
    assert hash_tree(compress_model(str(model), output=tmp_path / "o", **options)) == hash_tree(whole)


def test_the_graphs_of_a_rotated_and_rounded_model_answer_as_torch(
    make_encoder_decoder: Make, tmp_path: Path, recipe: Recipe
) -> None:
    model = make_encoder_decoder(tmp_path / "m")
    unlike_norms(model)
    rounding = {"pass": "rtn", "scheme": "W4A16-g32"}
    steps = recipe(tmp_path, {"pass": "rotate"}, rounding, embedding=None)
    out = compress_model(str(model), recipe=steps, output=tmp_path / "o")
    bundle = export_bundle(out, output=tmp_path / "b", activations="float32")
    assert read_json(bundle / "manifest.json")["parity"]["status"] == "passed"
    answering, torch_model = open_bundle(bundle), load_model(out)
    assert isinstance(answering, TextToTextModel)
    rows = ["the river", "a word and another word under the old bridges"]
    ids = [torch.tensor([answering.input_ids(row)]) for row in rows]
    want = [
        torch_model.generate(one, max_new_tokens=8, do_sample=False, num_beams=1)[0, 1:].tolist()
        for one in ids
    ]
    replies = answering.generate_batch(rows, max_new_tokens=8)
    assert [list(reply.token_ids) for reply in replies] == want
