"""What learns or shares out a budget, on mixtures of experts: every expert is a unit of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.measure.sensitivity import BatchChangeLosses
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.solve.allocation import with_unseen
from edgepress.compress.solve.gptq_losses import GptqChangeLosses
from edgepress.compress.text.calibration import calibration_from
from edgepress.compress.text.micro_batches import micro_batches_of
from edgepress.files.storage import read_json
from edgepress.runtime.text.tokenizer import Tokenizer
from torch import Tensor

SHARED: dict[str, Any] = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 64,
}
SIZES: dict[str, dict[str, Any]] = {
    "qwen2_moe": SHARED,
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {},
    "deepseek_v3": {},
}
S3 = "W3A16-g16"
SCHEMES = ["W2A16-g16", S3, "W4A16-g16"]
LEARN = {"batch_tokens": 64, "micro_batch_tokens": 64, "learning_rate": 0.005, "epochs": 3}
ROUND = {"pass": "rtn", "scheme": S3}
PRUNE = {"pass": "prune", "sparsity": 0.5, "score": "magnitude"}
# A recipe, and what it has to be better than.
RECIPES: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "autoround": ([{"pass": "autoround", "scheme": S3, "iterations": 30}], [ROUND]),
    "block_qat": ([{"pass": "block_qat", "scheme": S3}], [ROUND]),
    "allocate": (
        [{"pass": "allocate", "bits": 4, "schemes": SCHEMES, "using": {"pass": "gptq"}}],
        [ROUND],
    ),
    "allocate_sparsity": ([{"pass": "allocate_sparsity", "sparsity": 0.5}], [PRUNE]),
    "tune": ([ROUND, {"pass": "tune", "training": LEARN}], [ROUND]),
    "qat": ([ROUND, {"pass": "qat", "training": LEARN}], [ROUND]),
    "distill": ([PRUNE, {"pass": "distill", "training": LEARN}], [PRUNE]),
}
_SLOW = [pytest.mark.slow]
# These two learn by a block, and by the whole model; the others are slow.
SOON = ("block_qat", "tune")


@pytest.mark.chain
@pytest.mark.parametrize("name", [pytest.param(one, marks=[] if one in SOON else _SLOW) for one in RECIPES])
@pytest.mark.parametrize(
    "family", ["qwen2_moe", *(pytest.param(name, marks=_SLOW) for name in list(SIZES)[1:])]
)
def test_a_mixture_learns(
    family: str,
    name: str,
    make_decoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    run: Callable[..., Path],
    distance: Callable[[Path, Path, Path], float],
) -> None:
    model = make_decoder(tmp_path / "m", family, **SIZES[family])
    steps, plain = RECIPES[name]
    out = run(model, pico_text, tmp_path, *steps)
    other = run(model, pico_text, tmp_path, *plain, name="plain")
    assert distance(model, out, pico_text) < distance(model, other, pico_text)
    after, before = WeightSource.open(out), WeightSource.open(other)
    for block in after.anatomy.blocks:
        for linear in block.expert_linears():
            assert not torch.equal(after.dense(linear.name), before.dense(linear.name)), linear.name
    assert not {layer["status"] for layer in read_json(out / "edgepress.json")["layers"]} - {"ok", "damped"}


def swept_costs(
    swept: Callable[..., dict[str, Tensor]], model: Path, text: Path, kind: type[BatchChangeLosses]
) -> tuple[dict[str, Tensor], Any]:
    calibration = calibration_from(
        str(text), Tokenizer.open(model), kind="decoder", batch_size=2, samples=6, length=8
    )
    micro_batches, scheme = micro_batches_of(calibration, 16), Scheme.parse("W2A16-g16")

    def measure(block: Any, weight: Callable[[str], Tensor]) -> dict[str, BatchChangeLosses]:
        names = [linear.name for linear in block.linears()]
        return {name: kind(name, weight(name), [quantize(weight(name), scheme)]) for name in names}

    return swept(model, micro_batches, measure), micro_batches


def test_costs_by_batch_have_a_row_for_each_though_experts_see_nothing_of_some(
    make_decoder: Callable[..., Path], pico_text: Path, swept: Callable[..., Any], tmp_path: Path
) -> None:
    model = make_decoder(tmp_path / "m", "qwen3_moe", **SHARED | {"num_experts": 12})
    found, micro_batches = swept_costs(swept, model, pico_text, BatchChangeLosses)
    assert {len(rows) for rows in found.values()} == {len(micro_batches)}
    experts = [name for name in found if ".experts." in name]
    assert any(0 in found[name] and bool(found[name].any()) for name in experts)


def test_the_gram_of_an_expert_is_of_its_real_tokens_alone(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    """Padding goes through experts too, and comes to one more than to others."""
    from edgepress.compress.measure.fisher import looking
    from edgepress.compress.model.skeleton import Skeleton

    source = WeightSource.open(make_decoder(tmp_path / "m", "qwen3_moe", **SHARED))
    skeleton, block = Skeleton(source, torch.device("cpu")), source.anatomy.blocks[1]
    module = skeleton.fill_block(1)
    experts = list(block.expert_mlps())
    observers = {
        one.up.name: GptqChangeLosses(one.up.name, source.dense(one.up.name), [Scheme.parse("W4A16-g16")])
        for one in experts
    }
    states = torch.randn(2, 9, 64, generator=torch.Generator().manual_seed(0))
    real = torch.tensor([[True] * 9, [True] * 4 + [False] * 5])
    seen: dict[str, Tensor] = {}
    with looking(skeleton, observers, block) as expect:
        assert expect is not None
        expect(real, None)
        with torch.no_grad():
            module.get_submodule("mlp")(states)
        seen = {name: one.gram.clone() for name, one in observers.items()}
    router = module.get_submodule("mlp.gate").get_parameter("weight")
    rows = states.flatten(0, 1)[real.flatten()]
    chosen = (rows @ router.T).topk(2).indices
    for index, one in enumerate(experts):
        mine = rows[(chosen == index).any(1)]
        assert torch.allclose(seen[one.up.name], mine.T @ mine, atol=1e-4)


def test_layers_that_saw_nothing_cost_what_the_others_cost(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    blocks = WeightSource.open(make_decoder(tmp_path / "m", "qwen2_moe", **SHARED)).anatomy.blocks
    first = list(blocks[0].expert_mlps())
    costs = {linear.name: [4.0, 1.0] for block in blocks for linear in block.linears()}
    costs[first[0].down.name] = [8.0, 3.0]
    costs[first[2].down.name] = [0.0, 0.0]
    for mlp in blocks[1].expert_mlps():
        costs[mlp.up.name] = [0.0, 0.0]
    found, unseen = with_unseen(blocks, costs)
    assert unseen == [first[2].down.name]
    assert found.pop(first[2].down.name) == pytest.approx([16 / 3, 5 / 3])
    assert found == {name: one for name, one in costs.items() if name != first[2].down.name}


@pytest.mark.chain
def test_what_learned_is_what_plain_transformers_reads(
    make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    from transformers import AutoModelForCausalLM

    model = make_decoder(tmp_path / "m", "qwen2_moe", **SHARED)
    out = run(model, pico_text, tmp_path, *RECIPES["distill"][0])
    plain = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    ids = torch.randint(5, 110, (2, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(plain(ids).logits, load_model(out)(ids).logits, atol=1e-5)


@pytest.mark.chain
@pytest.mark.parametrize(
    "step", [{"pass": "embedding", "scheme": "W4A16-g32"}, {"pass": "vocabulary", "size": 262}]
)
def test_what_changes_tables_alone_leaves_the_blocks(
    step: dict[str, Any],
    make_decoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    run: Callable[..., Path],
) -> None:
    model = make_decoder(tmp_path / "m", "deepseek_v3")
    out = run(model, pico_text, tmp_path, step)
    before, after = WeightSource.open(model), WeightSource.open(out)
    assert not torch.equal(
        before.tensor("model.embed_tokens.weight"), after.tensor("model.embed_tokens.weight")
    )
    for block in before.anatomy.blocks:
        for name in before.names(f"{block.prefix}."):
            assert torch.equal(before.tensor(name), after.tensor(name)), name
