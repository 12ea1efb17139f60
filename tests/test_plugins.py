"""Plug-ins are files: listed, loaded by name, and broken ones speak for themselves."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from edgepress import plugins
from edgepress.errors import UnknownName

PACKAGE = "plugin_toys"
PASSES, FAMILIES = "edgepress.compress.passes", "edgepress.compress.model.families"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An importable package with plug-ins, a private module, and files that are no modules."""
    path = tmp_path / PACKAGE
    path.mkdir()
    (path / "__init__.py").touch()
    (path / "round_off.py").write_text("NAME = 'round-off'\n")
    (path / "magnitude.py").write_text("NAME = 'magnitude'\n")
    (path / "_shared.py").write_text("raise AssertionError('private modules are not loaded')\n")
    (path / "notes.txt").write_text("not a module")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield path
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]


def test_names_are_the_public_files(folder: Path) -> None:
    assert plugins.names(PACKAGE) == ["magnitude", "round_off"]


def test_a_new_file_is_a_new_plugin(folder: Path) -> None:
    (folder / "added.py").write_text("NAME = 'added'\n")
    assert plugins.load(PACKAGE, "added", "pass").NAME == "added"


@pytest.mark.parametrize("name", ["round_off", "round-off"])
def test_dashes_and_underscores_are_the_same(folder: Path, name: str) -> None:
    assert plugins.load(PACKAGE, name, "pass").NAME == "round-off"


def test_unknown_names_offer_the_nearest(folder: Path) -> None:
    with pytest.raises(UnknownName) as caught:
        plugins.load(PACKAGE, "round-of", "pass")
    assert caught.value.what == "unknown pass 'round-of'"
    assert caught.value.fix == "did you mean 'round-off'? known: magnitude, round-off"


@pytest.mark.parametrize(
    "name", ["_shared", "__init__", "notes.txt", "", ".", "../plugin_toys/magnitude", "os"]
)
def test_only_public_files_are_plugins(folder: Path, name: str) -> None:
    with pytest.raises(UnknownName):
        plugins.load(PACKAGE, name, "pass")


def test_a_broken_plugin_raises_its_own_error(folder: Path) -> None:
    (folder / "broken.py").write_text("import a_package_nobody_installed\n")
    assert "broken" in plugins.names(PACKAGE)
    with pytest.raises(ModuleNotFoundError, match="a_package_nobody_installed"):
        plugins.load(PACKAGE, "broken", "pass")


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("compress.passes", {"rtn", "gptq", "prune", "awq"}),
        ("compress.model.families", {"gemma", "bert"}),
        ("export.formats", {"awq", "bitnet", "gguf", "gptq", "onnx", "onnx_hub"}),
    ],
)
def test_the_folders_of_the_house_are_plugin_folders(package: str, expected: set[str]) -> None:
    assert expected <= set(plugins.names(f"edgepress.{package}"))


WHEEL = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "a-wheel-from-outside"
version = "1.0"
[tool.setuptools]
py-modules = ["coarse_pass"]
[project.entry-points."edgepress.compress.passes"]
coarse = "coarse_pass"
rtn = "coarse_pass"
[project.entry-points."edgepress.compress.model.families"]
of-mine = "a_family"
"""
COARSE = '''
"""Every weight is rounded to nearest."""
from edgepress.compress.passes.rtn import Rtn

class Coarse(Rtn):
    """Options of ``coarse``."""

PASS = Coarse
'''
ASK = f"""
from edgepress import plugins
print(plugins.load({PASSES!r}, "rtn", "pass").__name__, "of_mine" in plugins.names({FAMILIES!r}))
"""


@pytest.mark.chain
def test_a_wheel_from_outside_adds_a_pass(pico_llama: Path, tmp_path: Path) -> None:
    source, site, out = tmp_path / "source", tmp_path / "site", tmp_path / "out"
    source.mkdir()
    (source / "pyproject.toml").write_text(WHEEL)
    (source / "coarse_pass.py").write_text(COARSE)
    (source / "recipe.yaml").write_text("name: mine\npasses:\n  - {pass: coarse, scheme: W2A16-g32}\n")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(site), str(source)], check=True)
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])

    def told(*arguments: str) -> str:
        command, environment = [sys.executable, *arguments], os.environ | {"PYTHONPATH": path}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    told("-m", "edgepress", "compress", str(pico_llama), "-r", str(source / "recipe.yaml"), "-o", str(out))
    manifest = json.loads((out / "edgepress.json").read_text())
    assert [one["pass"] for one in manifest["recipe"]["passes"]] == ["coarse"]
    # What edgepress has under a name comes before what is added under it.
    assert told("-c", ASK).split() == [f"{PASSES}.rtn", "True"]
