"""What ``edgepress recipe`` says of recipes: every pass with a line, the options of one as a table, and the
schema of a file.
"""

import re
import sys
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from .model.weights import AS_EMBEDDING, DEFAULT_EMBEDDING
from .numbers.scheme import Scheme
from .pipeline.pass_names import PASS_ALIASES, pass_names
from .pipeline.pass_options import pass_type
from .recipe import CalibrationSettings
from .recipe_files import REQUANTIZE, About
from .train.training_options import TrainingOptions

TRAINING = "training"


def summary_of(name: str) -> str:
    """The first sentence of the docstring of a pass, on one line."""
    text = " ".join(str(sys.modules[pass_type(name).__module__].__doc__).split("\n\n")[0].split())
    return re.split(r"(?<=\.) (?=[A-Z])", text)[0].rstrip(".")


def all_passes() -> list[dict[str, Any]]:
    """Each pass with its summary, when it needs text, and the old names that stand for it."""
    return [
        {
            "name": name,
            "summary": summary_of(name),
            "text": pass_type(name).text,
            "aliases": {old: alias.summary for old, alias in PASS_ALIASES.items() if alias.name == name},
        }
        for name in pass_names()
    ]


def options_of(name: str) -> list[dict[str, Any]]:
    """The options of the pass ``name``, or of the section ``training``: name, type, default, description."""
    kind: type[BaseModel] = TrainingOptions if name == TRAINING else pass_type(name)
    properties = kind.model_json_schema()["properties"]
    found = []
    for key, field in kind.model_fields.items():
        entry = {"name": key, "type": _type(properties[key]), "description": field.description}
        if field.default is not PydanticUndefined:
            entry["default"] = _default(field.default)
        found.append(entry)
    return found


def resolved(name: str) -> tuple[str, str]:
    """The name of a pass without alias, and what an old name stands for, or nothing."""
    alias = PASS_ALIASES.get(name.replace("-", "_"))
    return (alias.name, alias.summary) if alias else (name.replace("-", "_"), "")


def schema() -> dict[str, Any]:
    """JSON Schema of a recipe file, with the new names alone."""
    choices, definitions = [], dict[str, Any]()
    for name in pass_names():
        entry = pass_type(name).model_json_schema(ref_template="#/$defs/{model}")
        definitions |= entry.get("$defs", {})
        choices.append(
            {
                "title": name,
                "description": summary_of(name),
                "type": "object",
                "properties": {
                    "pass": {"const": name},
                    REQUANTIZE: {
                        "type": "boolean",
                        "default": False,
                        "description": "whether layers may be quantized that have codes from an earlier pass",
                    },
                    **entry.get("properties", {}),
                },
                "required": ["pass", *entry.get("required", [])],
                "additionalProperties": False,
            }
        )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "edgepress recipe",
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "about": About.model_json_schema(),
            "passes": {"type": "array", "minItems": 1, "items": {"oneOf": choices}},
            "training": TrainingOptions.model_json_schema(),
            "embedding": {"type": ["string", "null"], "default": DEFAULT_EMBEDDING},
            "head": {"type": ["string", "null"], "default": AS_EMBEDDING},
            "calibration": CalibrationSettings.model_json_schema(),
        },
        "required": ["passes"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _type(entry: dict[str, Any]) -> str:
    """``a | b`` of a JSON Schema."""
    if "enum" in entry:
        return " | ".join(map(str, entry["enum"]))
    if "anyOf" in entry or "oneOf" in entry:
        kinds = [_type(one) for one in entry.get("anyOf", entry.get("oneOf", ()))]
        return " | ".join(dict.fromkeys(kinds))
    if entry.get("type") == "array":
        items = entry.get("items", {})
        return f"list of {_type(items)}" if items else "list"
    if "$ref" in entry or entry.get("type") == "object":
        return "mapping"
    return str(entry.get("const", entry.get("type", "any")))


def _default(value: Any) -> Any:
    """A default as a recipe would say it."""
    if isinstance(value, Scheme):
        return value.name
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, list | tuple):
        return [_default(item) for item in value]
    return value
