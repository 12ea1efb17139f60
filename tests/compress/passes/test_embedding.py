"""The pass ``embedding``: nearer than rounding to nearest under its own Hessians, and exported as it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.skeleton import Skeleton
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.numbers.table_scheme import table_scheme
from edgepress.compress.passes.embedding import Embedding
from edgepress.compress.pipeline.block_shards import Masks
from edgepress.compress.pipeline.stage import Stage
from edgepress.compress.recipe import parse
from edgepress.compress.solve.table_solving import both_hessians, table_hessians
from edgepress.compress.text.calibration import calibration_from
from edgepress.compress.text.micro_batches import MicroBatch
from edgepress.errors import RecipeError, ShapeError
from edgepress.export.api import export_bundle
from edgepress.files.storage import read_json
from edgepress.runtime.api import open_bundle
from edgepress.runtime.text.tokenizer import Tokenizer
from edgepress.terminal.progress import Silent
from torch import Tensor
from transformers import AutoModelForCausalLM

SCHEME = Scheme.parse("W3A16-g16")
STEP: dict[str, Any] = {"pass": "embedding", "scheme": SCHEME.name}


def staged(path: Path, text: Path, folder: Path) -> Stage:
    source = WeightSource.open(path)
    calibration = calibration_from(
        str(text),
        Tokenizer.open(path),
        kind="decoder",
        samples=8,
        length=32,
        vocab_size=source.anatomy.vocab_size,
    )
    device = torch.device("cpu")
    return Stage(source, source, folder, calibration, Masks(), device, Silent())


@pytest.mark.chain
def test_both_hessians_are_those_of_the_definition(
    pico_llama: Path, swept: Callable[..., dict[str, Tensor]], drawn: Callable[..., Tensor]
) -> None:
    source = WeightSource.open(pico_llama)
    anatomy, model = source.anatomy, load_model(pico_llama, cache=False)
    ids = torch.randint(3, 100, (2, 24), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 15:] = 0
    batches = [MicroBatch(0, ids[:1], mask[:1], 24), MicroBatch(1, ids[1:], mask[1:], 15)]
    with Skeleton(source, torch.device("cpu")).head() as head:
        found = swept(pico_llama, batches, both_hessians(anatomy, head))
    gram = torch.zeros(anatomy.hidden_size, anatomy.hidden_size)
    fisher, generator = gram.clone(), torch.Generator().manual_seed(3)
    for batch in batches:
        real = batch.attention_mask.bool()
        inputs = model.get_input_embeddings()(batch.input_ids).detach().requires_grad_(True)  # type: ignore
        output = model.base_model(inputs_embeds=inputs, attention_mask=batch.attention_mask)  # type: ignore
        last = output.last_hidden_state[real]
        gradient = torch.autograd.grad(last, inputs, drawn(model, anatomy, last.detach(), generator))[0]
        for row in gradient[real]:
            fisher += torch.outer(row, row)
        for state in last.detach():
            chances = torch.softmax(model.get_output_embeddings()(state), -1).detach()  # type: ignore
            gram += (1 - float(chances.square().sum())) * torch.outer(state, state)
    for name, expected in (("head_gram", gram / 39), ("embedding_fisher", fisher / 39)):
        torch.testing.assert_close(found[name], expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.chain
@pytest.mark.parametrize("tied", [True, False])
def test_rounds_nearer_than_to_nearest_and_exports_as_it_is(
    tied: bool, make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path, recipe: Callable[..., str]
) -> None:
    model = make_decoder(tmp_path / "model", tie_word_embeddings=tied)
    stage = staged(model, pico_text, tmp_path / "stage")
    wanted = table_hessians(stage, "the test")
    assert len(wanted) == (1 if tied else 2)
    made = compress_model(
        str(model),
        recipe=recipe(tmp_path, STEP),
        calibration=str(pico_text),
        samples=8,
        length=32,
        output=tmp_path / "made",
    )
    before, after = WeightSource.open(model), WeightSource.open(made)
    for name, hessian in wanted.items():
        weight, stored = before.stored(f"{name}.weight").float(), after.stored(f"{name}.weight").float()
        nearest = quantize(weight, SCHEME).dequantize()
        lost = [float(((one - weight) @ hessian * (one - weight)).sum()) for one in (stored, nearest)]
        assert lost[0] < lost[1]
        rounded: Any = after.table(name)
        assert torch.equal(rounded.dequantize(), stored)
        assert rounded.scheme == SCHEME


@pytest.mark.chain
def test_the_bundle_answers_as_the_checkpoint(
    pico_llama: Path, pico_text: Path, tmp_path: Path, recipe: Callable[..., str]
) -> None:
    made = compress_model(
        str(pico_llama),
        recipe=recipe(tmp_path, {"pass": "rtn", "scheme": "W4A16-g16"}, STEP),
        calibration=str(pico_text),
        samples=8,
        length=32,
        output=tmp_path / "made",
    )
    bundle: Any = open_bundle(export_bundle(made, output=tmp_path / "bundle", activations="float32"))
    ids = [Tokenizer.open(made).encode("the river ran under old stone bridges")]
    with torch.no_grad():
        wanted = AutoModelForCausalLM.from_pretrained(made, dtype=torch.float32)(torch.tensor(ids)).logits
    np.testing.assert_allclose(bundle.decoder.logits(np.asarray(ids)), wanted.numpy(), atol=1e-4)


@pytest.mark.chain
@pytest.mark.parametrize("tied", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_rare_tokens_get_fewer_bits_to_the_end(
    tied: bool, make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path, recipe: Callable[..., str]
) -> None:
    """In the plan, the checkpoint and a bundle, which answers as the checkpoint; with standard operators it
    is as large as one scheme for all rows makes it.
    """
    model = make_decoder(tmp_path / "model", tie_word_embeddings=tied, vocab_size=3000)
    text: dict[str, Any] = {"calibration": str(pico_text), "samples": 8, "length": 32}
    sizes = {}
    for name in ("W6A16-g16+W2A16-g32@30", "W6A16-g16"):
        steps = {"pass": "rtn", "scheme": "W4A16-g16"}, {"pass": "embedding", "scheme": name}
        plan = plan_model(str(model), recipe=recipe(tmp_path, *steps), **text)
        made = compress_model(
            str(model), recipe=recipe(tmp_path, *steps), output=tmp_path / f"made {name}", **text
        )
        source = WeightSource.open(made)
        assert source.embedding_scheme == table_scheme(name) == source.head_scheme
        for form in ("edgepress", "standard"):
            bundle = export_bundle(
                made, output=tmp_path / f"{form} {name}", operators=form, activations="float32"
            )
            manifest = read_json(bundle / "manifest.json")
            assert manifest["source"]["embedding"] == name
            sizes[form, name] = sum(file.stat().st_size for file in bundle.iterdir())
            ids = [Tokenizer.open(made).encode("the river ran under old stone bridges")]
            with torch.no_grad():
                reference = AutoModelForCausalLM.from_pretrained(made, dtype=torch.float32)
                wanted = reference(torch.tensor(ids)).logits
            found: Any = open_bundle(bundle)
            np.testing.assert_allclose(found.decoder.logits(np.asarray(ids)), wanted.numpy(), atol=1e-4)
        sizes["planned", name] = plan.bundle_bytes
    anatomy = WeightSource.open(model).anatomy
    values = (anatomy.vocab_size - 30) * anatomy.hidden_size * (1 if tied else 2)
    saved = {form: sizes[form, "W6A16-g16"] - sizes[form, name] for form, name in sizes if "+" in name}
    # Of six bits with a scale for 16 values two with one for 32, in lines that are filled up.
    assert saved["edgepress"] == pytest.approx(values * 4.5 / 8, rel=0.15)
    assert saved["planned"] == pytest.approx(saved["edgepress"], rel=0.15)
    assert abs(saved["standard"]) < 1000


def test_the_recipe_says_how_tables_are_stored_and_no_other_way() -> None:
    assert parse({"passes": [STEP]}, "here").embedding == SCHEME.name
    assert parse({"passes": [STEP], "embedding": SCHEME.name}, "here").embedding == SCHEME.name
    for key in ("embedding", "head"):
        with pytest.raises(RecipeError, match=f"'{key}' says W8A16"):
            parse({"passes": [STEP], key: "W8A16-g32"}, "here")
    other = parse({"passes": [{**STEP, "head": "W4A16-g32"}]}, "here")
    assert (other.embedding, other.head) == (SCHEME.name, "W4A16-g32")
    again = parse({"passes": [STEP]}, "here").as_dict()
    assert parse(again, "here").as_dict() == again


@pytest.mark.parametrize("scheme", ["W8A16-g32", "W4A16_ASYM-g32", "W8A8", "FP8"])
def test_schemes_that_gain_nothing_or_have_no_grid_here_are_refused(scheme: str) -> None:
    with pytest.raises(RecipeError, match="embedding"):
        parse({"passes": [{"pass": "embedding", "scheme": scheme}]}, "here")


def test_models_without_a_head_or_with_other_sizes_are_refused(pico_bert: Path, pico_llama: Path) -> None:
    step = Embedding.model_validate({"scheme": SCHEME})
    with pytest.raises(RecipeError, match="for decoders"):
        step.anatomy_after(WeightSource.open(pico_bert).anatomy)
    wide = Embedding.model_validate({"scheme": Scheme.parse("W4A16-g128")})
    with pytest.raises(ShapeError, match="do not divide"):
        wide.anatomy_after(WeightSource.open(pico_llama).anatomy)
    anatomy = WeightSource.open(pico_llama).anatomy
    for name, why in (
        (f"W4A16-g16+W3A16-g32@{anatomy.vocab_size}", "has no rows from token"),
        ("W4A16-g16+W3A16-g128@9", "groups of 128 do not divide"),
    ):
        with pytest.raises(ShapeError, match=why):
            Embedding.model_validate({"scheme": name}).anatomy_after(anatomy)
