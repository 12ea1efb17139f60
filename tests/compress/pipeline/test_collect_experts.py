"""What experts are compared with: what the original's would have made of the tokens that come to ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.passes.rtn import Rtn
from edgepress.compress.pipeline.block import Block
from edgepress.compress.pipeline.block_pass import BlockPass
from edgepress.compress.pipeline.journal import Journal
from edgepress.compress.pipeline.sweep import Sweep
from edgepress.compress.solve.group_solving import HALVES, collecting_runs
from edgepress.compress.text.calibration import calibration_from
from edgepress.files.storage import read_json
from edgepress.runtime.text.tokenizer import Tokenizer
from edgepress.terminal.progress import Silent
from torch import Tensor

SIZES: dict[str, dict[str, Any]] = {
    "qwen2_moe": {
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 64,
    },
    "granitemoe": {"num_local_experts": 6, "num_experts_per_tok": 2},
}
ONE_AFTER_ANOTHER: list[dict[str, Any]] = [
    {"pass": "gptq", "scheme": "W3A16-g16", "correction": 1},
    {"pass": "gptq", "scheme": "W3A16-g16", "sequential": True},
    {"pass": "sparsegpt", "sparsity": 0.5, "correction": 0.5},
    {"pass": "alps", "sparsity": 0.5, "sequential": True},
]
SEEN: dict[str, Tensor] = {}
COUNTED: dict[str, int] = {}


class Watch(BlockPass):
    """Keeps what it is shown."""

    needs: ClassVar[tuple[str, ...]] = HALVES
    compares: ClassVar[bool] = True

    def apply(self, block: Block) -> None:
        for linear in block.anatomy.linears():
            SEEN[linear.name] = sum(block.statistic(linear, name) for name in HALVES) / 2
        COUNTED.update(block.tokens)


def entering(model: Any, mlp: str, ids: Tensor) -> Tensor:
    """The rows that the MLP ``mlp`` of a model reads."""
    found: list[Tensor] = []
    model.get_submodule(mlp).register_forward_pre_hook(lambda _, args: found.append(args[0].flatten(0, 1)))
    with torch.no_grad():
        model(ids)
    return found[0]


def means(original: Tensor, current: Tensor) -> Tensor:
    """``E (x̃ − x) xᵀ`` over halves, of which the first has one row more where they are odd."""
    half = (len(current) + 1) // 2
    parts = [slice(half), slice(half, None)]
    found = [(original[p] - current[p]).T @ current[p] / max(len(current[p]), 1) for p in parts]
    return sum(found, torch.zeros_like(found[0])) / 2


@pytest.mark.chain
@pytest.mark.parametrize("model_type", list(SIZES))
def test_each_expert_of_the_original_is_shown_the_tokens_of_ours(
    model_type: str, make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path
) -> None:
    path = make_decoder(tmp_path / "m", model_type, **SIZES[model_type])
    source = WeightSource.open(path)
    calibration = calibration_from(
        str(pico_text), Tokenizer.open(path), kind="decoder", batch_size=8, samples=8, length=32
    )
    rounding = Rtn(scheme="W2A16-g16")
    steps: Any = [[("watch", Watch())], [("rtn", rounding)]]
    schemes = {"every linear": rounding.scheme}
    Sweep(
        source, steps, schemes, calibration, torch.device("cpu"), Journal.open(tmp_path, "key"), Silent()
    ).run()
    block, ids = source.anatomy.blocks[1], calibration.batches[0].input_ids
    original, current = load_model(path), load_model(path)
    for linear in source.anatomy.blocks[0].linears():
        rounded = quantize(source.dense(linear.name), rounding.scheme).dequantize()
        current.get_submodule(linear.name).weight.copy_(rounded)
    assert block.experts is not None
    mlp = block.experts.prefix.removesuffix(".experts")
    before, now = (entering(model, mlp, ids) for model in (original, current))
    router = current.get_submodule(block.experts.router.removesuffix(".layer"))
    with torch.no_grad():
        chosen = (now @ router.weight.T).topk(2).indices
        moved = chosen.sort(1).values != (before @ router.weight.T).topk(2).indices.sort(1).values
    assert bool(moved.any())  # else nothing is tested
    for index, expert in enumerate(block.expert_mlps()):
        tokens = (chosen == index).any(1)
        x, wanted = now[tokens], before[tokens]
        assert COUNTED[expert.up.name] == len(x)
        assert torch.allclose(SEEN[expert.up.name], means(wanted, x), atol=1e-4)
        assert expert.gate is not None
        gate, up = (source.dense(part.name) for part in (expert.gate, expert.up))
        inner = [torch.nn.functional.silu(rows @ gate.T) * (rows @ up.T) for rows in (wanted, x)]
        assert torch.allclose(SEEN[expert.down.name], means(*inner), atol=1e-4)


def test_all_experts_are_looked_at_in_two_runs_where_there_is_room(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    anatomy = WeightSource.open(make_decoder(tmp_path, "qwen2_moe", **SIZES["qwen2_moe"])).anatomy
    block = anatomy.blocks[0]
    runs = list(collecting_runs(block, lambda _: True, lambda _: 1))
    assert [len(run) for run in runs] == [1, 1, 7, 7]
    assert [group for run in runs[:2] for group in run] == [list(group) for group in block.mixer.inputs()]
    weights = 4 * sum(linear.out_features * linear.in_features for linear in block.expert_linears())
    assert [len(run) for run in collecting_runs(block, lambda _: True, lambda _: weights // 3)][2:4] == [3, 3]
    assert len(list(collecting_runs(block, lambda _: True, lambda _: 2 * weights))) == 16
    down = list(collecting_runs(block, lambda linear: linear.role == "down", lambda _: 1))
    assert [len(run) for run in down] == [7]


@pytest.mark.chain
@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        # Each way to solve with one of the families, with the others among the slow tests.
        pytest.param(model_type, options, marks=() if (place + other) % len(SIZES) == 0 else pytest.mark.slow)
        for place, options in enumerate(ONE_AFTER_ANOTHER)
        for other, model_type in enumerate(SIZES)
    ],
)
def test_solving_one_group_after_another_beats_the_plain_way(
    model_type: str,
    options: dict[str, Any],
    make_decoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    run: Callable[..., Path],
    distance: Callable[[Path, Path, Path], float],
) -> None:
    model = make_decoder(tmp_path / "m", model_type, **SIZES[model_type])
    plain: dict[str, Any] = {"pass": "rtn", "scheme": "W3A16-g16"}
    if "sparsity" in options:
        plain = {"pass": "prune", "sparsity": 0.5, "score": "magnitude"}
    out = run(model, pico_text, tmp_path, options)
    assert distance(model, out, pico_text) < distance(
        model, run(model, pico_text, tmp_path, plain, name="plain"), pico_text
    )
    layers = {layer["name"]: layer for layer in read_json(out / "edgepress.json")["layers"]}
    for block in WeightSource.open(model).anatomy.blocks:
        assert all("token" in layers[linear.name]["detail"] for linear in block.expert_linears())
