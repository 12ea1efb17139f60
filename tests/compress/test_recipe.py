"""Recipes: the right key is suggested, defaults are filled in, and equal recipes have equal hashes."""

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from edgepress.cli.entry import run
from edgepress.compress.costs import seconds_of
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.pass_help import schema
from edgepress.compress.pipeline.pass_names import pass_names
from edgepress.compress.pipeline.pass_options import pass_type
from edgepress.compress.rates import Rates
from edgepress.compress.recipe import load_recipe, parse
from edgepress.compress.recipe_files import about, names
from edgepress.compress.train.training_options import TrainingOptions
from edgepress.errors import EdgepressError, RecipeError


def test_every_packaged_recipe_loads() -> None:
    assert {"w4a16-gptq", "w4a16-rtn", "w8a8"} <= set(names())
    for name in names():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert parse({**recipe.as_dict()}, "again").sha256 == recipe.sha256


def test_what_packaged_recipes_say_of_themselves() -> None:
    recipes = {name: load_recipe(name) for name in names()}
    for name, recipe in recipes.items():
        said = about(name)
        assert recipe.about == said and said.purpose and said.cost and said.sizes
        assert said.text == recipe.calibrated, name
    does = {name: {**recipe.as_dict(), "name": ""} for name, recipe in recipes.items()}
    for name, other in itertools.permutations(recipes, 2):
        assert (does[name] == does[other]) == about(name).purpose.endswith(f"the same as {other}")


def test_the_list_says_purpose_and_cost_and_asked_for_them_the_figures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["recipe", "list"]) == 0
    short = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{short}" for name in names())
    assert "cost: 102 CPU s, 0.7 GB; needs text" in short and "recipe list --figures" in short
    assert max(map(len, short.splitlines())) <= 80 and "SmolLM2: " not in short
    assert run(["recipe", "list", "--figures"]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) > 2 * len(short.splitlines())
    assert shown.startswith("fast ") and all(f"\n{name} " in f"\n{shown}" for name in names())
    assert "needs text" in shown and "SmolLM2: 91 MB of 542; on news KL 0.173" in shown
    assert "the text is lost" in shown and "open in plain transformers" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80
    assert "cost: 102 CPU s, 0.7 GB; needs text" in shown and "MiniLM: not measured" not in shown


def test_the_presets_go_from_seconds_without_data_to_everything_that_helps(pico_llama: Path) -> None:
    fast, balanced, best = map(load_recipe, ("fast", "balanced", "best"))
    assert not fast.calibrated and balanced.calibrated and best.calibrated
    assert [name for name, _ in best.steps] == ["awq", "gptq", "tune"]
    source = WeightSource.open(pico_llama)
    rates = Rates(2e10, 1.5e10, 2e4, 1e8, 2e9, 1e9, 4.0)
    work = [seconds_of(source, recipe, 64, 64, 1024, rates) for recipe in (fast, balanced, best)]
    assert work == sorted(work)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"passes": [{"pass": "gptq", "shceme": "W4A16"}]}, "'scheme'"),
        ({"passes": [{"pass": "gtpq", "scheme": "W4A16"}]}, "'gptq'"),
        ({"passes": [{"pass": "gptq", "scheme": "W4A61"}]}, "W4A16"),
        ({"pases": [{"pass": "gptq"}]}, "'passes'"),
        ({"passes": []}, "at least one pass"),
        ({"passes": [{"scheme": "W4A16"}]}, "'pass' key"),
        ({"passes": [{"pass": "gptq"}]}, "scheme"),
        ({"passes": [{"pass": "magnitude", "sparsity": 1.5}]}, "less than 1"),
        ({"passes": [{"pass": "w8a8"}], "embedding": "W8A8"}, "weight-only"),
        ({"passes": [{"pass": "w8a8"}], "calibration": {"sampels": 3}}, "'samples'"),
        ({"passes": [{"pass": "w8a8"}], "calibration": {"samples": 0}}, "greater than or equal to 1"),
        (["passes"], "not a mapping"),
        ({"passes": [{"pass": "rtn", "scheme": {"bits": 7}}]}, "bits"),
        ({"passes": [{"pass": "../../x"}]}, "unknown pass"),
        ({"passes": [{"pass": "rtn", "scheme": "W4A61"}]}, "r.yaml, pass 1 (rtn): unknown scheme 'W4A61'"),
        ({"passes": [{"pass": "w8a8"}], "embedding": "W4A61"}, "r.yaml: unknown scheme 'W4A61'"),
        ({"passes": [{"pass": "distill", "student": "x" * 5000}]}, "no name of a file"),
        ({"passes": [{"pass": "vocabulary", "corpus": ""}]}, "no name of a file"),
        ({"passes": [{"pass": "w8a8"}], "calibration": {"source": "a\0b"}}, "no name of a file"),
        ({"passes": [{"pass": "allocate", "plan": {}}]}, "the plan names no layer"),
        ({"passes": [{"pass": "allocate", "bits": 4, "costs": {"a": {"W4A16": math.inf}}}]}, "finite"),
    ],
)
def test_mistakes_name_the_place_and_the_way_out(data: object, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(data, "r.yaml")
    assert message in str(caught.value)


def test_embedding_and_head_take_integers_of_any_width() -> None:
    for bits in (2, 3, 4, 8):
        found = parse({"passes": [{"pass": "w8a8"}], "embedding": f"W{bits}A16-g32", "head": None}, "r.yaml")
        assert found.tables == (Scheme.parse(f"W{bits}A16-g32"), None)


@pytest.mark.parametrize(
    "text", ["a: [", "!!python/object/apply:os.system ['true']", "\x00", "passes: *x", "1: 2", ""]
)
def test_hostile_files_are_typed_errors(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(EdgepressError):
        load_recipe(str(path))


@pytest.mark.parametrize("manifest", ["[]", '{"steps": 3}', '{"steps": [{"details": {"costs": {"a": 5}}}]}'])
@pytest.mark.parametrize("option", ["plan", "costs"])
def test_a_checkpoint_that_no_allocation_made_gives_no_plan_and_no_costs(
    tmp_path: Path, option: str, manifest: str
) -> None:
    (tmp_path / "edgepress.json").write_text(manifest)
    with pytest.raises(RecipeError, match="allocat"):
        parse({"passes": [{"pass": "allocate", option: str(tmp_path)}]}, "r.yaml")


def test_hash_changes_with_any_option() -> None:
    base = {"passes": [{"pass": "gptq", "scheme": "W4A16"}]}
    changed = {"passes": [{"pass": "gptq", "scheme": "W4A16", "damping": 0.02}]}
    explicit = {"passes": [{"pass": "gptq", "scheme": "W4A16-g128", "damping": 0.01}]}
    assert parse(base, "a").sha256 == parse(explicit, "b").sha256 != parse(changed, "c").sha256


def test_schema_lists_every_pass_and_what_its_options_are() -> None:
    document = json.loads(json.dumps(schema()))
    entries = {entry["title"]: entry for entry in document["properties"]["passes"]["items"]["oneOf"]}
    assert set(entries) == set(pass_names()) >= {"gptq", "hqq", "rtn", "sparsegpt", "prune"}
    for entry in entries.values():
        options = entry["properties"].values()
        assert entry["description"] and all("const" in one or one["description"] for one in options)
    assert set(document["properties"]["training"]["properties"]) == set(TrainingOptions.model_fields)
    assert "training" in entries["tune"]["properties"] and "training" not in entries["gptq"]["properties"]


def steps(*passes: dict[str, Any], **recipe: Any) -> list[Any]:
    return parse({"passes": list(passes), **recipe}, "r.yaml").as_dict()["passes"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("old", "new", "note"),
    [
        (
            {"pass": "w8a8", "search": "minmax"},
            {"pass": "rtn", "scheme": "W8A8", "search": "minmax"},
            "rtn with",
        ),
        ({"pass": "ffn", "keep": 0.8}, {"pass": "narrow", "parts": ["mlp"], "keep": 0.8}, "parts: [mlp]"),
        (
            {"pass": "heads", "keep": 0.8},
            {"pass": "narrow", "parts": ["attention"], "keep": 0.8},
            "[attention]",
        ),
        (
            {"pass": "magnitude", "sparsity": 0.5},
            {"pass": "prune", "score": "magnitude", "sparsity": 0.5},
            "prune",
        ),
        ({"pass": "wanda", "pattern": "2:4"}, {"pass": "prune", "score": "wanda", "pattern": "2:4"}, "prune"),
        (
            {"pass": "recover", "train": "lora", "tokens": 500},
            {
                "pass": "distill",
                "losses": "outputs",
                "train": "lora",
                "training": {"learning_rate": 1e-3, "epochs": 2, "tokens": 500},
            },
            "losses: outputs",
        ),
        (
            {"pass": "tune", "learning_rate": 0.01},
            {"pass": "tune", "training": {"learning_rate": 0.01}},
            "`learning_rate` of tune is now training.learning_rate",
        ),
        (
            {"pass": "qat", "piece_tokens": 64, "seed": 3},
            {"pass": "qat", "training": {"micro_batch_tokens": 64, "seed": 3}},
            "training: {micro_batch_tokens, seed}",
        ),
        (
            {"pass": "block_qat", "scheme": "W3A16-g64", "epochs": 2},
            {"pass": "block_qat", "scheme": "W3A16-g64", "training": {"epochs": 2}},
            "training.epochs",
        ),
        (
            {"pass": "allocate_sparsity", "sparsity": 0.5, "using": {"pass": "wanda"}},
            {"pass": "allocate_sparsity", "sparsity": 0.5, "using": {"pass": "prune", "score": "wanda"}},
            "prune with score: wanda",
        ),
    ],
)
def test_old_names_are_the_new_ones_and_say_so_once(old: Any, new: Any, note: str) -> None:
    recipe = parse({"passes": [old, old]}, "r.yaml")
    assert recipe.sha256 == parse({"passes": [new, new]}, "r.yaml").sha256
    assert sum(note in one for one in recipe.notes) == 1
    assert not parse({"passes": [new]}, "r.yaml").notes


def test_old_names_are_said_where_a_recipe_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("passes: [{pass: w8a8}]\n")
    for verb in ("check", "show"):
        assert run(["recipe", verb, str(path)]) == 0
        assert "the pass w8a8 is now rtn with scheme: W8A8" in capsys.readouterr().err


def test_training_is_the_recipes_and_over_it_the_passes_own() -> None:
    first, second, blocks = steps(
        {"pass": "tune", "training": {"epochs": 7}},
        {"pass": "distill"},
        {"pass": "block_qat", "scheme": "W3A16-g64"},
        training={"epochs": 3, "tokens": 500},
    )
    assert (first["training"]["epochs"], first["training"]["tokens"]) == (7, 500)
    assert (second["training"]["epochs"], second["training"]["learning_rate"]) == (3, 4e-3)
    assert (blocks["training"]["epochs"], blocks["training"]["learning_rate"]) == (3, 2e-2)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"passes": [{"pass": "tune"}], "training": {"epochz": 3}}, "'epochs'"),
        ({"passes": [{"pass": "tune", "training": {"epochz": 3}}]}, "'epochs'"),
        ({"passes": [{"pass": "tune", "training": {"epochs": 0}}]}, "training.epochs"),
        ({"passes": [{"pass": "tune", "training": 3}]}, "training"),
        ({"passes": [{"pass": "tune"}], "training": [3]}, "must be a mapping"),
        ({"passes": [{"pass": "rtn", "scheme": "W4A16"}], "training": {"epochs": 3}}, "no pass trains"),
        ({"passes": [{"pass": "tune", "epochs": 3, "training": {"epochs": 3}}]}, "given twice"),
        (
            {"passes": [{"pass": "block_qat", "scheme": "W4A16", "training": {"tokens": 3}}]},
            "'training.tokens'",
        ),
        ({"passes": [{"pass": "ffn", "keep": 0.5, "parts": ["mlp"]}]}, "no option 'parts'"),
        ({"passes": [{"pass": "gptq", "scheme": "W4A16", "block": 32}]}, "block of gptq is fixed at 64"),
        ({"passes": [{"pass": "rotate", "targets": ["q"]}]}, "targets of rotate is fixed at [*]"),
        ({"passes": [{"pass": "allocate", "bits": 4, "using": {"pass": "gptq", "block": 3}}]}, "fixed at 64"),
        (
            {
                "passes": [
                    {"pass": "allocate_sparsity", "sparsity": 0.5, "using": {"pass": "alps", "samples": 3}}
                ]
            },
            "pass 1 (allocate_sparsity): using names a pass",
        ),
    ],
)
def test_what_cannot_be_set_says_why(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(recipe, "r.yaml")
    assert message in str(caught.value)


def test_what_is_fixed_may_still_be_said_and_stays_in_the_record() -> None:
    plain, said = (
        {"pass": "gptq", "scheme": "W4A16", **more} for more in ({}, {"block": 64, "search": "mse"})
    )
    assert steps(plain) == steps(said) and steps(plain)[0]["block"] == 64
    assert not parse({"passes": [said]}, "r.yaml").notes


@pytest.mark.parametrize("name", [*pass_names(), "training"])
def test_every_option_is_described_within_80_columns(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipe", "passes", name, "--json"]) == 0
    options = json.loads(capsys.readouterr().out)["options"]
    assert options and all(option["description"] for option in options)
    assert run(["recipe", "passes", name]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert all(option["name"] in shown for option in options)
    private = r"\b(minds?|anew|told|spoilt|written down|in turns|share|pieces?|asked|heard|makes? up for)\b"
    assert not [one for one in options if re.search(private, one["description"])]


def test_the_passes_are_listed_with_their_old_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipe", "passes"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in pass_names()) and "ffn: narrow with parts: [mlp]" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert run(["recipe", "passes", "heads"]) == 0
    assert capsys.readouterr().out.startswith("heads: narrow with parts: [attention]")
    assert run(["recipe", "passes", "gptk"]) == 2
    assert "did you mean 'gptq'" in capsys.readouterr().err


def test_the_list_knows_which_passes_need_text() -> None:
    given = {"scheme": "W4A16", "keep": 0.5, "sparsity": 0.5, "score": "magnitude", "bits": 4}
    for name in pass_names():
        kind = pass_type(name)
        options = {key: value for key, value in given.items() if key in kind.model_fields}
        options |= {"smoothquant": {"scheme": "W8A8"}, "k_quants": {"scheme": "Q4_K"}}.get(name, {})
        always, never = (
            kind.text == "yes",
            kind.text in ("no", "for static activations", "for wanda", "to learn"),
        )
        calibrated = kind.model_validate(options).calibrated
        assert calibrated >= always and not (calibrated and never), name
