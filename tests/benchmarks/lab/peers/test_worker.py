"""The worker of all peers: a process of its own, which needs nothing of edgepress and replies to one job."""

import ast
import itertools
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from edgepress.benchmarks.lab.peers import contract, worker
from edgepress.benchmarks.lab.peers.children import command, work
from edgepress.benchmarks.lab.peers.contract import CompressionTask, StepwiseEngine, TimedTokens
from edgepress.benchmarks.lab.peers.quantizers import _dense
from edgepress.benchmarks.lab.peers.workspace import (
    KINDS,
    Workspace,
    peers,
)


def test_stepwise_feeds_every_token_on() -> None:
    found = StepwiseEngine(sum, lambda token: token + 1).generate([1, 2, 3], 4)
    assert found.tokens == [6, 7, 8, 9]
    assert found.moments == sorted(found.moments)


COUNTING = '''
"""An engine for a test."""
import sys
from ..contract import StepwiseEngine
DISTRIBUTIONS = ("pip", "no-such-distribution")
def load(artifact, variant, settings):
    print("noise on stdout")
    if variant == "broken":
        raise SystemExit("no such kernel")
    assert settings.context == 9
    assert not any(name.startswith("edgepress") for name in sys.modules)
    return StepwiseEngine(lambda ids: len(ids), lambda token: token + 1)
'''
HALVING = '''
"""A quantizer for a test."""
import os
ENVIRONMENT = {"CHOSEN": "8"}
DISTRIBUTIONS = ()
def quantize(task, variant):
    task.result.mkdir()
    halves = [[token // 2 for token in row] for row in task.tokens()]
    (task.result / "config.json").write_text(f"{halves} {os.environ['CHOSEN']} {variant}")
    open("tool.log", "w").close()
'''


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace whose environments are the interpreter of this one without its packages."""
    made = Workspace(tmp_path / "workspace")
    for peer in ("counting", "halving"):
        binary = made.environment(peer) / "bin"
        binary.mkdir(parents=True)
        (binary / "python").symlink_to(sys.executable)
    return made


def installed(tmp_path: Path, kind: str, peer: str, text: str) -> ModuleType:
    """A peer of one file beside copies of the contract and the worker, and nothing else."""
    folder = tmp_path / "elsewhere"
    (folder / kind).mkdir(parents=True)
    for name in ("worker.py", "contract.py"):
        shutil.copy(Path(str(worker.__file__)).with_name(name), folder)
    (folder / kind / f"{peer}.py").write_text(text, encoding="utf-8")
    module = ModuleType(f"peers.{kind}.{peer}")
    module.__file__ = str(folder / kind / f"{peer}.py")
    module.PACKAGES = ("pinned==1",)  # type: ignore[attr-defined]
    return module


def job(variant: str) -> dict[str, Any]:
    chosen = {"do": "measure", "variant": variant, "artifact": "x", "threads": 1}
    return {**chosen, "prompts": [[1, 2, 3, 4], [1, 2]], "new_tokens": 5, "passes": 2, "warm_up": True}


@pytest.mark.chain
def test_a_worker_needs_nothing_of_edgepress(tmp_path: Path, workspace: Workspace) -> None:
    module = installed(tmp_path, "decoders", "counting", COUNTING)
    done = work(workspace, "counting", module, job("good"), timeout=60)
    assert done.error == ""
    assert done.reply is not None
    assert [prompt["tokens"] for prompt in done.reply["prompts"]] == [[2, 3, 4, 5, 6], [4, 5, 6, 7, 8]]
    assert all(len(prompt["decode_s"]) == 2 for prompt in done.reply["prompts"])
    assert 0 < done.reply["first_token_s"] <= done.wall_s
    assert set(done.reply["versions"]) <= {"pip"}
    assert done.peak_rss_bytes > 1 << 20


def test_no_pass_finds_its_beginning_in_the_cache_of_another() -> None:
    seen: list[list[int]] = []

    class Remembering:
        def generate(self, ids: list[int], new_tokens: int) -> TimedTokens:
            seen.append(list(ids))
            return StepwiseEngine(sum, lambda token: token + 1).generate(ids, new_tokens)

    asked = {"warm_up": True, "passes": 3, "new_tokens": 2}
    worker.measure_prompt(Remembering(), [1, 2, 3, 4, 5], asked)
    assert len({ids[0] for ids in seen}) == len(seen) == 4
    assert seen[-1] == [1, 2, 3, 4, 5]


@pytest.mark.chain
def test_a_worker_that_fails_says_why(tmp_path: Path, workspace: Workspace) -> None:
    module = installed(tmp_path, "decoders", "counting", COUNTING)
    done = work(workspace, "counting", module, job("broken"), timeout=60)
    assert done.reply is None
    assert "no such kernel" in done.error


def test_our_own_engine_runs_in_this_environment(tmp_path: Path) -> None:
    started = command(Workspace(tmp_path), "edgepress_onnx", peers("decoders")["edgepress_onnx"])
    assert started[1:] == ["-P", "-m", "edgepress.benchmarks.lab.peers.worker"]


@pytest.mark.chain
def test_a_checkpoint_is_made_where_the_tool_may_write(tmp_path: Path, workspace: Workspace) -> None:
    module = installed(tmp_path, "quantizers", "halving", HALVING)
    checkpoint, calibration, output = (tmp_path / name for name in ("model", "tokens.json", "output"))
    checkpoint.mkdir()
    output.mkdir()
    (checkpoint / "config.json").write_text("original", encoding="utf-8")
    (checkpoint / "tokenizer.json").write_text("t", encoding="utf-8")
    calibration.write_text("[[2, 4], [6]]", encoding="utf-8")
    paths = {"checkpoint": str(checkpoint), "calibration": str(calibration), "output": str(output)}
    done = work(workspace, "halving", module, {"variant": "w4", **paths}, timeout=60)
    assert done.error == ""
    assert done.reply is not None
    assert 0 < done.reply["seconds"] < done.wall_s
    assert (output / "checkpoint" / "config.json").read_text() == "[[1, 2], [3]] 8 w4"
    assert (output / "checkpoint" / "tokenizer.json").read_text() == "t"
    assert (output / "tool.log").exists()


def test_companions_are_copied_and_nothing_is_overwritten(tmp_path: Path) -> None:
    source, task = tmp_path / "m", CompressionTask(tmp_path / "m", tmp_path / "c", tmp_path / "o")
    (source / "1_Pooling").mkdir(parents=True)
    task.result.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors.index.json", "1_Pooling/config.json"):
        (source / name).write_text("old", encoding="utf-8")
    (task.result / "config.json").write_text("new", encoding="utf-8")
    task.copy_companions()
    found = {str(path.relative_to(task.result)): path.read_text() for path in task.result.rglob("*.json")}
    assert found == {"config.json": "new", "tokenizer.json": "old", "1_Pooling/config.json": "old"}


INSIDE = {(1, "contract"), (2, "contract"), (1, "_dense"), (2, "quantizers.llm_compressor")}
FOREIGN = [module for kind in KINDS for module in peers(kind).values() if module.PACKAGES]


@pytest.mark.parametrize("module", [worker, contract, _dense, *FOREIGN], ids=lambda module: module.__name__)
def test_what_runs_elsewhere_imports_only_what_is_there(module: ModuleType) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Import):
            assert {name.name.split(".")[0] for name in node.names} <= sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom) and node.level:
            assert (node.level, node.module) in INSIDE
        elif isinstance(node, ast.ImportFrom):
            assert str(node.module).split(".")[0] in sys.stdlib_module_names


def test_a_tool_of_two_kinds_has_one_environment() -> None:
    for one, other in itertools.combinations(map(peers, KINDS), 2):
        for name in one.keys() & other.keys():
            assert one[name].PACKAGES == other[name].PACKAGES


@pytest.mark.parametrize("kind", KINDS)
def test_every_peer_says_what_it_needs_and_offers(kind: str) -> None:
    for name, module in peers(kind).items():
        assert module.TITLE and module.VARIANTS and module.DISTRIBUTIONS
        assert bool(module.PACKAGES) == (not name.startswith("edgepress") and name != "torch_eager")
