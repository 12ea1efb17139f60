"""Families as pico models in their variants, against transformers: at all lengths, past a window, in batches
of unequal rows, by greedy tokens, in every scheme, and pruned.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.errors import RecipeError
from edgepress.export.api import export_bundle
from edgepress.export.graph.forms.providers import CPU, OWN, ProviderForm
from edgepress.export.proof.streamed_stacks import hidden_states
from edgepress.files.storage import read_json
from edgepress.runtime.api import open_bundle
from edgepress.runtime.session.session import open_session

from ..rounding import noise
from .exact import exact_session

pytestmark = pytest.mark.chain

LENGTHS = (1, 5, 40, 150)
IDS = np.random.default_rng(5).integers(3, 300, (3, 151), dtype=np.int64)
ROWS = (40, 5, 17)

LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0 + index / 8 for index in range(8)],
    "long_factor": [2.0 + index for index in range(8)],
    "original_max_position_embeddings": 160,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 160,
    "llama_4_scaling_beta": 0.1,
}
STRETCHED = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
    "mscale": 0.7,
    "mscale_all_dim": 0.9,
}
LINEAR = {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}
PLAIN = {"rope_type": "default", "rope_theta": 1e4}


@dataclass(frozen=True)
class Variant:
    """A family with some settings."""

    family: str
    name: str
    changes: dict[str, Any]


VARIANTS = [
    Variant("gemma3_text", "as it is", {}),
    Variant(
        "gemma3_text",
        "linear rope, soft cap",
        {
            "rope_parameters": {"full_attention": LINEAR, "sliding_attention": PLAIN},
            "final_logit_softcapping": 5.0,
        },
    ),
    Variant("ernie4_5", "as it is", {}),
    Variant("ernie4_5", "biases, untied", {"use_bias": True, "tie_word_embeddings": False}),
    Variant("gptj", "as it is", {}),
    Variant("falcon", "as it is", {}),
    Variant(
        "falcon",
        "groups, two norms",
        {"new_decoder_architecture": True, "num_attention_heads": 4, "num_kv_heads": 2, "bias": True},
    ),
    Variant("falcon", "one after the other", {"parallel_attn": False, "multi_query": False}),
    Variant("bloom", "as it is", {}),
    Variant("bloom", "six heads", {"num_attention_heads": 6, "hidden_size": 96}),
    Variant("mpt", "as it is", {}),
    Variant(
        "mpt",
        "three heads",
        {
            "num_attention_heads": 3,
            "hidden_size": 48,
            "attn_config": {"softmax_scale": 0.2},
        },
    ),
    Variant("ministral", "as it is", {}),
    Variant("ministral", "both kinds", {"layer_types": [*["sliding_attention"] * 2, "full_attention"]}),
    Variant("ministral3", "as it is", {}),
    Variant("ministral3", "up to its pretraining", {"rope_parameters": YARN, "sliding_window": 24}),
    Variant("helium", "as it is", {}),
    Variant("cohere", "as it is", {}),
    Variant("cohere", "untied, biases", {"tie_word_embeddings": False, "attention_bias": True}),
    Variant("cohere2", "as it is", {}),
    Variant("nemotron", "as it is", {}),
    Variant("nemotron", "biases", {"attention_bias": True, "mlp_bias": True}),
    Variant("glm4", "as it is", {}),
    Variant("olmo2", "as it is", {}),
    Variant("olmo2", "untied, biases", {"tie_word_embeddings": False, "attention_bias": True}),
    Variant("olmo3", "as it is", {}),
    Variant("exaone4", "as it is", {}),
    Variant("exaone4", "no window", {"sliding_window": None, "layer_types": ["full_attention"] * 3}),
    Variant("granite", "as it is", {}),
    Variant("granite", "untied, biases", {"tie_word_embeddings": False, "attention_bias": True}),
    Variant("phi3", "as it is", {}),
    Variant("phi3", "window, untied", {"sliding_window": 24, "tie_word_embeddings": False}),
    Variant("phi3", "longrope", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 160}),
    Variant("smollm3", "as it is", {}),
    Variant("smollm3", "window", {"use_sliding_window": True, "sliding_window": 24, "attention_bias": True}),
    Variant("stablelm", "as it is", {}),
    Variant("stablelm", "parallel, biases", {"use_parallel_residual": True, "use_qkv_bias": True}),
    Variant("starcoder2", "as it is", {}),
    Variant("starcoder2", "no window, no biases", {"sliding_window": None, "use_bias": False}),
]
ENCODERS = [
    Variant("xlm-roberta", "as it is", {"pad_token_id": 1}),
    Variant("camembert", "as it is", {"pad_token_id": 1}),
    Variant("electra", "as it is", {"embedding_size": 64}),
    Variant("albert", "as it is", {"embedding_size": 32, "num_hidden_layers": 3}),
    Variant("electra", "narrow embedding", {"embedding_size": 32}),
    Variant("modernbert", "as it is", {"local_attention": 24, "num_hidden_layers": 3}),
    Variant(
        "modernbert",
        "biases",
        {"local_attention": 24, "attention_bias": True, "mlp_bias": True, "norm_bias": True},
    ),
    Variant("eurobert", "as it is", {"num_key_value_heads": 2}),
    Variant("nomic_bert", "as it is", {}),
    Variant("gte", "as it is", {}),
    Variant("gte", "no types", {"type_vocab_size": 0}),
    Variant("deberta-v2", "as it is", {"layer_norm_eps": 1e-5}),
    Variant("deberta-v2", "a row a distance", {"position_buckets": -1, "max_relative_positions": 24}),
    Variant("mpnet", "as it is", {"pad_token_id": 1}),
]
FACTORS = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.5,
    "logits_scaling": 2.0,
}
NO_WINDOW = {"layer_types": ["full_attention"] * 3, "attention_bias": False, "rope_parameters": PLAIN}
SIX = {"num_experts": 6, "num_experts_per_tok": 2}
MIXTURES = [
    Variant("mixtral", "as it is", {"num_local_experts": 6, "num_experts_per_tok": 2, "sliding_window": 24}),
    Variant("qwen3_moe", "as it is", {**SIX, "moe_intermediate_size": 32, "norm_topk_prob": True}),
    Variant("qwen3_moe", "some dense layers", {**SIX, "moe_intermediate_size": 32, "mlp_only_layers": [1]}),
    Variant("olmoe", "as it is", {**SIX, "intermediate_size": 32}),
    Variant(
        "qwen2_moe", "as it is", {**SIX, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 64}
    ),
    Variant("gpt_oss", "as it is", {}),
    Variant("gpt_oss", "no window, no biases", NO_WINDOW),
    Variant("deepseek_v3", "as it is", {}),
    Variant("deepseek_v3", "no narrow q, no groups", {"q_lora_rank": None, "n_group": 1, "topk_group": 1}),
    Variant(
        "deepseek_v3",
        "stretched rope, halves",
        {"rope_parameters": STRETCHED, "rope_interleave": False, "n_shared_experts": 2, "v_head_dim": 32},
    ),
    Variant("granitemoe", "as it is", {"num_local_experts": 6, "num_experts_per_tok": 2, **FACTORS}),
]
# Blocks of another kind than attention: their front door is in test_state_families.
STATES = [
    Variant("lfm2", "as it is", {}),
    Variant(
        "lfm2",
        "biases, wider, untied",
        {
            "conv_bias": True,
            "conv_L_cache": 4,
            "tie_word_embeddings": False,
            "layer_types": ["full_attention", "conv", "conv", "full_attention"],
        },
    ),
    Variant("lfm2", "convolutions alone", {"layer_types": ["conv"] * 4}),
    Variant("mamba", "as it is", {}),
    Variant(
        "mamba",
        "biases, wider, untied",
        {
            "use_bias": True,
            "use_conv_bias": False,
            "conv_kernel": 3,
            "time_step_rank": 7,
            "tie_word_embeddings": False,
        },
    ),
    Variant("mamba2", "as it is", {}),
    Variant(
        "mamba2",
        "one group, biases, clamped steps",
        {"n_groups": 1, "use_bias": True, "time_step_limit": [0.1, 0.8], "tie_word_embeddings": False},
    ),
    Variant("mamba2", "a group a head", {"n_groups": 8, "use_conv_bias": False}),
    Variant("jamba", "as it is", {}),
    Variant(
        "jamba",
        "experts, biases, tied",
        {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "mamba_proj_bias": True,
            "mamba_conv_bias": False,
            "tie_word_embeddings": True,
        },
    ),
]
FIRST_STATES = [variant for variant in STATES if variant.name == "as it is"]
FIRST = [variant for variant in VARIANTS if variant.name == "as it is"]


def label(variant: Variant) -> str:
    return f"{variant.family} {variant.name}"


@pytest.fixture(scope="module")
def made(
    make_decoder: Callable[..., Path],
    make_encoder: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Variant], Path]:
    """The checkpoint of a variant, made once."""
    root, known = tmp_path_factory.mktemp("families"), dict[str, Path]()

    def once(variant: Variant) -> Path:
        if label(variant) not in known:
            make, changes = make_decoder, variant.changes
            if variant in ENCODERS:
                make, changes = make_encoder, {"max_position_embeddings": 160, **changes}
            known[label(variant)] = make(root / str(len(known)), variant.family, **changes)
        return known[label(variant)]

    return once


@cache  # of a variant once, for all forms
@torch.no_grad()
def in_transformers(checkpoint: Path) -> list[np.ndarray]:
    """Logits ``[tokens, vocab]`` of the checkpoint as plain transformers opens it: of the first of
    :data:`IDS`, and of the others as far as :data:`ROWS` goes.
    """
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    rows = [IDS[0], *(IDS[row, : ROWS[row]] for row in (1, 2))]
    return [model(torch.from_numpy(row[None]), use_cache=False).logits[0].numpy() for row in rows]


@pytest.mark.parametrize("variant", [*VARIANTS, *MIXTURES, *STATES], ids=label)
@pytest.mark.parametrize("form", [CPU, OWN], ids=["standard", "own"])
def test_in_float(
    variant: Variant, form: ProviderForm, made: Callable[[Variant], Path], export_graph: Any
) -> None:
    exported = export_graph(made(variant), form=form)
    want = in_transformers(made(variant))
    with exported.driver() as driver:
        for length in LENGTHS:
            found = driver.logits(IDS[:1, :length])
            assert np.abs(found[0] - want[0][:length]).max() < noise(want[0])
        assert np.abs(driver.logits(IDS[:1], depth=150)[0] - want[0][150:]).max() < noise(want[0])
        assert np.abs(driver.logits(IDS[:1, :80], depth=30)[0] - want[0][30:80]).max() < noise(want[0])
    ids, mask = np.full((3, 40), 7, np.int64), np.zeros((3, 40), np.int64)
    for row, length in enumerate(ROWS):
        ids[row, 40 - length :], mask[row, 40 - length :] = IDS[row, :length], 1
    session = open_session(exported.path, threads=1)
    feeds = {"input_ids": ids, "attention_mask": mask, **driver.empty_cache(3, 48)}
    last = session.run(["logits"], feeds)[0]
    for row, length in enumerate(ROWS):
        assert np.abs(last[row, 0] - want[row][length - 1]).max() < noise(want[row])


SCHEMES = ("W8A8", "W4A16-g32", "W3A16-g32")


def by_turns(variants: Sequence[Variant], later: Sequence[Variant] = ()) -> list[Any]:
    """Every variant in every scheme and form: each soon in two schemes, one a form, the rest and those of
    ``later`` among the slow tests.
    """
    return [
        pytest.param(
            variant,
            scheme,
            form,
            marks=()
            if (place + turn) % len(SCHEMES) == number and variant not in later
            else pytest.mark.slow,
            id=f"{name}-{scheme}-{label(variant)}",
        )
        for turn, (name, form) in enumerate({"standard": CPU, "own": OWN}.items())
        for number, scheme in enumerate(SCHEMES)
        for place, variant in enumerate([*variants, *later])
    ]


LATER = [variant for variant in MIXTURES[3:] if variant.name == "as it is"]


@pytest.mark.parametrize(
    ("variant", "scheme", "form"), by_turns([*FIRST, MIXTURES[0], MIXTURES[2], *FIRST_STATES], LATER)
)
def test_in_every_scheme(
    variant: Variant, scheme: str, form: ProviderForm, made: Callable[[Variant], Path], export_graph: Any
) -> None:
    exported = export_graph(made(variant), scheme, "W8A16-g32", form=form)
    want = exported.source.logits(IDS[:1], activations=False)
    with exported.driver(exact=True) as driver:
        assert np.abs(driver.logits(IDS[:1]) - want).max() < noise(want)


FEWER = "passes: [{}{{pass: experts, keep: 0.7}}, {{pass: gptq, scheme: {}}}]"
SHORTER = "{pass: layers, keep: 0.7, repair: none}, "
PRUNED = "passes: [{{pass: layers, keep: 0.7}}, {{pass: narrow, {}}}, {{pass: rtn, scheme: W4A16-g16}}]"
MLP_ALONE = ("olmo2", "olmo3", "bloom", "mpt")  # norms over all heads, or slopes by their number


def every_second(variants: Sequence[Variant]) -> list[Any]:
    """Soon; the others are slow."""
    return [
        pytest.param(variant, marks=pytest.mark.slow if place % 2 else (), id=label(variant))
        for place, variant in enumerate(variants)
    ]


@pytest.mark.parametrize("variant", every_second(FIRST))
def test_pruned_rounded_and_answering(
    variant: Variant, made: Callable[[Variant], Path], pico_text: Path, tmp_path: Path
) -> None:
    """Through the front door: the proof of the export is torch's, and so are greedy tokens."""
    narrow = "keep: 0.85, parts: [mlp]" if variant.family in MLP_ALONE else "keep: 0.7"
    check_answers(made(variant), PRUNED.format(narrow), pico_text, tmp_path)


@pytest.mark.parametrize(
    ("variant", "scheme"),
    [(MIXTURES[0], "W4A16-g16"), (MIXTURES[2], "W3A16-g32"), (MIXTURES[-1], "W4A16_ASYM-g32")],
)
def test_fewer_experts_rounded_and_answering(
    variant: Variant, scheme: str, made: Callable[[Variant], Path], pico_text: Path, tmp_path: Path
) -> None:
    first = SHORTER if variant.name == "as it is" else ""
    check_answers(made(variant), FEWER.format(first, scheme), pico_text, tmp_path)


def check_answers(model: Path, recipe: str, text: Path, tmp_path: Path) -> None:
    """Greedy tokens of the bundle that ``recipe`` makes are torch's."""
    (tmp_path / "r.yaml").write_text(recipe)
    options: dict[str, Any] = {"calibration": str(text), "samples": 4, "length": 32}
    out = compress_model(str(model), recipe=str(tmp_path / "r.yaml"), output=tmp_path / "o", **options)
    bundle = export_bundle(out, output=tmp_path / "b", activations="float32")
    ids = [int(token) for token in IDS[0, :40]]
    theirs, decoder = load_model(out, embedding=True), open_bundle(bundle, threads=1).decoder
    logits = decoder.prefill(ids, new_tokens=12)
    for _ in range(12):
        with torch.no_grad():
            wanted = theirs(torch.tensor([ids]), use_cache=False).logits[0, -1]
        chosen = int(logits.argmax())
        assert float(wanted.max() - wanted[chosen]) < 1e-3
        ids.append(chosen)
        logits = decoder.step(chosen)


def padded() -> dict[str, np.ndarray]:
    """Rows of all lengths, padded on the right."""
    lengths = (150, 40, 5, 1)
    ids, mask = np.full((4, 150), 1, np.int64), np.zeros((4, 150), np.int64)
    for row, length in enumerate(lengths):
        ids[row, :length], mask[row, :length] = IDS[0, :length] % 100 + 3, 1
    return {"input_ids": ids, "attention_mask": mask}


def states_of(path: Path) -> np.ndarray:
    feeds, session = padded(), open_session(path, threads=1)
    inputs = {node.name for node in session.get_inputs()}
    if "token_type_ids" in inputs:
        feeds["token_type_ids"] = np.zeros_like(feeds["input_ids"])
    found: np.ndarray = session.run(["last_hidden_state"], feeds)[0]
    return found


@pytest.mark.parametrize("variant", ENCODERS, ids=label)
@pytest.mark.parametrize("form", [CPU, OWN], ids=["standard", "own"])
def test_an_encoder_in_float(
    variant: Variant, form: ProviderForm, made: Callable[[Variant], Path], export_graph: Any
) -> None:
    from transformers import AutoModel

    feeds = padded()
    model = AutoModel.from_pretrained(made(variant)).eval()
    with torch.no_grad():
        want = model(**{name: torch.from_numpy(value) for name, value in feeds.items()})[0].numpy()
    found = states_of(export_graph(made(variant), form=form).path)
    real = feeds["attention_mask"].astype(bool)
    assert np.abs(found[real] - want[real]).max() < noise(want)


@pytest.mark.parametrize(("variant", "scheme", "form"), by_turns(ENCODERS))
def test_an_encoder_in_every_scheme(
    variant: Variant, scheme: str, form: ProviderForm, made: Callable[[Variant], Path], export_graph: Any
) -> None:
    exported = export_graph(made(variant), scheme, form=form)
    feeds = padded()
    want = hidden_states(exported.source.model(activations=False), feeds).numpy()
    with exact_session(exported.path) as session:
        if "token_type_ids" in {node.name for node in session.get_inputs()}:
            feeds["token_type_ids"] = np.zeros_like(feeds["input_ids"])
        found = session.run(["last_hidden_state"], feeds)[0]
    real = feeds["attention_mask"].astype(bool)
    assert np.abs(found[real] - want[real]).max() < noise(want)


@pytest.mark.parametrize("variant", every_second(ENCODERS))
def test_an_encoder_pruned_rounded_and_proven(
    variant: Variant, made: Callable[[Variant], Path], pico_text: Path, tmp_path: Path
) -> None:
    parts = "[mlp]" if variant.family == "mpnet" else "[attention, mlp]"
    narrow = f"{{pass: narrow, keep: 0.7, parts: {parts}}}"
    (tmp_path / "r.yaml").write_text(f"passes: [{narrow}, {{pass: gptq, scheme: W8A8}}]")
    options: dict[str, Any] = {"calibration": str(pico_text), "samples": 4, "length": 32}
    options |= {"recipe": str(tmp_path / "r.yaml"), "output": tmp_path / "o"}
    out = compress_model(str(made(variant)), **options)
    bundle = export_bundle(out, output=tmp_path / "b")
    assert read_json(bundle / "manifest.json")["parity"]


@pytest.mark.slow  # blocks of encoders are left out in tests/compress/passes too
@pytest.mark.parametrize(
    "variant", [variant for variant in ENCODERS if variant.family != "albert"], ids=label
)
def test_an_encoder_of_fewer_layers_is_rounded_and_proven(
    variant: Variant, make_encoder: Callable[..., Path], pico_text: Path, tmp_path: Path
) -> None:
    changes = {"max_position_embeddings": 160, **variant.changes, "num_hidden_layers": 3}
    model = make_encoder(tmp_path / "m", variant.family, **changes)
    (tmp_path / "r.yaml").write_text("passes: [{pass: layers, keep: 0.7}, {pass: rtn, scheme: W8A8}]")
    options: dict[str, Any] = {"calibration": str(pico_text), "samples": 4, "length": 32}
    out = compress_model(str(model), recipe=str(tmp_path / "r.yaml"), output=tmp_path / "o", **options)
    assert read_json(out / "config.json")["num_hidden_layers"] == 2
    bundle = export_bundle(out, output=tmp_path / "b")
    assert read_json(bundle / "manifest.json")["parity"]["status"] == "passed"


@pytest.mark.parametrize(
    ("variant", "why"),
    [
        (ENCODERS[-1], "serves the heads of all blocks"),
        (Variant("olmo2", "as it is", {}), "normalizes q and k over all heads"),
        (Variant("mpt", "as it is", {}), "a slope that follows from its number"),
    ],
)
def test_heads_that_share_something_stay(
    variant: Variant, why: str, made: Callable[[Variant], Path], tmp_path: Path
) -> None:
    (tmp_path / "r.yaml").write_text("passes: [{pass: narrow, keep: 0.7, widths: uniform}]")
    options: dict[str, Any] = {"recipe": str(tmp_path / "r.yaml"), "output": tmp_path / "o"}
    with pytest.raises(RecipeError, match=why):
        compress_model(str(made(variant)), calibration="wikipedia", **options)


@pytest.mark.parametrize(
    "variant",
    [
        Variant(
            "qwen2_moe",
            "as it is",
            {**SIX, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 64},
        ),
        *(
            pytest.param(Variant(family, "as it is", changes), marks=pytest.mark.slow)
            for family, changes in (
                ("granitemoe", {"num_local_experts": 6, "num_experts_per_tok": 2}),
                ("gpt_oss", {}),
                ("deepseek_v3", {}),
            )
        ),
    ],
    ids=lambda variant: variant.family,
)
def test_a_mixture_rotated_scaled_rounded_and_proven(
    variant: Variant, make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path
) -> None:
    model = make_decoder(tmp_path / "m", variant.family, **variant.changes)
    steps = "{pass: rotate}, {pass: awq, scheme: W4A16-g32, quantize: false}"
    (tmp_path / "r.yaml").write_text(f"passes: [{steps}, {{pass: gptq, scheme: W4A16-g32, correction: 0.5}}]")
    options: dict[str, Any] = {"calibration": str(pico_text), "samples": 8, "length": 32}
    out = compress_model(str(model), recipe=str(tmp_path / "r.yaml"), output=tmp_path / "o", **options)
    bundle = export_bundle(out, output=tmp_path / "b")
    assert read_json(bundle / "manifest.json")["parity"]["status"] == "passed"
