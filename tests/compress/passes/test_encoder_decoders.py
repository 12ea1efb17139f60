"""Encoder–decoders: their anatomy and logits against transformers, and what refuses them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.benchmarks.quality.validate import validate_bundle
from edgepress.benchmarks.records.subjects import open_subject
from edgepress.cli.verbs.inspect import inspect_checkpoint
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.job import CalibrationChoice, Job
from edgepress.compress.model.family import anatomy_of
from edgepress.compress.model.opens_in import opens_in_transformers
from edgepress.compress.model.skeleton import Skeleton
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.pipeline.algorithm import CROSS
from edgepress.compress.pipeline.block_pass import BlockPass
from edgepress.compress.pipeline.pass_names import pass_names
from edgepress.compress.pipeline.pass_options import pass_type
from edgepress.errors import CheckpointError, RecipeError
from edgepress.files.storage import read_json
from edgepress.runtime.text.greedy_loops import prompt_ids
from edgepress.terminal.progress import Silent
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

GATED = {"feed_forward_proj": "gated-gelu"}
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("t5", {}),
    ("t5", {**GATED, "own_head": True}),
    ("t5", {"feed_forward_proj": "gated-silu", "num_heads": 2}),
    ("mt5", {**GATED, "own_head": True}),
]


def inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, 5:] = 0
    return {
        "input_ids": torch.randint(3, 30, (2, 9), generator=generator),
        "attention_mask": mask,
        "decoder_input_ids": torch.randint(3, 30, (2, 7), generator=generator),
    }


def reference(path: Path) -> Any:
    from transformers import AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM.from_pretrained(path).eval()


@pytest.mark.chain
@pytest.mark.parametrize(("model_type", "changes"), FORMS)
def test_the_anatomy_is_that_of_transformers_modules(
    model_type: str, changes: dict[str, Any], make_encoder_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    anatomy = WeightSource.open(make_encoder_decoder(tmp_path, model_type, **changes)).anatomy
    model = reference(tmp_path)
    assert (anatomy.kind, anatomy.layers(), anatomy.hidden_size) == ("encoder_decoder", (3, 2), 32)
    assert [block.index for block in anatomy.blocks] == list(range(5))
    stacks = [*model.encoder.block, *model.decoder.block]
    for block, module in zip(anatomy.blocks, stacks, strict=True):
        assert model.get_submodule(block.prefix) is module
        held = [f"{block.prefix}.{name}" for name, part in module.named_modules() if type(part) is nn.Linear]
        assert sorted(held) == sorted(linear.name for linear in block.linears())
        norms = [f"{block.prefix}.{n}" for n, part in module.named_modules() if "Norm" in type(part).__name__]
        assert norms == [norm.name for norm in block.norms()]
        for linear in block.linears():
            part = model.get_submodule(linear.name)
            assert (linear.out_features, linear.in_features) == tuple(part.weight.shape)
            assert linear.bias == (part.bias is not None)
        attention = module.layer[0].SelfAttention
        found = block.attention.heads, block.attention.head_dim, block.attention.scale
        assert found == (attention.n_heads, attention.key_value_proj_dim, attention.scaling)
    config = model.config
    assert {block.mlp.activation for block in anatomy.blocks} == {config.dense_act_fn}
    assert {block.mlp.gate is not None for block in anatomy.blocks} == {config.is_gated_act}
    assert anatomy.tied == (model.lm_head.weight is model.shared.weight)
    assert anatomy.encoder_norm is not None and anatomy.final_norm is not None
    assert model.get_submodule(anatomy.encoder_norm.name).variance_epsilon == anatomy.encoder_norm.eps
    outside = {"shared", "encoder.final_layer_norm", "decoder.final_layer_norm"}
    known = {linear.name for linear in anatomy.linears()} | outside | set(anatomy.position_biases)
    known |= {norm.name for block in anatomy.blocks for norm in block.norms()}
    known |= set() if anatomy.tied else {"lm_head"}
    assert known == {name.removesuffix(".weight") for name, _ in model.named_parameters()}


BART_LIKE: list[tuple[str, dict[str, Any]]] = [
    ("bart", {}),
    ("bart", {"activation_function": "relu", "scale_embedding": False}),
    ("marian", {"activation_function": "swish"}),
]


@pytest.mark.chain
@pytest.mark.parametrize(("model_type", "changes"), BART_LIKE)
def test_the_anatomy_of_bart_is_that_of_transformers_modules(
    model_type: str, changes: dict[str, Any], make_encoder_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    anatomy = WeightSource.open(make_encoder_decoder(tmp_path, model_type, **changes)).anatomy
    model = reference(tmp_path)
    assert (anatomy.kind, anatomy.layers(), anatomy.hidden_size) == ("encoder_decoder", (3, 2), 32)
    stacks = [*model.model.encoder.layers, *model.model.decoder.layers]
    for block, module in zip(anatomy.blocks, stacks, strict=True):
        assert model.get_submodule(block.prefix) is module
        parts = {f"{block.prefix}.{name}": part for name, part in module.named_modules()}
        held = [name for name, part in parts.items() if type(part) is nn.Linear]
        assert sorted(held) == sorted(linear.name for linear in block.linears())
        norms = [name for name, part in parts.items() if isinstance(part, nn.LayerNorm)]
        assert norms == [norm.name for norm in block.norms()]
        assert {norm.eps for norm in block.norms()} == {module.final_layer_norm.eps}
        for attention in (block.attention, block.cross):
            if attention is not None:
                theirs = model.get_submodule(attention.module)
                assert (attention.heads, attention.head_dim) == (theirs.num_heads, theirs.head_dim)
        assert block.mlp.activation == model.config.activation_function
    known = {linear.name for linear in anatomy.linears()} | set(anatomy.computed)
    known |= {norm.name for block in anatomy.blocks for norm in block.norms()}
    known |= set(Skeleton(WeightSource.open(tmp_path), torch.device("cpu")).outer_modules())
    assert known == {name.rpartition(".")[0] for name, _ in model.named_parameters()}


@pytest.mark.chain
@pytest.mark.parametrize("model_type", ["bart", "marian"])
def test_a_save_without_the_head_is_read_with_the_table_as_its_head(
    model_type: str, make_encoder_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    model = reference(make_encoder_decoder(tmp_path / "m", model_type))
    model.final_logits_bias.zero_()
    shutil.copytree(tmp_path / "m", tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    model.model.save_pretrained(tmp_path / "bare")
    out = compress_model(str(tmp_path / "bare"), scheme="W4A16-g32", output=tmp_path / "o")
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "bare")(**inputs()).logits, model(**inputs()).logits)
        assert torch.equal(load_model(out)(**inputs()).logits, reference(out)(**inputs()).logits)


@pytest.mark.parametrize("key", ["tie_word_embeddings", "share_encoder_decoder_embeddings"])
def test_several_tables_of_words_are_refused(
    key: str, make_encoder_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    source = WeightSource.open(make_encoder_decoder(tmp_path, "marian"))
    with pytest.raises(CheckpointError, match=key):
        anatomy_of({**source.reader.config, key: False}, source.shapes)


@pytest.mark.chain
@pytest.mark.parametrize(("model_type", "changes"), [*FORMS, *BART_LIKE])
def test_the_logits_are_those_of_transformers(
    model_type: str, changes: dict[str, Any], make_encoder_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    make_encoder_decoder(tmp_path, model_type, **changes)
    model = load_model(tmp_path)
    with torch.no_grad():
        assert torch.equal(model(**inputs()).logits, reference(tmp_path)(**inputs()).logits)
    inner = model if hasattr(model, "encoder") else model.model
    assert inner.encoder.embed_tokens is inner.decoder.embed_tokens is inner.shared


@pytest.mark.chain
def test_tables_that_are_stored_again_are_read_once_and_have_to_agree(pico_t5: Path, tmp_path: Path) -> None:
    path = tmp_path / "m"
    shutil.copytree(pico_t5, path)
    tensors = load_file(path / "model.safetensors")
    unread = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    more = {"encoder.embed_tokens.weight": tensors["shared.weight"].clone(), unread: torch.ones(32, 4)}
    save_file(tensors | more, path / "model.safetensors", {"format": "pt"})
    with torch.no_grad():
        assert torch.equal(load_model(path)(**inputs()).logits, load_model(pico_t5)(**inputs()).logits)
    more["encoder.embed_tokens.weight"] += 1
    save_file(tensors | more, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"encoder.embed_tokens.weight differs"):
        WeightSource.open(path)


Config = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]
Breaks = Callable[[Config, Shapes], object]
BIAS = "layer.0.SelfAttention.relative_attention_bias.weight"
CROSS_ATTENTION = "layer.1.EncDecAttention"


def _drop(name: str) -> Breaks:
    return lambda config, shapes: shapes.pop(name)


def _shape(name: str, *shape: int) -> Breaks:
    return lambda config, shapes: shapes.update({name: shape})


def _set(**changes: object) -> Breaks:
    return lambda config, shapes: config.update(changes)


FAULTS = [
    (_drop(f"encoder.block.0.{BIAS}"), "relative"),
    (_shape(f"encoder.block.1.{BIAS}", 32, 4), "not a part"),
    (_drop(f"decoder.block.1.{CROSS_ATTENTION}.k.weight"), f"{CROSS_ATTENTION}.k"),
    (_drop("encoder.final_layer_norm.weight"), "encoder.final_layer_norm"),
    (_shape("lm_head.weight", 10, 32), "lm_head"),
    (_set(num_decoder_layers=1), "outside the 1 blocks"),
    (_set(num_layers=4), "encoder.block.3"),
    (_set(feed_forward_proj="gated-gelu"), "not a part"),
    (_set(feed_forward_proj="wide-gelu"), "feed_forward_proj"),
    (_set(d_kv=7), "do not divide"),
    (_set(architectures=["T5EncoderModel"]), "T5EncoderModel"),
    (_set(is_encoder_decoder=False), "not an encoder–decoder"),
]


@pytest.mark.parametrize(("break_it", "named"), FAULTS)
def test_inconsistent_checkpoints_are_named(break_it: Breaks, named: str, pico_t5: Path) -> None:
    source = WeightSource.open(pico_t5)
    config, shapes = json.loads(json.dumps(source.reader.config)), dict(source.shapes)
    break_it(config, shapes)
    with pytest.raises(CheckpointError, match=named):
        anatomy_of(config, shapes)


def test_these_of_those_that_want_the_whole_model_know_them() -> None:
    whole = [name for name in pass_names() if not issubclass(pass_type(name), BlockPass)]
    knowing = {name for name in whole if CROSS in pass_type(name).works_on}
    assert knowing == {
        *("allocate", "allocate_sparsity", "distill", "layers", "narrow", "rotate"),
        *("embedding", "qat", "ternary", "tune", "vocabulary", "width"),
    }


@pytest.mark.chain
@pytest.mark.parametrize(
    ("family", "options", "why"),
    [
        ("t5", "width, keep: 0.5", "with repair: none"),
        ("t5", "width, keep: 0.5", "these do.*narrow"),
        ("bart", "width, keep: 0.5", "normalises its embeddings"),
    ],
)
def test_other_passes_refuse_before_any_work(
    family: str, options: str, why: str, make_encoder_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_encoder_decoder(tmp_path / "m", family)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"name: r\npasses:\n  - {{pass: rtn, scheme: W8A8}}\n  - {{pass: {options}}}\n")
    name = options.partition(",")[0]
    with pytest.raises(RecipeError, match=name) as refused:
        plan_model(str(path), recipe=str(recipe))
    assert refused.match(f"(?s).*{why}")


STEPS = [
    *(f"rtn, scheme: {scheme}" for scheme in ("W8A8", "W4A16-g32", "W3A16-g16", "W4A16_ASYM-g32")),
    "hqq, scheme: W4A16-g32",
    "gptq, scheme: W4A16-g32",
    "gptq, scheme: W8A8_STATIC, correction: 1",
    "awq, scheme: W4A16-g32",
    "smoothquant",
    "autoround, scheme: W4A16-g32, iterations: 2",
    "block_qat, scheme: W4A16-g32, training: {epochs: 1}",
    "prune, sparsity: 0.5, score: wanda",
    "sparsegpt, sparsity: 0.5",
    "alps, sparsity: 0.5, rounds: 2",
    "block_qat, scheme: W4A16-g32, distance: fisher, training: {epochs: 1}",
    "allocate, bits: 4, schemes: [W3A16-g16, W4A16-g16, W8A16-g16]",
    "allocate_sparsity, sparsity: 0.5",
]


# Ways to find codes, and zeros, of which others are here: of two stacks they know nothing.
LATER = ("rtn, scheme: W4A16-g32", "hqq, scheme: W4A16-g32", "prune, sparsity: 0.5, score: wanda")


def with_t5(step: str) -> Any:
    return pytest.param("t5", step, marks=pytest.mark.slow if step in LATER else ())


@pytest.mark.chain
@pytest.mark.parametrize(
    ("family", "step"),
    [
        *map(with_t5, STEPS),
        ("bart", STEPS[0]),
        *(pytest.param("bart", STEPS[place], marks=pytest.mark.slow) for place in (6, -2, -1)),
        ("marian", STEPS[5]),
    ],
)
def test_every_linear_of_both_stacks_is_treated_and_opens_in_transformers(
    family: str, step: str, make_encoder_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path
) -> None:
    model = make_encoder_decoder(tmp_path / "m", family)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"name: r\npasses: [{{pass: {step}}}]\n")
    options: dict[str, Any] = {"recipe": str(recipe), "output": tmp_path / "o"}
    if not step.startswith(("rtn", "hqq")):
        options |= {"calibration": str(pico_text), "samples": 8, "length": 24}
    out = compress_model(str(model), **options)
    source, before = WeightSource.open(out), WeightSource.open(model)
    found = read_json(out / "edgepress.json")
    names = [linear.name for linear in source.anatomy.linears()]
    assert {layer["name"] for layer in found["layers"]} == set(names)
    assert {layer["status"] for layer in found["layers"]} == {"ok"}
    assert not any(torch.equal(source.dense(name), before.dense(name)) for name in names)
    assert 0 < found["steps"][0]["damage"]["kl"] < 0.5
    answer = opens_in_transformers(source)
    # One forward pass is right in any case; what `generate` asks the encoder alone is not, where codes stay.
    rounded = any(scheme.activations for scheme in source.schemes.values())
    assert answer.answer == ("no" if rounded else "yes")
    with torch.no_grad():
        ours, plain = load_model(out)(**inputs()).logits, reference(out)(**inputs()).logits
    assert torch.allclose(ours, plain, atol=1e-5)


@pytest.mark.chain
def test_quality_is_measured_on_what_the_decoder_says_of_a_text_that_it_reads(
    pico_t5: Path, pico_text: Path, tmp_path: Path
) -> None:
    out = compress_model(str(pico_t5), scheme="W3A16-g16", output=tmp_path / "o")
    line = validate_bundle(out, pico_t5, text=pico_text, sentences=2, length=24)
    original = open_subject(pico_t5)
    ids = np.asarray([[4, 9, 17, 6]])
    with torch.no_grad():
        given = {"input_ids": torch.tensor(ids), "decoder_input_ids": torch.tensor([[0, 4, 9, 17, 6]])}
        want = reference(pico_t5)(**given).logits[:, 1:]
    assert np.allclose(original.logits(ids), want.numpy(), atol=1e-5)
    assert 0 < line.metrics["kl"].value < 0.05  # type: ignore[operator]
    assert line.metrics["loops"].value is not None
    prompts, plain = ["the river", "a word and another word"], reference(pico_t5)
    alone = [torch.tensor([ids]) for ids in prompt_ids(original.tokenizer, prompts)]
    want = [plain.generate(ids, max_new_tokens=5, do_sample=False)[0, 1:].tolist() for ids in alone]
    assert original.greedy(prompts, 5) == want


def test_inspect_counts_what_is_stored_once(pico_t5: Path) -> None:
    found, model = inspect_checkpoint(pico_t5), reference(pico_t5)
    assert (found["kind"], found["blocks"], found["tied"]) == ("encoder_decoder", 5, True)
    assert found["params"] == sum(parameter.numel() for parameter in model.parameters())
    assert len(found["layers"]) == 3 * 6 + 2 * 10


@pytest.mark.chain
def test_source_texts_end_as_the_tokenizer_ends_them(pico_t5: Path, pico_text: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: r\npasses: [{pass: distill}]\n")
    choice = CalibrationChoice(source=str(pico_text), samples=8, length=32)
    calibration = Job(str(pico_t5), str(recipe), None, None, choice, Silent()).calibration()
    rows = [
        ids[mask.bool()]
        for batch in calibration.batches
        for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
    ]
    assert len(rows) == 8
    assert all(row[-1] == 1 and len(row) == 32 and 1 not in row[:-1] for row in rows)
