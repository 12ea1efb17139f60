"""The floors of the house, held by reading every import: they point down only, and no device needs torch.

Also the rules that keep a house safe: nothing swallows unknown errors, nothing unpickles, nothing runs a
model's own code.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import edgepress
import pytest

ROOT = Path(edgepress.__file__).parent
FLOORS = ("ground", "runtime", "compress", "export", "devices", "benchmarks", "fit", "cli")
GROUND = ("files", "terminal")  # with the modules of the root
FOLDERS = (*GROUND, *FLOORS[1:])
# The rooms of a floor from the bottom. A room imports from those below it and itself; rooms of one row do
# not know each other. "" is the files in the floor's own folder; a folder inside a room belongs to it.
ROOMS = {
    "compress": [
        {"numbers", "text"},
        {"model"},
        {"measure"},
        {"pipeline"},
        {"solve"},
        {"rotate", "train"},
        {"prune"},
        {"passes"},
        {""},
    ],
    "export": [
        {"graph", "sentence_texts"},
        {"job"},
        {"format"},
        {"bundle_manifest"},
        {"proof"},
        {"formats"},
        {""},
    ],
    "devices": [
        {"chipsets", "submissions", "targets", "transports"},
        {""},
        {"kernel_table", "meters"},
        {"predict"},
    ],
    "runtime": [{"bundle", "text", "kernels"}, {"session", "images", "audio"}, {"engine"}, {""}],
    "benchmarks": [{"records"}, {"speed"}, {"quality", "serving"}, {"page"}, {"demo"}, {"lab"}, {""}],
}
TRAINING = {"torch", "transformers", "accelerate", "compressed_tensors", "gguf", "onnx", "onnx_ir"}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}


@dataclass(frozen=True)
class Import:
    """One imported module by its absolute name; ``relative`` as it was written; ``typing_only`` when types
    alone need it.
    """

    module: str
    line: int
    relative: bool
    typing_only: bool


def sources() -> list[Path]:
    """Every file of the package."""
    below = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return sorted([*ROOT.glob("*.py"), *below])


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("edgepress", *(part for part in parts if part != "__init__")))


MODULES = {module_of(path): path for path in sources()}


def floor(module: str) -> str:
    """The floor of a module of the package: its top folder, or of the files in the root, cli or ground."""
    top = module.split(".")[1] if "." in module else ""
    if top in FLOORS:
        return top
    return "cli" if top == "__main__" else "ground"


def reach(module: str) -> int:
    """The highest floor that a module may import from: its own; the lab tries all below cli."""
    lab = module.startswith("edgepress.benchmarks.lab")
    return FLOORS.index("fit" if lab else floor(module))


def room(module: str) -> str:
    """The room of a module on its floor, which has rooms; a file between the rooms may be named as one."""
    parts, rows = module.split("."), ROOMS[floor(module)]
    name = parts[2] if len(parts) > 2 else ""
    return name if any(name in row for row in rows) else ""


def room_height(module: str) -> int:
    """How high the room of a module lies on its floor."""
    return next(height for height, row in enumerate(ROOMS[floor(module)]) if room(module) in row)


def is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def statements(node: ast.AST, typing_only: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """All nodes below ``node``, in functions too, and whether they stand under ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        yield child, typing_only
        if isinstance(child, ast.If) and is_type_checking(child.test):
            for branch, only in ((child.body, True), (child.orelse, typing_only)):
                for statement in branch:
                    yield statement, only
                    yield from statements(statement, only)
        else:
            yield from statements(child, typing_only)


def imported(node: ast.AST, module: str, is_package: bool) -> Iterator[tuple[str, bool]]:
    """``(absolute module, relative)`` of an import statement; ``from a import b`` names ``a.b`` too when it
    is a module.
    """
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name, False
    elif isinstance(node, ast.ImportFrom):
        parent = node.module or ""
        if node.level:
            package = module if is_package else module.rpartition(".")[0]
            parts = package.split(".")
            kept = parts[: len(parts) - node.level + 1]
            assert kept, f"{module} imports from beyond the package"
            parent = ".".join([*kept, *([node.module] if node.module else [])])
        yield parent, node.level > 0
        for alias in node.names:
            if f"{parent}.{alias.name}" in MODULES:
                yield f"{parent}.{alias.name}", node.level > 0


@cache
def imports(module: str) -> tuple[Import, ...]:
    path = MODULES[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return tuple(
        Import(name, getattr(node, "lineno", 0), relative, typing_only)
        for node, typing_only in statements(tree)
        for name, relative in imported(node, module, path.name == "__init__.py")
    )


def inside(name: str) -> bool:
    return name.split(".")[0] == "edgepress"


def test_the_reader_sees_functions_and_type_checking() -> None:
    tree = ast.parse(
        "from ..errors import InputError\n"
        "if TYPE_CHECKING:\n    import torch\nelse:\n    import onnx\n"
        "def f():\n    from . import recipe\n    import numpy.linalg\n"
    )
    found = {
        (name, typing_only)
        for node, typing_only in statements(tree)
        for name, _ in imported(node, "edgepress.compress.plan", False)
    }
    assert found == {
        ("edgepress.errors", False),
        ("torch", True),
        ("onnx", False),
        ("edgepress.compress", False),
        ("edgepress.compress.recipe", False),
        ("numpy.linalg", False),
    }


def test_every_floor_is_there() -> None:
    assert {floor(module) for module in MODULES} == set(FLOORS)


@pytest.mark.chain
@pytest.mark.parametrize("name", FLOORS)
def test_imports_point_down(name: str) -> None:
    wrong = [
        f"{module}:{found.line} imports {found.module}"
        for module in MODULES
        if floor(module) == name
        for found in imports(module)
        if inside(found.module) and FLOORS.index(floor(found.module)) > reach(module)
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("name", ROOMS)
def test_rooms_point_down(name: str) -> None:
    wrong = []
    for module in (module for module in MODULES if floor(module) == name):
        for found in imports(module):
            target = found.module
            if found.typing_only or target not in MODULES or MODULES[target].name == "__init__.py":
                continue
            if floor(target) == name and room(module) != room(target):
                below = room_height(target) < room_height(module)
                wrong += [] if below else [f"{module}:{found.line} imports {target}"]
    assert not wrong, wrong


def test_every_room_is_named() -> None:
    named = {f"{name}/{one}" for name, rows in ROOMS.items() for row in rows for one in row if one}
    folders = {f"{name}/{path.parent.name}" for name in ROOMS for path in (ROOT / name).glob("*/__init__.py")}
    files = {f"{name}/{path.stem}" for name in ROOMS for path in (ROOT / name).glob("*.py")}
    assert folders <= named, folders - named
    assert named <= folders | files, named - folders - files


def test_the_product_does_not_know_the_lab() -> None:
    wrong = [
        f"{module}:{found.line} imports {found.module}"
        for module in MODULES
        if not module.startswith("edgepress.benchmarks.lab")
        for found in imports(module)
        if found.module.startswith("edgepress.benchmarks.lab")
    ]
    assert not wrong, wrong


def test_no_room_is_crowded() -> None:
    """Plug-in folders may hold as many as there are plug-ins."""
    plug_ins = {"passes", "families", "targets", "results"}
    folders = {path.parent for path in MODULES.values()}
    counts = {path: len([p for p in path.glob("*.py") if p.name != "__init__.py"]) for path in folders}
    wrong = {
        str(path.relative_to(ROOT)): count
        for path, count in counts.items()
        if count > 25 and path.name not in plug_ins
    }
    assert not wrong, wrong


def test_imports_inside_the_package_are_relative() -> None:
    own = {"edgepress", *FOLDERS, *(path.stem for path in ROOT.glob("*.py"))}
    wrong = [
        f"{module}:{found.line} imports {found.module}"
        for module in MODULES
        for found in imports(module)
        if not found.relative and found.module.split(".")[0] in own
    ]
    assert not wrong, wrong


def test_what_is_imported_exists() -> None:
    missing = [
        f"{module}:{found.line} imports {found.module}"
        for module in MODULES
        for found in imports(module)
        if inside(found.module) and found.module not in MODULES
    ]
    assert not missing, missing


def reached(start: str) -> dict[str, str]:
    """Everything that importing and using ``start`` may import, each with the module that asks for it."""
    found: dict[str, str] = {}
    queue = [start]
    while queue:
        module = queue.pop()
        for one in imports(module):
            if one.typing_only or one.module in found:
                continue
            found[one.module] = module
            if one.module in MODULES:
                queue.append(one.module)
    return found


@pytest.mark.parametrize("name", ["ground", "runtime", "devices"])
def test_what_ships_to_a_device_never_reaches_the_training_world(name: str) -> None:
    wrong = [
        f"{module}: {asking} imports {target}"
        for module in MODULES
        if floor(module) == name
        for target, asking in reached(module).items()
        if target.split(".")[0] in TRAINING or (inside(target) and floor(target) in ("compress", "export"))
    ]
    assert not wrong, wrong


def test_what_measures_on_a_device_never_reaches_the_training_world() -> None:
    wrong = [
        f"{asking} imports {target}"
        for start in ("far_end", "worker")
        for target, asking in reached(f"edgepress.benchmarks.speed.{start}").items()
        if target.split(".")[0] in TRAINING or (inside(target) and floor(target) in ("compress", "export"))
    ]
    assert not wrong, wrong


def everywhere() -> Iterator[tuple[str, ast.AST]]:
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            yield f"{module}:{getattr(node, 'lineno', 0)}", node


def catches_everything(node: ast.ExceptHandler) -> bool:
    caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    return any(
        kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException"))
        for kind in caught
    )


@pytest.mark.chain
def test_only_the_edges_catch_what_they_do_not_know() -> None:
    """The CLI's end, and the one file that types what libraries raise."""
    edges = ("edgepress.cli.entry:", "edgepress.files.third_party_errors:")
    wrong = []
    for where, node in everywhere():
        if isinstance(node, ast.ExceptHandler) and catches_everything(node):
            cleans_up = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            if not cleans_up and not where.startswith(edges):
                wrong.append(where)
    assert not wrong, wrong


@pytest.mark.chain
def test_no_pickle_and_no_code_from_models() -> None:
    wrong = [
        f"{module}:{found.line} imports {found.module}"
        for module in MODULES
        for found in imports(module)
        if found.module.split(".")[0] in PICKLES
    ]
    forbidden = {("trust_remote_code", True), ("weights_only", False), ("allow_pickle", True)}
    for where, node in everywhere():
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            wrong += [f"{where} passes {node.arg}"] if (node.arg, node.value.value) in forbidden else []
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("eval", "exec")
        ):
            wrong.append(f"{where} calls {node.func.id}")
    assert not wrong, wrong


@pytest.mark.chain
def test_every_file_says_what_it_is() -> None:
    silent = [
        module
        for module, path in MODULES.items()
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent, silent
