"""``OptionModel``: options of a recipe, which refuse a boolean where a number belongs."""

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator


class OptionModel(BaseModel):
    """Base of options; pydantic alone would read ``samples: true`` as 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_booleans(cls, values: Any) -> Any:
        for name, field in cls.model_fields.items():
            given = values.get(name) if isinstance(values, dict) else None
            if isinstance(given, bool) and not {bool, Any} & {field.annotation, *get_args(field.annotation)}:
                raise ValueError(f"{name} is {str(given).lower()}, which is no number and no name")
        return values
