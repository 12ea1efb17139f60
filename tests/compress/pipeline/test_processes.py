"""Several processes: the losses of one, one result, and it goes on after a kill."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.pipeline.processes import Processes, is_follower
from edgepress.errors import InputError

pytestmark = pytest.mark.chain


LEARN = {"batch_tokens": 96, "piece_tokens": 32, "learning_rate": 0.01, "epochs": 2, "precision": "float32"}
CPU = torch.device("cpu")
# No code of qat gets to the edge of its cell, where the last bit of a sum decides on which side it falls, and
# two runs part.
PASSES = [
    {"pass": "magnitude", "sparsity": 0.5},
    {"pass": "recover", **LEARN, "ema": 0.9},
    {"pass": "rtn", "scheme": "W3A16-g32"},
    {"pass": "qat", **LEARN, "start": "codes", "learning_rate": 0.002},
]
# What `accelerate launch --use_fsdp --fsdp_version 2` sets.
FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true"}
needs_gloo = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="torch was built without gloo",
)


def losses(path: Path) -> list[float]:
    lines = [json.loads(line) for line in (path / "train.jsonl").read_text().splitlines()]
    return [line[key] for line in lines for key in ("loss", "held_out") if key in line]


def launch(*arguments: str, **environment: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-6000:]  # the bars before it say nothing


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("several") / "recipe.yaml"
    path.write_text(yaml.safe_dump({"name": "several", "passes": PASSES}))
    return path


@pytest.fixture(scope="module")
def alone(pico_llama: Path, pico_text: Path, recipe: Path) -> Path:
    """What one process makes."""
    return compress_model(
        str(pico_llama),
        recipe=str(recipe),
        output=recipe.with_name("alone"),
        calibration=str(pico_text),
        samples=24,
        length=32,
        device="cpu",
    )


@needs_gloo
@pytest.mark.parametrize(
    "environment",
    [pytest.param({}, id="copies", marks=pytest.mark.slow), pytest.param(FSDP2, id="sharded")],
)
def test_two_processes_have_the_losses_of_one(
    pico_llama: Path,
    pico_text: Path,
    recipe: Path,
    alone: Path,
    tmp_path: Path,
    environment: dict[str, str],
) -> None:
    options = ["-r", str(recipe), "--calibration", str(pico_text), "--samples", "24", "--length", "32"]
    arguments = ["compress", str(pico_llama), *options, "--device", "cpu", "-o", str(tmp_path / "both")]
    launch("-m", "edgepress", *arguments, **environment)
    one, two = losses(alone), losses(tmp_path / "both")
    assert len(one) == len(two) > 20
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) < 1e-5
    before, after = WeightSource.open(alone), WeightSource.open(tmp_path / "both")
    for linear in before.anatomy.linears():
        assert torch.equal(before.dense(linear.name) == 0, after.dense(linear.name) == 0)
    assert not list(tmp_path.glob(".both*"))


@needs_gloo
@pytest.mark.slow  # what it asks for by itself, two processes that learn need too
def test_each_of_two_processes_knows_the_other(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, torch\n"
        "from edgepress.compress.pipeline.processes import Processes\n"
        "processes, numbers = Processes.launched(torch.device('cpu')), torch.tensor([2.0, 3.0])\n"
        "processes.add([numbers])\n"
        "assert processes.count == 2 and numbers.tolist() == [4.0, 6.0] and processes.sum(1.5) == 3\n"
        "assert processes.agree(processes.index) == 0\n"
    )
    launch(str(script))


def test_shares_are_a_partition() -> None:
    items = list(range(11))
    shares = [Processes(3, index).share(items) for index in range(3)]
    assert sorted(item for share in shares for item in share) == items
    assert Processes().share(items) == items and Processes().sum(2.5) == 2.5 and Processes().agree("x") == "x"


@pytest.mark.parametrize(("count", "turns"), [(11, 4), (2, 1), (9, 3)])
def test_sharded_processes_all_have_as_many_turns(count: int, turns: int) -> None:
    found = [Processes(3, index, sharded=True).turns(list(range(count))) for index in range(3)]
    assert {len(one) for one in found} == {turns}
    assert sorted(item for one in found for item, counts in one if counts) == list(range(count))
    assert Processes(3, 1).turns([5, 6]) == [(6, True)] and Processes(3, 2).turns([5, 6]) == []


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, "version 1"),
        ({**FSDP2, "FSDP_VERSION": "1"}, "version 1"),
        ({**FSDP2, "FSDP_OFFLOAD_PARAMS": "true"}, "host"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "Megatron"),
    ],
)
def test_a_launch_that_shards_in_another_way_is_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], named: str
) -> None:
    assert Processes.launched(CPU) == Processes()
    for variable, value in {"WORLD_SIZE": "2", **environment}.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=named) as refused:
        Processes.launched(CPU)
    assert "--fsdp_version 2" in refused.value.fix


@pytest.mark.parametrize("value", ["first", "-1", "0.5"])
@pytest.mark.parametrize("variable", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
def test_what_the_launcher_sets_has_to_be_numbers(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    for name, number in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", variable: value}.items():
        monkeypatch.setenv(name, number)
    with pytest.raises(InputError, match=variable):
        Processes.launched(CPU)
    if variable == "RANK":
        with pytest.raises(InputError, match="RANK"):
            is_follower()


@pytest.mark.parametrize("rank", ["", "2"])
def test_a_process_has_to_know_which_one_it_is(monkeypatch: pytest.MonkeyPatch, rank: str) -> None:
    for name, number in {"WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, number)
    with pytest.raises(InputError, match="which one"):
        Processes.launched(CPU)
