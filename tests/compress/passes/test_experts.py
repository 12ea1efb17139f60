"""Mixtures of experts: how they are read, which experts go, and where the result loads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.api import plan_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.pipeline.block import LayerStatus
from edgepress.compress.pipeline.collect import coverage
from edgepress.compress.prune.structured.expert_pruning import ExpertUse
from edgepress.errors import InputError, RecipeError
from edgepress.files.storage import read_json
from torch import Tensor

from ...rounding import same_sums

CALIBRATED: dict[str, Any] = {"samples": 16, "length": 32}
SIZES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 6, "num_experts_per_tok": 2, "sliding_window": None},
    "qwen3_moe": {
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "norm_topk_prob": True,
    },
    "granitemoe": {"num_local_experts": 6, "num_experts_per_tok": 2},
    "gpt_oss": {
        "num_local_experts": 6,
        "num_experts_per_tok": 2,
        "swiglu_limit": 7.0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 150000.0},
    },
    "deepseek_v3": {"n_routed_experts": 6, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1},
}
SPARSE = {"pass": "sparsegpt", "sparsity": 0.5}
BLOCKS_OF_CODES = {"pass": "k_quants", "scheme": "IQ4_NL"}


def outputs(model: Any) -> Tensor:
    ids = torch.randint(5, 110, (2, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(ids).logits  # type: ignore[no-any-return]


@pytest.fixture(params=list(SIZES))
def mixture(request: pytest.FixtureRequest, make_decoder: Callable[..., Path], tmp_path: Path) -> Path:
    return make_decoder(tmp_path / "m", request.param, **SIZES[request.param])


def experts(seed: int = 0) -> tuple[ExpertUse, Tensor, Tensor, Tensor]:
    """The use of four linear experts, and rows with their routing: to two of them, the last one never."""
    generator = torch.Generator().manual_seed(seed)
    weights, router = torch.randn(4, 5, 5, generator=generator), torch.randn(4, 5, generator=generator)
    rows = torch.randn(40, 5, generator=generator)
    scores, indices = torch.softmax(rows @ router[:3].T, -1).topk(2)
    return ExpertUse(4, lambda expert, rows: rows @ weights[expert].T), rows, scores, indices


def test_saliency_is_the_naive_mean_of_routed_outputs() -> None:
    use, rows, scores, indices = experts()
    for part in (slice(0, 15), slice(15, 40)):
        use.add(rows[part], scores[part], indices[part])
    totals: dict[int, list[float]] = {expert: [] for expert in range(4)}
    for row, weight, chosen in zip(rows, scores, indices, strict=True):
        for score, expert in zip(weight.tolist(), chosen.tolist(), strict=True):
            totals[expert].append(score * float(use.output(expert, row).norm()))
    naive = [sum(found) / len(found) if found else 0.0 for found in totals.values()]
    assert torch.allclose(use.saliency("routed"), torch.tensor(naive), atol=1e-5)
    assert use.saliency("frequency").tolist() == [len(found) for found in totals.values()]
    assert 3 not in use.kept("routed", 3)


def test_each_group_keeps_as_many() -> None:
    use, _, _, _ = experts()
    use.chosen = torch.tensor([9.0, 8.0, 1.0, 2.0])
    assert use.kept("frequency", 2) == [0, 1]
    assert use.kept("frequency", 2, groups=2) == [0, 3]
    assert use.kept("frequency", 4, groups=2) == [0, 1, 2, 3]


def test_an_expert_that_is_another_ones_twin_is_merged_into_it() -> None:
    use, rows, scores, indices = experts()
    plain = use.output
    use.output = lambda expert, rows: plain({3: 1}.get(expert, expert), rows)
    use.add(rows, scores, indices)
    assert use.merging([0, 1, 2]) == [{0: 1.0}, {1: 1.0, 3: 0.0}, {2: 1.0}]
    counts = use.chosen
    merged = use.merging([0, 2])
    (mean,) = (one for one in merged if 1 in one)
    first = next(iter(mean))
    assert mean[1] == pytest.approx(float(counts[1] / (counts[first] + counts[1])))
    assert all(sum(one.values()) == pytest.approx(1) for one in merged)


@pytest.mark.chain
def test_a_mixture_is_read_as_transformers_reads_it(mixture: Path) -> None:
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(mixture, dtype=torch.float32).eval()
    assert torch.allclose(outputs(load_model(mixture)), outputs(plain), atol=1e-5)


@pytest.mark.chain
@pytest.mark.parametrize(
    ("criterion", "method"),
    [
        ("routed", "drop"),
        ("frequency", "merge"),
        pytest.param("routed", "merge", marks=pytest.mark.slow),
        pytest.param("frequency", "drop", marks=pytest.mark.slow),
    ],
)
def test_fewer_experts_load_in_plain_transformers(
    method: str, criterion: str, mixture: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    from transformers import AutoModelForCausalLM

    step = {"pass": "experts", "keep": 0.7, "method": method, "criterion": criterion}
    out = run(mixture, pico_text, tmp_path, step)
    plain = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    assert same_sums(outputs(load_model(out)), outputs(plain))
    blocks = WeightSource.open(out).anatomy.blocks
    assert {block.experts.count for block in blocks if block.experts is not None} == {4}
    found = read_json(out / "edgepress.json")["steps"][0]
    assert found["damage"]["kl"] > 0 and found["details"]["experts"] == 4
    groups = [block.experts.groups for block in blocks if block.experts is not None]
    assert set(groups) == {2 if blocks[0].attention.latent else 1}


@pytest.mark.chain
def test_dropped_experts_are_the_originals_without_their_rows(
    mixture: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    out = run(mixture, pico_text, tmp_path, {"pass": "experts", "keep": 0.7})
    before, after = WeightSource.open(mixture), WeightSource.open(out)
    removed = read_json(out / "edgepress.json")["steps"][0]["details"]["removed"]
    for block in before.anatomy.blocks:
        if block.experts is None:
            continue
        stays = [one for one in range(6) if one not in removed[block.prefix]]
        routers = [name for name in before.names() if name.startswith(f"{block.experts.router}.")]
        for name in routers:
            assert torch.equal(after.tensor(name), before.tensor(name)[stays])
        assert routers == [name for name in after.names() if name.startswith(f"{block.experts.router}.")]
        for place, expert in enumerate(stays):
            start = f"{block.experts.prefix}.{expert}."
            for old in (name for name in before.names() if name.startswith(start)):
                new = f"{block.experts.prefix}.{place}.{old.removeprefix(start)}"
                assert torch.equal(after.tensor(new), before.tensor(old))


@pytest.mark.chain
def test_dropped_experts_take_codes_and_zeros_with_them(
    make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    model = make_decoder(tmp_path / "m", "qwen3_moe", **SIZES["qwen3_moe"])
    prune = {"pass": "prune", "sparsity": 0.5, "score": "magnitude"}
    drop = {"pass": "experts", "keep": 0.7}
    whole = WeightSource.open(run(model, pico_text, tmp_path, {"pass": "rtn", "scheme": "W4A16-g16"}, drop))
    later = WeightSource.open(
        run(model, pico_text, tmp_path, prune, drop, {"pass": "gptq", "scheme": "W4A16-g16"}, name="later")
    )
    for block in whole.anatomy.blocks:
        names = [linear.name for linear in block.expert_linears()]
        assert len(names) == 12 and set(names) <= whole.schemes.keys()
        for name in names:
            assert float((later.dense(name) == 0).float().mean()) >= 0.5
    merge = {"pass": "experts", "keep": 0.7, "method": "merge"}
    with pytest.raises(RecipeError, match="a mean of codes is none"):
        run(model, pico_text, tmp_path, {"pass": "rtn", "scheme": "W4A16-g16"}, merge, name="merged")


def test_what_cannot_be_done_is_refused_before_any_work(
    mixture: Path, pico_llama: Path, pico_text: Path, tmp_path: Path, recipe: Callable[..., str]
) -> None:
    for step, model, error, text in (
        ({"pass": "experts", "keep": 0.17}, mixture, RecipeError, "a token takes 2"),
        ({"pass": "experts", "keep": 0.7}, pico_llama, InputError, "no experts"),
        ({"pass": "narrow", "keep": 0.7}, mixture, RecipeError, "mixture of experts"),
        ({"pass": "layers", "keep": 0.6}, mixture, RecipeError, "a sum over experts"),
        ({"pass": "rtn", "scheme": "NVFP4A16"}, mixture, RecipeError, "not for a mixture of experts"),
    ):
        with pytest.raises(error, match=text):
            plan_model(str(model), recipe=recipe(tmp_path, step))


@pytest.mark.chain
@pytest.mark.parametrize(
    ("mixture", "step"),
    [
        *((family, SPARSE) for family in SIZES),
        ("mixtral", BLOCKS_OF_CODES),
        *(
            pytest.param(family, step, marks=pytest.mark.slow)
            for family in SIZES
            for step in (
                {"pass": "gptq", "scheme": "W4A16-g16"},
                {"pass": "gptq", "scheme": "IQ4_NL"},
                *([] if family == "mixtral" else [BLOCKS_OF_CODES]),
            )
        ),
    ],
    indirect=["mixture"],
    ids=lambda given: given if isinstance(given, str) else "-".join(map(str, given.values())),
)
def test_each_expert_is_solved_from_the_tokens_that_come_to_it(
    step: dict[str, Any], mixture: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    out = run(mixture, pico_text, tmp_path, step)
    source = WeightSource.open(out)
    layers = {layer["name"]: layer for layer in read_json(out / "edgepress.json")["layers"]}
    for block in source.anatomy.blocks:
        names = [linear.name for linear in block.expert_linears()]
        if block.experts is None:
            continue
        parts = len(block.experts.parts)
        assert len(names) == 6 * parts
        said = [layers[name]["detail"].split("; ")[-1].split(" ")[0] for name in names[::parts]]
        seen = [0 if word == "no" else int(word) for word in said]
        assert sum(seen) == 2 * CALIBRATED["samples"] * CALIBRATED["length"]
        for name in names:
            weight, before = source.dense(name), WeightSource.open(mixture).dense(name)
            assert ("no calibration token" in layers[name]["detail"]) == (
                layers[name]["status"][:4] == "fall"
            )
            assert 0 < float((weight - before).norm() / before.norm()) < 0.8
    assert torch.isfinite(outputs(load_model(out))).all()


def test_experts_that_few_tokens_came_to_are_named(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    mixture = make_decoder(tmp_path / "m", "mixtral", **SIZES["mixtral"])
    block = WeightSource.open(mixture).anatomy.blocks[1]
    assert block.experts is not None
    linears, counts = list(block.expert_linears()), (300, 0, 17, 999, 256, 255)
    seen = [(linear.name, counts[index // 3]) for index, linear in enumerate(linears)]
    statuses = [LayerStatus(name, "gptq", "W4A16", "ok", 0.0, "output") for name, _ in seen]
    said = coverage(block, dict(seen), statuses)
    assert said is not None and "3 of 6 experts: 1 (0), 2 (17), 5 (255)" in said
    assert statuses[0].detail == "300 tokens"
    assert statuses[4].detail == "no calibration token came to this expert"
    everywhere = {name: 500 for name, _ in seen}
    assert coverage(block, everywhere, []) is None and coverage(block, {}, statuses) is None


@pytest.mark.chain
def test_the_plan_counts_all_experts(mixture: Path, tmp_path: Path, recipe: Callable[..., str]) -> None:
    plan = plan_model(str(mixture), recipe=recipe(tmp_path, {"pass": "experts", "keep": 0.7}))
    step = plan.steps[0]
    assert step.bytes_before == 4 * step.weights and step.bytes_after == step.bytes_before * 4 // 6
