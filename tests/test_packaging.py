"""What is packaged is what the folders hold; the command line loads a verb's floor only when it runs."""

import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import edgepress
import pytest
from edgepress.cli.verb import VERBS

ROOT = Path(edgepress.__file__).parent
FLOORS = ("benchmarks", "cli", "compress", "devices", "export", "files", "fit", "runtime", "terminal")
LAB = ROOT / "benchmarks" / "lab"  # not packaged
HEAVY = {"torch", "transformers", "onnx", "onnxruntime", "rich", "pydantic", "numpy", "jinja2", "tokenizers"}


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def folders_with_code() -> set[str]:
    inits = [path for floor in FLOORS for path in (ROOT / floor).rglob("__init__.py")]
    inits = [path for path in inits if not path.is_relative_to(LAB)]
    return {"edgepress"} | {".".join(("edgepress", *path.parent.relative_to(ROOT).parts)) for path in inits}


def data_files() -> set[str]:
    """Names of the files of the packages that are not code, as pyproject.toml asks for them."""
    found: set[str] = set()
    for package, patterns in pyproject()["tool"]["setuptools"]["package-data"].items():
        folder = ROOT.joinpath(*package.split(".")[1:])
        for pattern in patterns:
            matches = {path.relative_to(ROOT).as_posix() for path in folder.glob(pattern)}
            assert matches, f"{package}: {pattern} matches nothing"
            found |= matches
    return found


def test_packages_are_the_folders() -> None:
    assert set(pyproject()["tool"]["setuptools"]["packages"]) == folders_with_code()


def test_every_folder_with_code_is_a_package() -> None:
    bare = {
        path.parent.relative_to(ROOT).as_posix()
        for floor in FLOORS
        for path in (ROOT / floor).rglob("*.py")
        if not (path.parent / "__init__.py").exists()
    }
    assert not bare


def test_data_files_are_declared() -> None:
    kinds = {".yaml", ".xz", ".jinja", ".json", ".txt", ".css", ".html"}
    there = {
        path.relative_to(ROOT).as_posix()
        for floor in FLOORS
        for path in (ROOT / floor).rglob("*")
        if path.suffix in kinds and not path.is_relative_to(LAB)
    }
    assert there | {"py.typed"} == data_files()


def test_the_gpu_check_asks_for_all_that_it_imports() -> None:
    """What it does not ask for fails in the middle of it, on a machine that can install nothing."""
    project, named = pyproject()["project"], {"pyyaml": "yaml"}
    wanted = [*project["dependencies"], *project["optional-dependencies"]["compress"]]
    modules = [re.split(r"[<>=]", one)[0].replace("-", "_") for one in wanted]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    listed = next(line for line in makefile.splitlines() if line.startswith("GPU_MODULES := "))
    asked = {name.strip() for name in listed.partition(":=")[2].split(",")}
    # pytest refuses the settings of a plugin that is not there.
    assert {named.get(one, one) for one in modules} | {"onnxruntime", "pytest", "pytest_timeout"} <= asked


def test_the_version_is_said_once() -> None:
    assert pyproject()["project"]["version"] == edgepress.__version__


def leaves(command: click.Command, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        return [leaf for name, sub in command.commands.items() for leaf in leaves(sub, (*path, name))]
    return [(path, command)]


def verb(name: str) -> click.Command:
    command = import_module(f"edgepress.cli.verbs.{name}").command
    assert isinstance(command, click.Command)
    return command


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_is_a_command_that_can_answer_in_json(name: str) -> None:
    assert verb(name).name == name
    for path, command in leaves(verb(name), (name,)):
        flags = {option for parameter in command.params for option in parameter.opts}
        assert "--json" in flags or path == ("recipe", "schema"), f"{' '.join(path)} has no --json"
        assert command.help, f"{' '.join(path)} has no help"


def test_every_verb_file_is_listed() -> None:
    assert {path.stem for path in (ROOT / "cli" / "verbs").glob("*.py")} - {"__init__"} == set(VERBS)


def loaded_after(code: str) -> set[str]:
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.chain
def test_help_loads_nothing_heavy() -> None:
    loaded = loaded_after("from edgepress.cli.entry import run; assert run(['--help']) == 0")
    assert not loaded & HEAVY
    assert "click" in loaded


@pytest.mark.chain
@pytest.mark.parametrize("name", VERBS)
def test_help_of_a_verb_needs_no_training_world(name: str) -> None:
    loaded = loaded_after(f"from edgepress.cli.entry import run; assert run([{name!r}, '--help']) == 0")
    assert not loaded & {"torch", "transformers", "onnx", "onnxruntime"}


@pytest.mark.chain
def test_the_public_api_is_lazy_and_whole() -> None:
    assert not loaded_after("import edgepress; dir(edgepress)") & HEAVY
    for name in edgepress.__all__:
        assert getattr(edgepress, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = edgepress.nothing


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_packages_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, files.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    script = (
        "import sys; from setuptools import build_meta; out = sys.argv[1];"
        "build_meta.build_sdist(out); build_meta.build_wheel(out)"
    )
    out = tmp_path / "out"
    subprocess.run(
        [sys.executable, "-c", script, str(out)], cwd=source, check=True, capture_output=True, text=True
    )
    (wheel,), (sdist,) = list(out.glob("*.whl")), list(out.glob("*.tar.gz"))
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {name.removeprefix("edgepress/") for name in names if name.startswith("edgepress/")}
    tops = {name.split("/")[0] for name in names}
    assert tops == {"edgepress", f"edgepress-{edgepress.__version__}.dist-info"}
    code = {path.relative_to(source).as_posix() for path in (*source.glob("*.py"), *modules(source))}
    # The library of operators, where there is a compiler: the one thing that is built.
    built = {name for name in package if name.startswith("runtime/kernels/_kernels.")}
    assert len(built) <= 1
    assert package - built == code | data_files()
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    sources = {path.relative_to(source).as_posix() for path in source.glob("runtime/kernels/src/*")}
    assert code | sources | data_files() | {"pyproject.toml", "README.md", "LICENSE"} <= packed


def modules(root: Path) -> list[Path]:
    """The code that the wheel holds."""
    lab = root / "benchmarks" / "lab"
    found = [path for floor in FLOORS for path in (root / floor).rglob("*.py")]
    return [path for path in found if not path.is_relative_to(lab)]
