"""What the lab's programs say by name is there: every command line is one that ``edgepress`` takes, every
recipe one that it reads, every function that a profile looks for in its file. They run for hours by hand, and
nothing else would find a name that was changed.
"""

import ast
import shlex
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import edgepress
import pytest
from edgepress.benchmarks.lab.peers.contract import ConversionTask, EncoderConversionTask
from edgepress.benchmarks.lab.peers.decoders import edgepress_onnx
from edgepress.benchmarks.lab.peers.encoders import edgepress_bundle
from edgepress.benchmarks.lab.planned.cases import CASES, RECIPES
from edgepress.benchmarks.lab.programs import gptq_profile, kill_test, kills_in_work, memory_test, startup
from edgepress.benchmarks.lab.programs.planned_and_taken import TIMED, arguments_of
from edgepress.cli.program import edgepress as program
from edgepress.compress.recipe import load_recipe

ROOT = Path(edgepress.__file__).parent


def taken(words: list[str]) -> dict[str, Any]:
    """What ``edgepress`` makes of a command line behind its name; raises where it makes nothing of it."""
    verb, *arguments = words
    command = program.get_command(click.Context(program), verb)
    assert command is not None, verb
    return command.make_context(verb, arguments).params


@pytest.mark.parametrize("model", ["67m", "7b-2"])
@pytest.mark.parametrize("name", CASES)
def test_cases_of_what_is_planned_and_taken(name: str, model: str, tmp_path: Path) -> None:
    params = taken(arguments_of(tmp_path, model, name))
    assert name not in RECIPES or load_recipe(params["recipe"]).steps


def test_programs_that_run_a_case_are_modules() -> None:
    assert [name for name in TIMED.values() if find_spec(name) is None] == []


@pytest.mark.parametrize("name", memory_test.RECIPES)
def test_options_of_the_check_of_memory(name: str) -> None:
    assert taken(["compress", "m", *shlex.split(memory_test.RECIPES[name]), "-o", "o"])["scheme"] == "W4A16"


def test_the_command_that_is_killed(tmp_path: Path) -> None:
    victim = kill_test.Victim(Path("m"), tmp_path / "o", {})
    assert taken(victim.command[3:])["samples"] == 16


@pytest.mark.parametrize("name", [name for name, case in kills_in_work.CASES.items() if case.passes])
def test_recipes_that_are_killed_at_work(name: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"passes: {kills_in_work.CASES[name].passes}\n", encoding="utf-8")
    assert load_recipe(str(recipe)).steps


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """The command lines of edgepress that would have run, behind its name."""
    found: list[list[str]] = []

    def run(words: list[str], **_: Any) -> Any:
        assert words[1:3] == ["-m", "edgepress"]
        found.append(words[3:])

    monkeypatch.setattr(subprocess, "run", run)
    yield found


@pytest.mark.parametrize("variant", edgepress_onnx.VARIANTS)
def test_how_a_peer_converts_decoders(variant: str, commands: list[list[str]], tmp_path: Path) -> None:
    edgepress_onnx.convert(ConversionTask(tmp_path / "m", tmp_path, 64), variant)
    compress, _ = map(taken, commands)
    assert load_recipe(compress["recipe"]).steps


@pytest.mark.parametrize("variant", edgepress_bundle.VARIANTS)
def test_how_a_peer_converts_encoders(variant: str, commands: list[list[str]], tmp_path: Path) -> None:
    task = EncoderConversionTask(tmp_path / "m", tmp_path, tmp_path / "texts.json")
    edgepress_bundle.convert(task, variant)
    found = [taken(words) for words in commands]
    assert [load_recipe(one["recipe"]).steps != () for one in found[:-1]] == [True] * (variant != "fp32")


def test_bundles_whose_start_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found: list[tuple[str, ...]] = []
    monkeypatch.setattr(startup, "_module", lambda name, *words: found.append((name, *words)))
    startup.bundles(tmp_path)
    made = [list(words) for name, *words in found if name == "edgepress"]
    assert [taken(words)["output"] is not None for words in made] == [True] * 6
    assert [name for name, *_ in found if find_spec(name) is None] == []


def functions_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_functions_that_a_profile_of_gptq_looks_for() -> None:
    wanted = [one for functions in gptq_profile.KINDS.values() for one in functions]
    assert [(file, name) for file, name in wanted if name not in functions_in(file)] == []
