"""Mixtures of experts: how they are read, which experts go, and where the result loads."""

from __future__ import annotations

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
from edgepress.compress.prune.structured.expert_pruning import ExpertUse, ExpertWeights
from edgepress.errors import InputError, RecipeError
from edgepress.storage import read_json
from torch import Tensor

CALIBRATED: dict[str, Any] = {"samples": 16, "length": 32}
SIZES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 6, "num_experts_per_tok": 2, "sliding_window": None},
    "qwen3_moe": {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "granitemoe": {"num_local_experts": 6, "num_experts_per_tok": 2},
}


def outputs(model: Any) -> Tensor:
    ids = torch.randint(5, 110, (2, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(ids).logits  # type: ignore[no-any-return]


@pytest.fixture(params=list(SIZES))
def mixture(request: pytest.FixtureRequest, make_decoder: Callable[..., Path], tmp_path: Path) -> Path:
    return make_decoder(tmp_path / "m", request.param, **SIZES[request.param])


def experts(seed: int = 0) -> tuple[ExpertWeights, Tensor, Tensor, Tensor]:
    """Four experts, and rows with their routing: two experts a token, the last one never."""
    generator = torch.Generator().manual_seed(seed)
    weights = ExpertWeights(
        torch.randn(4, 6, 5, generator=generator),
        torch.randn(4, 5, 3, generator=generator),
        torch.randn(4, 5, generator=generator),
    )
    rows = torch.randn(40, 5, generator=generator)
    scores, indices = torch.softmax(rows @ weights.router[:3].T, -1).topk(2)
    return weights, rows, scores, indices


def test_saliency_is_the_naive_mean_of_routed_outputs() -> None:
    weights, rows, scores, indices = experts()
    use, activation = ExpertUse(weights, torch.nn.SiLU()), torch.nn.SiLU()
    for part in (slice(0, 15), slice(15, 40)):
        use.add(rows[part], scores[part], indices[part])
    totals: dict[int, list[float]] = {expert: [] for expert in range(4)}
    for row, weight, chosen in zip(rows, scores, indices, strict=True):
        for score, expert in zip(weight.tolist(), chosen.tolist(), strict=True):
            gate, up = (weights.gate_up[expert] @ row).chunk(2)
            totals[expert].append(score * float((weights.down[expert] @ (activation(gate) * up)).norm()))
    naive = [sum(found) / len(found) if found else 0.0 for found in totals.values()]
    assert torch.allclose(use.saliency("routed"), torch.tensor(naive), atol=1e-5)
    assert use.saliency("frequency").tolist() == [len(found) for found in totals.values()]
    assert 3 not in use.kept("routed", 3).tolist()


def test_an_expert_that_is_another_ones_twin_is_merged_into_it() -> None:
    weights, rows, scores, indices = experts()
    weights.gate_up[3], weights.down[3] = weights.gate_up[1], weights.down[1]
    use = ExpertUse(weights, torch.nn.SiLU())
    use.add(rows, scores, indices)
    merged = use.merged([0, 1, 2])
    assert torch.equal(merged.router, weights.router[:3])
    assert torch.allclose(merged.gate_up, weights.gate_up[:3], atol=1e-6)
    averaged = use.merged([0, 2])
    share = use.chosen[[0, 1, 2]]
    groups = [
        (0, 1) if torch.allclose(averaged.down[0], mean(weights.down, share, (0, 1)), atol=1e-5) else (0,),
        (2, 1) if torch.allclose(averaged.down[1], mean(weights.down, share, (2, 1)), atol=1e-5) else (2,),
    ]
    assert sorted(len(group) for group in groups) == [1, 2]


def mean(tensor: Tensor, share: Tensor, group: tuple[int, ...]) -> Tensor:
    return sum(share[one] * tensor[one] for one in group) / share[list(group)].sum()  # type: ignore[return-value]


@pytest.mark.chain
def test_a_mixture_is_read_as_transformers_reads_it(mixture: Path) -> None:
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(mixture, dtype=torch.float32).eval()
    assert torch.allclose(outputs(load_model(mixture)), outputs(plain), atol=1e-5)


@pytest.mark.chain
@pytest.mark.parametrize("method", ["drop", "merge"])
@pytest.mark.parametrize("criterion", ["routed", "frequency"])
def test_fewer_experts_load_in_plain_transformers(
    method: str, criterion: str, mixture: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    from transformers import AutoModelForCausalLM

    step = {"pass": "experts", "keep": 0.7, "method": method, "criterion": criterion}
    out = run(mixture, pico_text, tmp_path, step)
    plain = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    assert torch.allclose(outputs(plain), outputs(load_model(out)), atol=1e-5)
    blocks = WeightSource.open(out).anatomy.blocks
    assert {block.experts.count for block in blocks if block.experts is not None} == {4}
    found = read_json(out / "edgepress.json")["steps"][0]
    assert found["damage"]["kl"] > 0 and found["details"]["experts"] == 4


@pytest.mark.chain
def test_dropped_experts_are_the_originals_without_their_rows(
    mixture: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    out = run(mixture, pico_text, tmp_path, {"pass": "experts", "keep": 0.7})
    before, after = WeightSource.open(mixture), WeightSource.open(out)
    removed = read_json(out / "edgepress.json")["steps"][0]["details"]["removed"]
    for block in before.anatomy.blocks:
        assert block.experts is not None
        stays = [one for one in range(6) if one not in removed[block.prefix]]
        router = f"{block.experts.router}.weight"
        assert torch.equal(after.tensor(router), before.tensor(router)[stays])
        for place, expert in enumerate(stays):
            for new, old in zip(block.experts.stored(place), block.experts.stored(expert), strict=True):
                assert torch.equal(after.tensor(new), before.tensor(old))


def test_what_cannot_be_done_is_refused_before_any_work(
    mixture: Path, pico_llama: Path, pico_text: Path, tmp_path: Path, recipe: Callable[..., str]
) -> None:
    for step, model, error, text in (
        ({"pass": "experts", "keep": 0.2}, mixture, RecipeError, "a token takes 2"),
        ({"pass": "experts", "keep": 0.7}, pico_llama, InputError, "no experts"),
        ({"pass": "narrow", "keep": 0.7}, mixture, RecipeError, "mixture of experts"),
        ({"pass": "rtn", "scheme": "NVFP4A16"}, mixture, RecipeError, "not for a mixture of experts"),
    ):
        with pytest.raises(error, match=text):
            plan_model(str(model), recipe=recipe(tmp_path, step))


@pytest.mark.chain
@pytest.mark.parametrize("step", ["gptq", "sparsegpt"])
def test_each_expert_is_solved_from_the_tokens_that_come_to_it(
    step: str, mixture: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    options = {"scheme": "W4A16-g16"} if step == "gptq" else {"sparsity": 0.5}
    out = run(mixture, pico_text, tmp_path, {"pass": step, **options})
    source = WeightSource.open(out)
    layers = {layer["name"]: layer for layer in read_json(out / "edgepress.json")["layers"]}
    for block in source.anatomy.blocks:
        names = [linear.name for linear in block.expert_linears()]
        assert len(names) == 18
        seen = [int(layers[name]["detail"].split(" ")[0]) for name in names[::3]]
        assert sum(seen) == 2 * CALIBRATED["samples"] * CALIBRATED["length"]
        for name in names:
            weight, before = source.dense(name), WeightSource.open(mixture).dense(name)
            assert 0 < float((weight - before).norm() / before.norm()) < 0.8
    assert torch.isfinite(outputs(load_model(out))).all()


def test_experts_that_few_tokens_came_to_are_named(mixture: Path) -> None:
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
    plan = plan_model(str(mixture), recipe=recipe(tmp_path, {"pass": "experts", "keep": 0.5}))
    step = plan.steps[0]
    assert step.bytes_before == 4 * step.weights and step.bytes_after == step.bytes_before // 2
