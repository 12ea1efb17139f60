"""Encoder–decoders that lose layers, heads and channels: what goes in each stack, and what the result is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from edgepress.cli.program import edgepress
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.checkpoint.block_sizes import layer_counts
from edgepress.compress.model.hearing.speech_prompt import renumbered
from edgepress.compress.model.opens_in import opens_in_transformers
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.prune.structured.budget import BlockPart
from edgepress.compress.prune.structured.units import ChannelUnits, HeadUnits
from edgepress.compress.prune.structured.widths import shared_units, tables_of
from edgepress.compress.text.calibration import calibration_from
from edgepress.compress.text.token_batch import TokenBatch
from edgepress.errors import RecipeError
from edgepress.export.api import export_bundle
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json, write_json
from edgepress.runtime.api import open_bundle
from edgepress.runtime.text.tokenizer import Tokenizer
from torch import Tensor, nn

from ..conftest import Watched

pytestmark = pytest.mark.chain

Make = Callable[..., Path]
Recipe = Callable[..., str]
UNREPAIRED = {"widths": "uniform", "repair": "none", "multiple": 16}


def pruned(model: Path, recipe: str, text: Path, output: Path) -> Path:
    options: dict[str, Any] = {"calibration": str(text), "samples": 8}
    options |= {} if text.is_dir() else {"length": 24}
    return compress_model(str(model), recipe=recipe, output=output, **options)


def logits(model: Any) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, 5:] = 0
    given: dict[str, Any] = {"decoder_input_ids": torch.randint(3, 30, (2, 7), generator=generator)}
    if model.config.model_type == "whisper":
        given["input_features"] = torch.randn(2, 16, 200, generator=generator)
    else:
        given["input_ids"] = torch.randint(3, 30, (2, 9), generator=generator)
        given["attention_mask"] = mask
    with torch.no_grad():
        found: Tensor = model(**given).logits
    return found


def plain(path: Path) -> Any:
    from transformers import AutoModelForSeq2SeqLM, AutoModelForSpeechSeq2Seq

    hears = read_json(path / "config.json")["model_type"] == "whisper"
    loader = AutoModelForSpeechSeq2Seq if hears else AutoModelForSeq2SeqLM
    return loader.from_pretrained(path).eval()


def blocks_of(model: Any) -> tuple[nn.ModuleList, nn.ModuleList]:
    inner = model if hasattr(model, "encoder") else model.model
    encoder, decoder = inner.encoder, inner.decoder
    return (encoder.block, decoder.block) if hasattr(encoder, "block") else (encoder.layers, decoder.layers)


def shortened(path: Path, removed: list[int]) -> Any:
    """transformers' model without the blocks ``removed``; a table of biases moves to the first that stays."""
    model, number = plain(path), 0
    for blocks in blocks_of(model):
        stays = [index for index in range(len(blocks)) if number + index not in removed]
        number += len(blocks)
        table = (
            getattr(getattr(blocks[0].layer[0], "SelfAttention", None), "relative_attention_bias", None)
            if hasattr(blocks[0], "layer")
            else None
        )
        kept = [blocks[index] for index in stays]
        if table is not None:
            first = kept[0].layer[0].SelfAttention
            first.relative_attention_bias, first.has_relative_attention_bias = table, True
        del blocks[:]
        blocks.extend(kept)
    return model


CUTS: list[tuple[str, dict[str, Any]]] = [
    ("t5", {"keep": 0.5}),
    ("t5", {"keep": 0.75, "criterion": "contiguous", "stacks": "encoder"}),
    ("bart", {"keep": 0.6, "criterion": "greedy"}),
    ("marian", {"keep": 0.75, "stacks": "decoder"}),
    ("whisper", {"keep": 0.6}),
]


@pytest.mark.parametrize(("family", "step"), CUTS)
def test_without_a_repair_it_is_the_original_without_some_blocks_of_each_stack(
    family: str,
    step: dict[str, Any],
    make_encoder_decoder: Make,
    pico_text: Path,
    pico_sounds: Path,
    tmp_path: Path,
    recipe: Recipe,
) -> None:
    model = make_encoder_decoder(tmp_path / "m", family)
    text = pico_sounds if family == "whisper" else pico_text
    out = pruned(model, recipe(tmp_path, {"pass": "layers", "repair": "none", **step}), text, tmp_path / "o")
    source, removed = (
        WeightSource.open(out),
        read_json(out / "edgepress.json")["steps"][0]["details"]["removed"],
    )
    layers = [3 - sum(n < 3 for n in removed), 2 - sum(n >= 3 for n in removed)]
    assert list(source.anatomy.layers()) == layers and min(layers) >= 1 and removed
    stack = step.get("stacks")
    assert stack is None or all((n < 3) == (stack == "encoder") for n in removed)
    assert torch.equal(logits(plain(out)), logits(shortened(model, removed)))
    assert torch.equal(logits(load_model(out)), logits(plain(out)))
    assert opens_in_transformers(source).answer == "yes"


def states_of(path: Path, batch: TokenBatch) -> list[tuple[Tensor, Tensor]]:
    """By block the real tokens' states before it and behind it, in transformers."""
    model, found = plain(path), list[tuple[Tensor, Tensor]]()
    written, start = batch.written(), model.config.decoder_start_token_id
    masks = [batch.attention_mask.bool(), written.attention_mask.bool()]
    for blocks, mask in zip(blocks_of(model), masks, strict=True):
        for block in blocks:

            def keep(_: object, inputs: Any, output: Any, mask: Tensor = mask) -> None:
                output = output[0] if isinstance(output, tuple) else output
                found.append((inputs[0][mask], output[mask]))

            block.register_forward_hook(keep)
    given = torch.cat([torch.full((len(written.input_ids), 1), start), written.input_ids[:, :-1]], 1)
    with torch.no_grad():
        model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, decoder_input_ids=given)
    return found


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_each_block_is_scored_by_the_states_of_its_stack_and_the_repair_brings_them_closer(
    family: str, make_encoder_decoder: Make, pico_text: Path, tmp_path: Path, recipe: Recipe
) -> None:
    model, paths = make_encoder_decoder(tmp_path / "m", family), dict[str, Path]()
    for repair in ("none", "least_squares"):
        step = {
            "pass": "layers",
            "keep": 0.85,
            "repair": repair,
            "stacks": "encoder",
            "criterion": "contiguous",
        }
        paths[repair] = pruned(model, recipe(tmp_path, step), pico_text, tmp_path / repair)
    text = Tokenizer.open(model)
    calibration = calibration_from(
        str(pico_text), text, kind="encoder_decoder", batch_size=8, samples=8, length=24
    )
    (batch,) = calibration.batches
    states = states_of(model, batch)
    expected = [1 - float(torch.cosine_similarity(*pair, -1).mean()) for pair in states[:3]]
    details = read_json(paths["none"] / "edgepress.json")["steps"][0]["details"]
    assert details["scores"] == pytest.approx(expected, abs=1e-5)
    assert details["removed"] == [expected.index(min(expected))]
    wanted = states[2][1]
    apart = {name: float((states_of(path, batch)[1][1] - wanted).norm()) for name, path in paths.items()}
    assert apart["least_squares"] < apart["none"] or details["removed"] == [0]


def without(model: Path, source: WeightSource) -> Any:
    """The original with the columns of down and o at zero that ``source``, unrepaired, lacks."""
    module, original = load_model(model), WeightSource.open(model)
    from edgepress.compress.model.anatomy import module_name

    for before, after in zip(original.anatomy.linears(), source.anatomy.linears(), strict=True):
        if before.role in ("o", "down") and after.in_features < before.in_features:
            whole, left = original.dense(before.name), source.dense(after.name)
            stays = (whole.T.unsqueeze(1) == left.T.unsqueeze(0)).all(-1).any(1)
            assert int(stays.sum()) == after.in_features
            module.get_submodule(module_name(original.anatomy, before.name)).weight.mul_(stays)  # type: ignore[operator]
    return module


NARROW: list[tuple[str, dict[str, Any], str]] = [
    ("t5", {"keep": 0.7, "importance": "taylor"}, "yes"),
    ("t5", {"keep": 0.85, "parts": ["mlp"], "targets": ["encoder.*"]}, "no"),
    ("bart", {"keep": 0.8, "parts": ["mlp"]}, "yes"),
    ("bart", {"keep": 0.7}, "no"),
    ("whisper", {"keep": 0.7, "importance": "magnitude"}, "no"),
]


@pytest.mark.parametrize(("family", "step", "opens"), NARROW)
def test_what_is_cut_of_both_stacks_is_what_no_longer_counts(
    family: str,
    step: dict[str, Any],
    opens: str,
    make_encoder_decoder: Make,
    pico_text: Path,
    pico_sounds: Path,
    tmp_path: Path,
    recipe: Recipe,
) -> None:
    model = make_encoder_decoder(tmp_path / "m", family)
    text = pico_sounds if family == "whisper" else pico_text
    steps = recipe(tmp_path, {"pass": "narrow", **UNREPAIRED, **step})
    source = WeightSource.open(pruned(model, steps, text, tmp_path / "o"))
    heads = {
        (part.heads, block.cross is None) for block in source.anatomy.blocks for part in block.attentions()
    }
    assert len(heads) == 2 and (heads != {(4, True), (2 if family != "t5" else 4, False)}) == (
        "parts" not in step
    )
    ours = logits(load_model(tmp_path / "o"))
    assert torch.allclose(ours, logits(without(model, source)), atol=2e-5)
    assert opens_in_transformers(source).answer == opens
    if opens == "yes":
        assert torch.equal(ours, logits(plain(tmp_path / "o")))


def test_heads_under_one_table_go_together_by_the_sum_of_their_losses(
    make_encoder_decoder: Make, pico_text: Path, tmp_path: Path, recipe: Recipe
) -> None:
    model = make_encoder_decoder(tmp_path / "m", "t5")
    anatomy = WeightSource.open(model).anatomy
    items = [BlockPart(block, HeadUnits("groups")) for block in anatomy.blocks]
    generator = torch.Generator().manual_seed(0)
    losses = {item.part.reader(item.block).name: torch.rand(4, generator=generator) for item in items}
    found = shared_units(anatomy, items, {item.key: 2 for item in items}, losses)
    for stack in ("encoder", "decoder"):
        mine = {name: loss for name, loss in losses.items() if name.startswith(stack)}
        total = [sum(float(loss[head]) for loss in mine.values()) for head in range(4)]
        best = sorted(sorted(range(4), key=lambda head: -total[head])[:2])
        assert [found[name].tolist() for name in mine] == [best] * len(mine)
    step = {"pass": "heads", "keep": 0.75, "widths": "uniform", "importance": "taylor", "repair": "none"}
    after = WeightSource.open(pruned(model, recipe(tmp_path, step), pico_text, tmp_path / "o"))
    before = WeightSource.open(model)
    for start, table in tables_of(anatomy).items():
        whole, left = before.tensor(table), after.tensor(table)
        stays = [head for head in range(4) if any(torch.equal(whole[:, head], one) for one in left.T)]
        assert left.shape == (32, len(stays)) and len(stays) == 2
        rows = torch.cat([torch.arange(8) + 8 * head for head in stays])
        for block in anatomy.blocks[start : start + 3 - (start > 0)]:
            assert torch.equal(
                after.dense(block.attention.q.name), before.dense(block.attention.q.name)[rows]
            )


CHAINS: list[Any] = [
    pytest.param("t5", [{"pass": "layers", "keep": 0.6}], marks=pytest.mark.slow),
    ("t5", [{"pass": "narrow", "keep": 0.7, "widths": "uniform", "importance": "taylor", "multiple": 16}]),
    ("bart", [{"pass": "narrow", "keep": 0.7, "multiple": 16}, {"pass": "rtn", "scheme": "W8A8"}]),
    pytest.param(
        "marian",
        [{"pass": "layers", "keep": 0.6}, {"pass": "ffn", "keep": 0.8, "multiple": 32}],
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("family", "steps"), CHAINS)
def test_the_result_is_exported_proven_and_answers_as_it_does_in_torch(
    family: str,
    steps: list[dict[str, Any]],
    make_encoder_decoder: Make,
    pico_text: Path,
    tmp_path: Path,
    recipe: Recipe,
) -> None:
    model = make_encoder_decoder(tmp_path / "m", family)
    out = pruned(model, recipe(tmp_path, *steps), pico_text, tmp_path / "o")
    bundle = export_bundle(out, output=tmp_path / "b")
    assert read_json(bundle / "manifest.json")["parity"]["status"] == "passed"
    words = ["generate", str(bundle), "--input", "the river", "--max-new-tokens", "6", "--json"]
    said = json.loads(CliRunner().invoke(edgepress, words).stdout)["token_ids"]
    if steps[-1]["pass"] != "rtn":
        opened: Any = open_bundle(bundle)
        ids = torch.tensor([opened.input_ids("the river")])
        want = load_model(out).generate(ids, max_new_tokens=6, do_sample=False, num_beams=1)  # type: ignore[operator]
        assert said == want[0, 1:].tolist()


def test_a_whisper_that_lost_layers_and_heads_is_exported_and_writes(
    pico_whisper: Path, pico_sounds: Path, tmp_path: Path, recipe: Recipe
) -> None:
    steps = {"pass": "layers", "keep": 0.8}, {"pass": "narrow", "keep": 0.7, "multiple": 16}
    out = pruned(pico_whisper, recipe(tmp_path, *steps), pico_sounds, tmp_path / "o")
    bundle = export_bundle(out, output=tmp_path / "b")
    assert read_json(bundle / "manifest.json")["parity"]["status"] == "passed"
    sound = sorted(pico_sounds.glob("*.wav"))[0]
    words = ["generate", str(bundle), "--audio", str(sound), "--max-new-tokens", "6", "--json"]
    assert json.loads(CliRunner().invoke(edgepress, words).stdout)["token_ids"]


@pytest.mark.parametrize(
    ("step", "label", "kill"),
    [
        pytest.param(
            {"pass": "narrow", "keep": 0.8, "multiple": 16},
            "measuring for narrow",
            20,
            marks=pytest.mark.slow,
        ),
        ({"pass": "narrow", "keep": 0.8, "multiple": 16}, "compressing blocks", 5),
        ({"pass": "layers", "keep": 0.6}, "refitting cuts", 4),
    ],
)
def test_a_killed_run_goes_on_with_the_same_bytes(
    step: dict[str, Any],
    label: str,
    kill: int,
    make_encoder_decoder: Make,
    pico_text: Path,
    tmp_path: Path,
    recipe: Recipe,
    watched: Watched,
) -> None:
    model, steps = make_encoder_decoder(tmp_path / "m", "bart"), recipe(tmp_path, step)
    whole = pruned(model, steps, pico_text, tmp_path / "whole")
    with watched(label, kill_at=kill):
        pruned(model, steps, pico_text, tmp_path / "o")
    assert hash_tree(pruned(model, steps, pico_text, tmp_path / "o")) == hash_tree(whole)


REFUSED = [
    ("t5", "heads, keep: 0.8", "importance: taylor"),
    ("t5", "heads, keep: 0.8, importance: taylor", "widths: uniform"),
    (
        "t5",
        "heads, keep: 0.9, widths: uniform, importance: taylor, targets: [encoder.block.0.*]",
        "all of its blocks",
    ),
    ("t5", "layers, keep: 0.2", "at least 0.4"),
    ("bart", "layers, keep: 0.5, criterion: contiguous", "criterion: influence"),
    ("llama", "layers, keep: 0.5, stacks: decoder", "leave stacks out"),
    ("t5", "width, keep: 0.5", "these do: "),
]


@pytest.mark.parametrize(("family", "step", "way_out"), REFUSED)
def test_what_cannot_be_cut_is_refused_before_any_work(
    family: str, step: str, way_out: str, make_encoder_decoder: Make, pico_llama: Path, tmp_path: Path
) -> None:
    model = pico_llama if family == "llama" else make_encoder_decoder(tmp_path / "m", family)
    steps = tmp_path / "r.yaml"
    steps.write_text(f"name: r\npasses: [{{pass: {step}}}]\n")
    with pytest.raises(RecipeError) as refused:
        plan_model(str(model), recipe=str(steps))
    assert way_out in str(refused.value.fix)


def test_the_heads_that_time_words_follow_the_layers_that_stay(pico_whisper: Path, tmp_path: Path) -> None:
    anatomy = WeightSource.open(pico_whisper).anatomy
    assert renumbered(pico_whisper, anatomy, [0, 4]) == {}
    write_json(tmp_path / "generation_config.json", {"alignment_heads": [[0, 1], [1, 0], [9, 9]], "a": 1})
    assert renumbered(tmp_path, anatomy, [0, 4]) == {
        "generation_config.json": {"alignment_heads": [[0, 0]], "a": 1}
    }
    write_json(tmp_path / "generation_config.json", {"alignment_heads": [[0, 1]], "a": 1})
    assert renumbered(tmp_path, anatomy, [0, 4]) == {"generation_config.json": {"a": 1}}


def test_a_second_name_of_the_layers_says_the_same(make_encoder_decoder: Make, tmp_path: Path) -> None:
    from transformers import AutoConfig

    path = make_encoder_decoder(tmp_path, "bart")
    config = read_json(path / "config.json") | {"num_hidden_layers": 3}
    write_json(path / "config.json", config | layer_counts(config, 2, 1))
    found = AutoConfig.from_pretrained(path)
    assert (found.encoder_layers, found.decoder_layers) == (2, 1)


def test_parts_that_are_there() -> None:
    assert ChannelUnits(16).name == "ffn"
    assert [HeadUnits("groups", cross=cross).name for cross in (False, True)] == ["heads", "cross_heads"]
