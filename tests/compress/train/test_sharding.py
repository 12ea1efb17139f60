"""Sharding: a process holds its part of the model, and what is spread goes on after a kill and a bad loss.

One launch of two processes runs :data:`SCRIPT`, which leaves what it saw in JSON.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model
from edgepress.files.storage import read_json

# Two sharded processes without these faults are no slow test: tests/compress/pipeline/test_processes.py.
pytestmark = [pytest.mark.chain, pytest.mark.slow]


LEARN = {"batch_tokens": 96, "piece_tokens": 32, "learning_rate": 0.01, "epochs": 2, "precision": "float32"}
# Where codes move, the last bit of a sum decides on which side of its cell's edge a weight falls, and two
# runs part: of ternary weights so many losses are compared.
BEFORE_THEY_PART = 3
RECIPES: dict[str, list[dict[str, Any]]] = {
    "qat": [
        {"pass": "magnitude", "sparsity": 0.5},
        {"pass": "qat", "scheme": "W4A16-g32", "checkpointing": True, **LEARN}
        | {"start": "codes", "learning_rate": 0.002},
    ],
    "recover": [{"pass": "magnitude", "sparsity": 0.5}, {"pass": "recover", "train": "lora", **LEARN}],
    "ternary": [{"pass": "ternary", "group_size": 32, **LEARN}],
    "tune": [{"pass": "rtn", "scheme": "W3A16-g32"}, {"pass": "tune", **LEARN}],
    "distill": [
        {"pass": "layers", "keep": 0.7},
        {"pass": "distill", "cache": False, "embedding": True, "weight_decay": 0.1, "ema": 0.5, **LEARN},
    ],
}
SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.pipeline.block_shards import Masks
from edgepress.compress.pipeline.processes import Processes
from edgepress.compress.train import optimization as gradients
from edgepress.compress.train import loop
from edgepress.compress.train.students.relative import own_rows, whole
from edgepress.compress.train.students.student import Student
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import TrainingError
from edgepress.files.hashed_tree import hash_tree

folder, llama, bert, text = map(Path, sys.argv[1:])
cpu, seen = torch.device("cpu"), {}
processes = Processes.launched(cpu)
source = WeightSource.open(llama)
student = Student(source, cpu)
student.learn_weights(list(source.anatomy.linears()), Masks())
def held():
    blocks = student.blocks()
    return sum(own_rows(one).numel() for one in (*blocks.parameters(), *blocks.buffers()))

everything = held()
student.spread(cpu, processes)
seen["share"] = held() / everything
with whole(student.blocks()[1]):
    values = student.values(source.anatomy.blocks[1])
    seen["same"] = all(torch.equal(value, source.tensor(name)) for name, value in values.items())


def compressed(recipe, name, model=llama):
    options = dict(calibration=str(text), samples=24, length=32, device="cpu")
    return compress_model(str(model), recipe=str(folder / f"{recipe}.yaml"), output=folder / name, **options)


for recipe in ("recover", "ternary", "tune", "distill"):
    compressed(recipe, recipe)
compressed("encoder", "encoder", bert)

class Killed(BaseException):
    pass

step, steps = loop.Loop._step, []
def killing(self, batch):
    steps.append(1)
    if len(steps) == 14:
        raise Killed
    return step(self, batch)

compressed("qat", "qat")
loop.Loop._step = killing
try:
    compressed("qat", "killed")
except Killed:
    seen["killed"] = sorted(path.name for path in folder.glob(".killed*/work/stage-1/loop.pt*"))
loop.Loop._step = step
processes.meet()
compressed("qat", "killed")
seen["again"] = hash_tree(folder / "killed") == hash_tree(folder / "qat")

clip, clips = gradients.Gradients.clip, []
def leaping(self, limit):
    clips.append(1)
    norm = clip(self, limit)
    return float("nan") if len(clips) == 9 else norm

gradients.Gradients.clip = leaping
compressed("qat", "leapt")
gradients.Gradients.clip = clip
for name in ("on_policy", "inside"):
    try:
        compressed(name, name, bert if name == "inside" else llama)
    except TrainingError as error:
        seen[name] = error.what
(folder / f"seen-{processes.index}.json").write_text(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def folder(
    pico_llama: Path, pico_bert: Path, pico_text: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What the two processes made."""
    if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        pytest.skip("torch was built without gloo")
    folder = tmp_path_factory.mktemp("sharded")
    others = {
        "encoder": [{"pass": "layers", "keep": 0.6}, {"pass": "distill", **LEARN}],
        "on_policy": [{"pass": "distill", "on_policy": 0.5, **LEARN}],
        "inside": [{"pass": "distill", "losses": {"relations": 1.0}, **LEARN}],
    }
    for name, passes in (RECIPES | others).items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, "passes": passes}))
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    paths = [folder / "script.py", folder, pico_llama, pico_bert, pico_text]
    fsdp = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *map(str, paths)], env={**os.environ, **fsdp}, timeout=600, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-9000:]
    return folder


def seen(folder: Path, name: str) -> list[Any]:
    return [json.loads((folder / f"seen-{index}.json").read_text())[name] for index in range(2)]


def losses(path: Path) -> list[float]:
    lines = [json.loads(line) for line in (path / "train.jsonl").read_text().splitlines()]
    return [line[key] for line in lines for key in ("loss", "held_out") if key in line]


def test_each_process_holds_half_of_the_blocks(folder: Path) -> None:
    assert all(0.49 < share < 0.51 for share in seen(folder, "share"))
    assert seen(folder, "same") == [True, True]


@pytest.mark.parametrize("name", RECIPES)
def test_the_losses_are_those_of_one_process(
    folder: Path, pico_llama: Path, pico_text: Path, tmp_path: Path, name: str
) -> None:
    options: dict[str, Any] = {"samples": 24, "length": 32, "device": "cpu", "calibration": str(pico_text)}
    alone = compress_model(
        str(pico_llama), recipe=str(folder / f"{name}.yaml"), output=tmp_path / "o", **options
    )
    one, two = losses(alone), losses(folder / name)
    assert len(one) == len(two) > 20
    compared = BEFORE_THEY_PART if name == "ternary" else len(one)
    assert max(abs(a - b) for a, b in zip(one[:compared], two[:compared], strict=True)) < 1e-5


def test_an_encoder_is_spread_with_losses_inside_its_blocks(
    folder: Path, pico_bert: Path, pico_text: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"samples": 24, "length": 32, "device": "cpu", "calibration": str(pico_text)}
    alone = compress_model(
        str(pico_bert), recipe=str(folder / "encoder.yaml"), output=tmp_path / "o", **options
    )
    pairs = list(zip(losses(alone), losses(folder / "encoder"), strict=True))
    assert len(pairs) > 20 and max(abs(a - b) for a, b in pairs) < 1e-5


def test_a_killed_run_ends_with_the_same_bytes(folder: Path) -> None:
    assert seen(folder, "again")[0]
    for names in seen(folder, "killed"):
        assert names[0] == "loop.pt" and names[1].startswith("loop.pt.1.") and len(names) == 2


def test_a_norm_that_is_no_number_takes_all_of_them_back(folder: Path) -> None:
    details = read_json(folder / "leapt" / "edgepress.json")["steps"][1]["details"]
    assert details["retreats"] == 1 and details["stopped"] == "tokens"
    whole = read_json(folder / "qat" / "edgepress.json")["steps"][1]["details"]
    assert details["held_out"][0] == whole["held_out"][0] and details["held_out"] != whole["held_out"]


@pytest.mark.parametrize(("name", "words"), [("on_policy", "own text"), ("inside", "inside")])
def test_what_cannot_be_spread_is_refused(folder: Path, name: str, words: str) -> None:
    assert all(words in what for what in seen(folder, name))
