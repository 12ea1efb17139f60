"""Tools that train: what they are asked; and edgepress as one of them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from edgepress.benchmarks.lab.peers.contract import TrainingTask
from edgepress.benchmarks.lab.peers.trainers import edgepress_passes
from edgepress.benchmarks.lab.peers.workspace import peers
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource

pytestmark = pytest.mark.chain


def test_every_tool_says_what_it_needs_and_offers() -> None:
    assert set(peers("trainers")) == {"distillkit", "edgepress_passes", "torchao_qat", "trl_gkd"}
    for name, module in peers("trainers").items():
        assert module.VARIANTS and module.TITLE and module.DISTRIBUTIONS
        assert bool(module.PACKAGES) == (name != "edgepress_passes")


@pytest.mark.parametrize("variant", ["distill", "states", "w4"])
def test_edgepress_learns_from_the_sequences(
    pico_llama: Path, make_decoder: Callable[..., Path], tmp_path: Path, variant: str
) -> None:
    student = pico_llama if variant == "w4" else make_decoder(tmp_path / "s", num_hidden_layers=1)
    rows = torch.randint(3, 100, (16, 64), generator=torch.Generator().manual_seed(0)).tolist()
    (tmp_path / "tokens.json").write_text(json.dumps(rows))
    output = tmp_path / "o"
    output.mkdir()
    task = TrainingTask(student, tmp_path / "tokens.json", output, pico_llama, rows=2, learning_rate=1e-3)
    edgepress_passes.train(task, variant)
    task.copy_companions()
    source = WeightSource.open(task.result)
    assert bool(source.schemes) == (variant == "w4")
    assert (task.result / "tokenizer.json").is_file()
    load_model(task.result)
