"""Recipes as files and names, without torch: what a misspelt one should have been is said at once."""

import ast
import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import CalibrationError, InputError, RecipeError, UnknownName
from ..files.storage import read_text
from ..files.yaml_safe import load_yaml
from ..plugins import load
from .numbers.scheme import Scheme
from .numbers.table_scheme import table_scheme
from .pipeline.pass_names import PACKAGE, PASS_ALIASES, TRAINING_ALIASES, Alias, pass_names

KEYS = ("name", "about", "passes", "training", "embedding", "head", "calibration")
REQUANTIZE = "requantize"  # of every entry of passes
FOLDER = Path(__file__).parent / "recipes"
_TRAINING = Path(__file__).parent / "train" / "training_options.py"


class About(BaseModel):
    """What ``edgepress recipe list`` says of a recipe; no part of what it does, nor of its hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    purpose: str = Field(description="what it is for, in a line")
    cost: str = Field("", description="time and memory with SmolLM2-135M on one core")
    text: bool | None = Field(None, description="whether it needs calibration text")
    sizes: str = Field("", description="of which models it holds, as far as that was measured")
    instead: str = Field("", description="what else to take, and when")
    smollm2: str = Field("", description="what it gave on SmolLM2-135M")
    minilm: str = Field("", description="what it gave on MiniLM")


def names() -> list[str]:
    """Recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def about(recipe: str) -> About:
    """What the packaged recipe says of itself."""
    text, origin = text_of(recipe)
    return About.model_validate(load_yaml(text, source=origin)["about"])


def step_of(recipe: str, name: str) -> dict[str, Any]:
    """The last pass of that ``name`` in the packaged recipe, with its options as they are written there."""
    text, origin = text_of(recipe)
    passes: list[dict[str, Any]] = load_yaml(text, source=origin)["passes"]
    return next(step for step in reversed(passes) if step["pass"] == name)


# By what a model reads: what a recipe needs of it, and how that is given.
_NEEDED = {
    "text": ("calibration text", "pass --text FILE, a directory, or a demo corpus such as wikipedia"),
    "images": (
        "images to calibrate with",
        "pass --images FOLDER, with images like those that the model will read",
    ),
    "sounds": (
        "sounds to calibrate with",
        "pass --audio FOLDER, with WAV files like those that the model will hear, and beside each NAME.wav "
        "what is said in it as NAME.txt",
    ),
}


def no_text(recipe: str, *, reads: str = "text") -> CalibrationError:
    """The error for a recipe or scheme without the text that it needs, or what a model ``reads`` else."""
    what, fix = _NEEDED[reads]
    return CalibrationError(f"the recipe {recipe} needs {what}", fix=fix)


def text_of(recipe: str) -> tuple[str, str]:
    """``(YAML text, origin)`` of a recipe file or of a recipe that comes with the package."""
    path = Path(recipe)
    if not path.is_file():
        if recipe in names():
            path = FOLDER / f"{recipe}.yaml"
        elif path.suffix in (".yaml", ".yml") and not path.exists():
            raise RecipeError(
                f"there is no recipe file {recipe}", fix="check the path; `edgepress recipe list`"
            )
        elif not path.exists():
            raise UnknownName("recipe", recipe, names())
    try:
        return read_text(path), str(path if path.parent != FOLDER else recipe)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the recipe {path}", why=str(error)) from None


def placed(error: InputError, where: str) -> RecipeError:
    """``error`` with where in the recipe it is."""
    return RecipeError(f"{where}: {error.what}", why=error.why, fix=error.fix)


def unknown_key(key: str, keys: Sequence[str], where: str) -> RecipeError:
    """The error for a key that is not among ``keys``; suggests the nearest."""
    near = difflib.get_close_matches(key.rpartition(".")[2], keys, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return RecipeError(f"{where}: unknown key {key!r}", fix=f"{hint}known keys: {', '.join(keys)}")


def scheme_asked(scheme: str, group_size: int | None) -> Scheme:
    """The scheme of ``--scheme`` with ``--group-size``."""
    parsed = Scheme.parse(scheme)
    if group_size is None:
        return parsed
    try:
        return Scheme.model_validate({**parsed.model_dump(), "group_size": group_size})
    except ValidationError as error:
        raise RecipeError(f"group size {group_size}: {error.errors()[0]['msg']}") from None


def check_words(recipe: str) -> bool:
    """Refuse a recipe whose name, keys, passes, options or schemes are misspelt; values are for
    :func:`~edgepress.compress.recipe.load_recipe`, which imports the passes.

    Returns:
        Whether it says that it needs calibration text, and names none.
    """
    text, origin = text_of(recipe)
    data = load_yaml(text, source=origin)
    if not isinstance(data, Mapping):
        return False
    _refuse_unknown(data, KEYS, origin)
    training, passes = data.get("training"), data.get("passes")
    if isinstance(training, Mapping):
        _refuse_unknown(training, sorted(training_names() | TRAINING_ALIASES.keys()), f"{origin}, training")
    for number, entry in enumerate(passes if isinstance(passes, list) else (), 1):
        if isinstance(entry, Mapping):
            _check_pass(entry, f"{origin}, pass {number}")
    settings, said = data.get("calibration"), data.get("about")
    source = settings.get("source") if isinstance(settings, Mapping) else None
    return isinstance(said, Mapping) and said.get("text") is True and not source


def _check_pass(entry: Mapping[str, Any], where: str) -> None:
    name, scheme = entry.get("pass"), entry.get("scheme")
    if isinstance(name, str):
        old = name.replace("-", "_")
        if old not in (*pass_names(), *PASS_ALIASES):
            known_passes = [choice.replace("_", "-") for choice in pass_names()]
            raise placed(UnknownName("pass", name, known_passes), where)
        alias = PASS_ALIASES.get(old, Alias(old))
        known = option_names(alias.name) | alias.options.keys()
        known |= TRAINING_ALIASES.keys() if "training" in known else set()
        _refuse_unknown(entry, sorted(known | {"pass", REQUANTIZE}), f"{where} ({name})")
    if isinstance(scheme, str):
        try:
            table_scheme(scheme)
        except UnknownName as error:
            raise placed(error, f"{where} ({name})") from None


def _refuse_unknown(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    if unknown := [key for key in given if key not in known]:
        raise unknown_key(str(unknown[0]), known, where)


def option_names(name: str) -> set[str]:
    """The keys of the pass in the file ``name``: its options, those that are fixed now, and where it learns
    also those of ``training``, which may stand beside them.
    """
    path = Path(str(import_module(PACKAGE).__file__)).parent / f"{name}.py"
    if not path.exists():  # of another distribution: what it is made of need not lie beside it
        return set(load(PACKAGE, name, "pass").PASS.model_fields)
    found = _keys(path, "PASS", set())
    return found | (training_names() if "training" in found else set())


def training_names() -> set[str]:
    """The keys of the section ``training``."""
    return _keys(_TRAINING, "TrainingOptions", set())


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _keys(path: Path, name: str, seen: set[tuple[Path, str]]) -> set[str]:
    """The option names that stand in what ``name`` is in the module at ``path``: a class with those that it
    comes from, or a mapping by option.
    """
    if (path, name) in seen:
        return set()
    seen.add((path, name))
    for node in _parsed(path).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _of_class(path, node, seen)
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _of_mapping(path, node, seen)
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == name for t in node.targets
        ):
            return _of_mapping(path, node.value, seen)
        if isinstance(node, ast.ImportFrom) and node.level and any(own.name == name for own in node.names):
            module = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            return _keys(module.with_suffix(".py"), name, seen)
    return set()


def _of_class(path: Path, node: ast.ClassDef, seen: set[tuple[Path, str]]) -> set[str]:
    found = set[str]()
    for base in node.bases:
        found |= _of_mapping(path, base, seen)
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            if part.target.id == "fixed" and part.value is not None:
                found |= _of_mapping(path, part.value, seen)
            elif not ast.unparse(part.annotation).startswith("ClassVar"):
                found.add(part.target.id)
    return found


def _of_mapping(path: Path, node: ast.AST, seen: set[tuple[Path, str]]) -> set[str]:
    """The keys of the dictionaries in ``node``, and of what its names stand for."""
    found = set[str]()
    for part in ast.walk(node):
        if isinstance(part, ast.Dict):
            found |= {
                key.value for key in part.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)
            }
        elif isinstance(part, ast.Name) and part.id != "Fixed":
            found |= _keys(path, part.id, seen)
    return found
