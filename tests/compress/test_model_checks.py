"""Types of GGUF's own beside what such a file cannot hold: refused by the plan, before any work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.lab.same_bytes import pico_families as pico
from edgepress.benchmarks.lab.same_bytes.pico_models import save_pico
from edgepress.compress.api import plan_model
from edgepress.compress.model.gguf.types import type_of
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.recipe import load_recipe, parse
from edgepress.errors import InputError, RecipeError

MOE: dict[str, Any] = {
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "moe_intermediate_size": 256,
    "num_experts": 3,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
}
BLOCKS = "pass: k_quants, importance: false, scheme: Q4_K"
ONE = "'*.experts.1.up_proj'"
RTN: dict[str, Any] = {"pass": "rtn", "scheme": "W4A16-g32"}
Write = Callable[..., str]


@pytest.fixture
def wide(make_decoder: Callable[..., Path], tmp_path: Path) -> Path:
    sizes = {"hidden_size": 256, "intermediate_size": 256}
    return make_decoder(tmp_path / "wide", "llama", **sizes, tie_word_embeddings=False)


@pytest.fixture
def mixture(make_decoder: Callable[..., Path], tmp_path: Path) -> Path:
    return make_decoder(tmp_path / "mixture", "qwen3_moe", **MOE)


def planned(model: Path, folder: Path, *lines: str) -> None:
    recipe = folder / "recipe.yaml"
    steps = [line for line in lines if line.startswith("{")]
    recipe.write_text("\n".join(["passes:", *(f"- {step}" for step in steps), *lines[len(steps) :]]))
    plan_model(str(model), recipe=str(recipe))


@pytest.mark.parametrize("scheme", ["W3A16-g64", "W4A16_ASYM-g32", "W4A16-g16", "FP8_DYNAMIC"])
def test_a_scheme_without_a_type_is_refused_beside_one_of_its_own(
    scheme: str, wide: Path, tmp_path: Path
) -> None:
    other = f"{{pass: rtn, scheme: {scheme}, targets: [down]}}"
    with pytest.raises(RecipeError, match=rf"down_proj would be {scheme}") as caught:
        planned(wide, tmp_path, f"{{{BLOCKS}, targets: [gate, up]}}", other)
    assert "4, 5 or 8 bits" in caught.value.fix and "export --format gguf" in caught.value.why
    planned(wide, tmp_path, other)  # by itself it is for other clients


@pytest.mark.parametrize("scheme", ["W4A16-g64", "W8A16-g32", "W8A16-channel", "Q6_K"])
def test_what_has_a_type_stands_beside_them(scheme: str, wide: Path, tmp_path: Path) -> None:
    name = "k_quants, importance: false" if scheme == "Q6_K" else "rtn"
    other = f"{{pass: {name}, scheme: {scheme}, targets: [down]}}"
    planned(wide, tmp_path, f"{{{BLOCKS}, targets: [gate, up]}}", other)


def test_so_are_an_embedding_and_a_head(wide: Path, tmp_path: Path) -> None:
    for table in ("embedding: W3A16-g32", "embedding: null\nhead: W4A16_ASYM-g32"):
        with pytest.raises(RecipeError, match="which GGUF has no type for"):
            planned(wide, tmp_path, f"{{{BLOCKS}, targets: [gate, up]}}", table)
        planned(wide, tmp_path, "{pass: rtn, scheme: W4A16-g32}", table)


def test_experts_of_a_block_have_one_type(mixture: Path, tmp_path: Path) -> None:
    for other in ("", f"{{pass: k_quants, importance: false, scheme: Q6_K, targets: [{ONE}]}}"):
        steps = [f"{{{BLOCKS}, ignore: [o, {ONE}]}}", *filter(None, [other])]
        said = "Q4_K and Q6_K" if other else "Q4_K and float"
        with pytest.raises(RecipeError, match=rf"one tensor of all experts in GGUF, and would be {said}"):
            planned(mixture, tmp_path, *steps)
    planned(mixture, tmp_path, f"{{{BLOCKS}, ignore: [o, up]}}")


def test_q_k_and_v_that_are_one_tensor_have_one_type(tmp_path: Path) -> None:
    sizes = {"n_embd": 256, "n_inner": 256, "hidden_size": 256, "intermediate_size": 256}
    save_pico(tmp_path / "m", "nomic_bert", {**pico.ENCODER, **sizes})
    with pytest.raises(RecipeError, match="one tensor of q, k and v in GGUF, and would be IQ4_NL and Q4_K"):
        planned(
            tmp_path / "m",
            tmp_path,
            f"{{{BLOCKS}, ignore: ['*q_proj']}}",
            "{pass: k_quants, importance: false, scheme: IQ4_NL, targets: ['*q_proj']}",
        )


def test_types_of_schemes() -> None:
    found = {
        name: type_of(Scheme.parse(name), 96)
        for name in (
            "Q4_K",
            "W4A16-g32",
            "W5A16-g32",
            "W8A8",
            "W8A16-channel",
            "W2A16-g32",
            "W3A16-g32",
            "W4A16-g16",
        )
    }
    assert list(found.values()) == ["Q4_K", "Q4_0", "Q5_0", "Q8_0", "Q8_0", "TQ2_0", None, None]
    assert type_of(Scheme.parse("W4A16-channel"), 48) is None


def layers(model: Path, folder: Path, recipe: Write, *passes: dict[str, Any]) -> list[int]:
    """How many layers each pass works on."""
    return [step.layers for step in plan_model(str(model), recipe=recipe(folder, *passes)).steps]


@pytest.mark.chain
@pytest.mark.parametrize(
    ("ignore", "left"),
    [
        ("down", 18),
        ("*.mlp.*", 12),
        (r"re:.*\.(q|k)_proj$", 15),
        ("re:model.layers.0", 14),
        ("re:.*lm_head", 21),  # as recipes of other tools leave it out: no pass would work on it
        ("lm_head", 21),
    ],
)
def test_layers_are_left_alone_by_role_glob_or_regular_expression(
    ignore: str, left: int, pico_llama: Path, tmp_path: Path, recipe: Write
) -> None:
    assert layers(pico_llama, tmp_path, recipe, {**RTN, "ignore": [ignore]}) == [left]
    if left < 21:
        assert layers(pico_llama, tmp_path, recipe, {**RTN, "targets": [ignore]}) == [21 - left]


@pytest.mark.chain
@pytest.mark.parametrize("key", ["targets", "ignore"])
@pytest.mark.parametrize("pattern", ["dwn", "*.experts.*", "re:.*experts"])
def test_each_layer_that_is_named_must_be_there(
    key: str, pattern: str, pico_llama: Path, tmp_path: Path, recipe: Write
) -> None:
    with pytest.raises(RecipeError, match=f"in its {key} matches no layer") as refused:
        layers(pico_llama, tmp_path, recipe, {**RTN, key: ["up", pattern]})
    assert pattern in refused.value.what and "down" in refused.value.fix
    with pytest.raises(RecipeError, match="no regular expression"):
        parse({"passes": [{**RTN, key: ["re:("]}]}, "here")


@pytest.mark.chain
def test_a_layer_is_quantized_twice_only_where_the_recipe_says_so(
    pico_llama: Path, tmp_path: Path, recipe: Write
) -> None:
    again = {"pass": "autoround", "scheme": "W4A16-g32", "targets": ["q", "up"]}
    with pytest.raises(RecipeError, match=r"6 layers that already have codes from the pass rtn") as refused:
        layers(pico_llama, tmp_path, recipe, RTN, again)
    assert "requantize: true in autoround" in refused.value.fix
    plan = plan_model(str(pico_llama), recipe=recipe(tmp_path, RTN, {**again, "requantize": True}))
    assert any("autoround quantizes 6 layers" in note for note in plan.notes)
    # Other layers, folding alone, and qat, which keeps codes, need no word for it.
    assert layers(pico_llama, tmp_path, recipe, {**RTN, "targets": ["q"]}, {**RTN, "ignore": ["q"]}) == [
        3,
        18,
    ]
    awq = {"pass": "awq", "scheme": "W4A16-g32", "quantize": False}
    assert layers(pico_llama, tmp_path, recipe, awq, RTN, {"pass": "qat", "scheme": "W4A16-g32"})[1] == 21
    with pytest.raises(RecipeError, match="true or false"):
        parse({"passes": [{**RTN, "requantize": "yes"}]}, "here")


@pytest.mark.chain
def test_the_word_is_part_of_a_recipe_only_where_it_is_said() -> None:
    plain, said = ({"name": "r", "passes": [{**RTN, **more}]} for more in ({}, {"requantize": True}))
    assert "requantize" not in parse(plain, "here").as_dict()["passes"][0]
    assert parse(said, "here").as_dict()["passes"][0]["requantize"] is True
    assert parse(plain, "here").sha256 != parse(said, "here").sha256
    assert [step.requantize for step in load_recipe("w3a16-qat").passes] == [False, True, False]


@pytest.mark.chain
def test_a_recipe_has_its_own_groups(pico_llama: Path) -> None:
    with pytest.raises(InputError, match="a group size is given beside a recipe"):
        plan_model(str(pico_llama), recipe="w4a16-rtn", group_size=32)
