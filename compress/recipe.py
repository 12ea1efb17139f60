"""``Recipe``: an ordered list of passes with their options, from YAML; its content is hashed into every
result.

name: w4a16-gptq
about: {purpose: 4-bit weights by GPTQ}   # what `edgepress recipe list` says; optional
passes:
  - pass: gptq
    scheme: W4A16-g64
training: {epochs: 4}       # of every pass that trains; a pass may have its own
embedding: W8A16-g32        # how exports store embedding and head; null leaves them in float
head: W4A16-g32             # a head that is not the embedding, where it differs
calibration: {source: wikipedia, samples: 128, length: 512, seed: 0}
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from ..errors import RecipeError, UnknownName
from ..files.limits import LARGEST_SEED
from ..files.storage import sha256_json
from ..files.yaml_safe import load_yaml
from .model.weights import AS_EMBEDDING, DEFAULT_EMBEDDING
from .numbers.option_model import OptionModel
from .numbers.scheme import Scheme
from .numbers.table_scheme import table_scheme
from .pipeline.algorithm import Pass
from .pipeline.pass_names import pass_names
from .pipeline.pass_options import read_options, renamed_training, training_type
from .recipe_files import KEYS, REQUANTIZE, About, placed, text_of, unknown_key
from .train.training_options import TrainingOptions

# Options of passes that may name a file or a directory.
_PATHS = ("corpus", "costs", "plan", "student")


class CalibrationSettings(OptionModel):
    """Where calibration tokens come from; command-line options win."""

    source: str | None = Field(None, description="a file, a directory, or the name of a demo corpus")
    samples: int = Field(128, ge=1, le=100_000, description="how many sequences are drawn")
    length: int = Field(512, ge=8, le=131_072, description="tokens of a sequence, at most")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="seed of what is drawn")


class Step(BaseModel):
    """One pass of a recipe."""

    model_config = ConfigDict(frozen=True)

    name: str
    options: SerializeAsAny[Pass]
    requantize: bool = Field(False, strict=True, description="may give codes to layers that have some")


class Recipe(BaseModel):
    """What to do to a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "unnamed"
    about: About | None = None
    passes: tuple[Step, ...] = Field(min_length=1)
    embedding: str | None = DEFAULT_EMBEDDING
    head: str | None = AS_EMBEDDING
    calibration: CalibrationSettings = CalibrationSettings()
    notes: tuple[str, ...] = ()  # old names that the recipe uses, and the new ones
    paths: tuple[str, ...] = ()  # what its options name: files, directories, or demo corpora

    @field_validator("passes")
    @classmethod
    def _last(cls, value: tuple[Step, ...]) -> tuple[Step, ...]:
        for step in value[:-1]:
            if step.options.last:
                raise ValueError(
                    f"{step.name} must be the last pass: what it makes belongs to the model as it ends"
                )
        return value

    @field_validator("embedding", "head")
    @classmethod
    def _weight_only(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None or (info.field_name == "head" and value == AS_EMBEDDING):
            return value
        scheme = table_scheme(value)
        if scheme.activations or scheme.format != "int":
            raise ValueError("embedding and head take integer weight-only schemes")
        return scheme.name

    @property
    def steps(self) -> list[tuple[str, Pass]]:
        """``(name, pass)`` in order."""
        return [(step.name, step.options) for step in self.passes]

    @property
    def calibrated(self) -> bool:
        """Whether any pass needs calibration text."""
        return any(step.calibrated for _, step in self.steps)

    def as_dict(self) -> dict[str, Any]:
        """The recipe with every default filled in, fixed options too, as it is hashed and stored."""
        return {
            "name": self.name,
            "passes": [
                {
                    "pass": step.name,
                    **{key: fixed.value for key, fixed in step.options.fixed.items()},
                    **step.options.model_dump(mode="json"),
                    **({"requantize": True} if step.requantize else {}),
                }
                for step in self.passes
            ],
            "embedding": self.embedding,
            **({} if self.head == AS_EMBEDDING else {"head": self.head}),
            "calibration": self.calibration.model_dump(mode="json"),
        }

    @property
    def tables(self) -> tuple[Scheme | None, Scheme | None]:
        """The schemes of the embedding, and of a head that is not the embedding; None in float."""
        named = self.embedding, self.embedding if self.head == AS_EMBEDDING else self.head
        embedding, head = (None if name is None else table_scheme(name) for name in named)
        return embedding, head

    @property
    def sha256(self) -> str:
        """Hash of :meth:`as_dict`."""
        return sha256_json(self.as_dict())

    @property
    def summary(self) -> str:
        """``W4A16-g64 gptq``: what tables call a result of this recipe."""
        parts = []
        for name, step in self.steps:
            scheme = step.weight_scheme
            label, called = scheme.name if scheme else step.label, step.called(name)
            parts.append(label if called in ("", label.lower()) else f"{label} {called}")
        return " + ".join(parts)


def _explain(error: ValidationError, keys: list[str], where: str) -> RecipeError:
    # A misspelt key also makes the right one missing; the misspelling is what to show.
    first = min(error.errors(), key=lambda entry: entry["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return unknown_key(key, keys, where)
    # What a check of the whole pass says has no key, and its input is the pass.
    given = first["type"] != "missing" and key
    shown = f" (given: {first['input']!r:.60})" if given else ""
    said = first["msg"].removeprefix("Value error, ")
    return RecipeError(
        f"{where}: {f'{key}: ' if key else ''}{said}{shown}", fix="see `edgepress recipe schema`"
    )


def _step(number: int, data: Any, where: str, training: Mapping[str, Any]) -> tuple[Step, tuple[str, ...]]:
    where = f"{where}, pass {number}"
    if not isinstance(data, Mapping) or not isinstance(data.get("pass"), str):
        raise RecipeError(
            f"{where}: each entry of 'passes' is a mapping with a 'pass' key",
            fix=f"for example {{pass: gptq, scheme: W4A16-g64}}; passes: {', '.join(pass_names())}",
        )
    where = f"{where} ({data['pass']})"
    options = {key: value for key, value in data.items() if key not in ("pass", REQUANTIZE)}
    again = data.get(REQUANTIZE, False)
    if not isinstance(again, bool):
        raise RecipeError(f"{where}: {REQUANTIZE} is true or false, not {again!r}")
    try:
        read = read_options(data["pass"], options, training)
    except (RecipeError, UnknownName) as error:
        raise placed(error, where) from None
    try:
        made = read.kind.model_validate(read.options)
        return Step(name=read.name, options=made, requantize=again), read.notes
    except UnknownName as error:
        raise placed(error, where) from None
    except ValidationError as error:
        inside = error.errors()[0]["loc"][:1] == ("training",)
        kind = training_type(read.kind) if inside else read.kind
        raise _explain(error, list(kind.model_fields), where) from None


def _training(given: Any, where: str) -> dict[str, Any]:
    """The recipe's ``training`` section, for the passes that train."""
    if not isinstance(given, Mapping):
        raise RecipeError(f"{where}: 'training' must be a mapping", fix="for example training: {epochs: 4}")
    options = renamed_training(given)
    try:
        TrainingOptions.model_validate(options)
    except ValidationError as error:
        raise _explain(error, list(TrainingOptions.model_fields), f"{where}, training") from None
    return options


def _paths(data: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """What the options name, which must be possible names."""
    calibration = data.get("calibration")
    named = [calibration.get("source")] if isinstance(calibration, Mapping) else []
    steps = [entry for entry in data["passes"] if isinstance(entry, Mapping)]
    named += [entry.get(key) for entry in steps for key in _PATHS]
    paths = tuple(path for path in named if isinstance(path, str))
    for path in paths:
        try:
            possible = "\0" not in path and path and Path(path).exists() is not None
        except OSError:  # too long
            possible = False
        if not possible:
            raise RecipeError(f"{where}: {path!a:.80} is no name of a file", fix="correct it")
    return paths


def _tables(passes: Sequence[Pass], data: Mapping[str, Any], where: str) -> dict[str, str]:
    """How exports store embedding and head, where a pass has rounded them: as it did."""
    made = [step.tables for step in passes if step.tables is not None]
    if not made:
        for key in ("embedding", "head"):
            if isinstance(data.get(key), str) and "+" in data[key]:
                raise RecipeError(
                    f"{where}: {key}: {data[key]} has a scheme for rare tokens, which a pass rounds",
                    fix=f"add {{pass: embedding, scheme: {data[key]}}} to the passes",
                )
        return {}
    embedding, head = (scheme.name for scheme in made[-1])
    found = {"embedding": embedding, "head": AS_EMBEDDING if head == embedding else head}
    for key, scheme in found.items():
        if data.get(key, scheme) != scheme:
            raise RecipeError(
                f"{where}: a pass rounds embedding and head to {embedding} and {head}, "
                f"and {key!r} says {data[key]}",
                fix=f"leave {key!r} out",
            )
    return found


def parse(data: Any, where: str) -> Recipe:
    """A recipe from parsed YAML."""
    if not isinstance(data, Mapping):
        raise RecipeError(f"{where} is not a mapping", fix=f"a recipe has the keys {', '.join(KEYS)}")
    unknown = [key for key in data if key not in KEYS]
    if unknown:
        raise unknown_key(str(unknown[0]), KEYS, where)
    passes = data.get("passes")
    if not isinstance(passes, list) or not passes:
        raise RecipeError(f"{where}: 'passes' must be a list with at least one pass")
    paths = _paths(data, where)
    training = _training(data.get("training", {}), where)
    read = [_step(number, entry, where, training) for number, entry in enumerate(passes, 1)]
    if training and not any("training" in type(step.options).model_fields for step, _ in read):
        raise RecipeError(f"{where}: 'training' is given, and no pass trains", fix="leave it out")
    notes = tuple(dict.fromkeys(note for _, found in read for note in found))
    rest = {key: value for key, value in data.items() if key != "training"}
    own = {"passes": [step for step, _ in read], "notes": notes, "paths": paths}
    tables = _tables([step.options for step, _ in read], data, where)
    try:
        return Recipe.model_validate({**rest, **own, **tables})
    except UnknownName as error:
        raise placed(error, where) from None
    except ValidationError as error:
        raise _explain(error, list(CalibrationSettings.model_fields), where) from None


def load_recipe(recipe: str) -> Recipe:
    """The recipe in a YAML file, or the one called ``recipe`` in the package."""
    text, origin = text_of(recipe)
    return parse(load_yaml(text, source=origin), origin)
