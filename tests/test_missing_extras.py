"""A machine with the core install alone: every verb that needs more says which extra brings it."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import edgepress
import pytest
from edgepress.errors import EXTRAS, missing_extra

pytestmark = pytest.mark.chain


ROOT = Path(edgepress.__file__).parent

# Imports of the named packages fail as they do where they are not installed.
WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from edgepress.cli.entry import run
sys.exit(run({arguments!r}))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["compress", "minilm", "--scheme", "W8A8", "-o", "out"],
        ["compress", "minilm", "--scheme", "W8A8", "--dry-run"],
        ["export", "minilm", "-o", "out"],
        ["fit", "minilm", "--max-disk", "20MB", "--text", "wikipedia", "-o", "out"],
        ["inspect", "minilm"],
        ["recipe", "passes"],
        ["validate", "minilm", "--against", "minilm"],
    ],
    ids=" ".join,
)
def test_a_core_install_names_the_extra(arguments: list[str], tmp_path: Path) -> None:
    program = WITHOUT.format(absent=set(EXTRAS), arguments=arguments)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert "edgepress[compress]" in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_extras_are_those_of_the_metadata() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for module, extra in EXTRAS.items():
        names = [re.split(r"[><=]", requirement)[0].replace("-", "_") for requirement in extras[extra]]
        assert module in names
    assert missing_extra("torch.nn") is not None and missing_extra("numpy") is None


def imported() -> set[str]:
    """The top-level modules that the product, without the lab, imports by a statement or by name."""
    found: set[str] = set()
    floors = ("benchmarks", "cli", "compress", "devices", "export", "fit", "runtime")
    below = [path for floor in floors for path in (ROOT / floor).rglob("*.py") if "lab" not in path.parts]
    for path in [*ROOT.glob("*.py"), *below]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(str(node.module).partition(".")[0])
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
                name = node.args[0]
                found |= {str(name.value).partition(".")[0]} if isinstance(name, ast.Constant) else set()
    return found


def test_what_is_required_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *project["optional-dependencies"]["compress"]]
    names = {re.split(r"[><=]", requirement)[0].replace("-", "_") for requirement in required}
    imports = imported()
    through_others = {"onnx", "compressed_tensors"}  # onnx-ir writes files; transformers opens checkpoints
    modules = {"pyyaml": "yaml"}
    assert names - {name for name in names if modules.get(name, name) in imports} == through_others
