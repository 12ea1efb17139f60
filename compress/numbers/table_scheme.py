"""``TableScheme``: an embedding or head whose rows of rare tokens have fewer bits than the others.

Tokenizers number tokens in the order in which they were found worth one, so that the first rows are read and
predicted most: of SmolLM2's 49,152 the first 4,096 lose about as much in 3 bits as all others together. As
in adaptive input representations (Baevski & Auli 2018, arXiv 1809.10853), where frequent tokens get wider
vectors.

Each group of the rare rows is on a grid of their own scheme, which is on a grid of the frequent one too: the
same scale, with more codes, in smaller groups. So whoever knows of one scheme for a table reads it in that of
the frequent rows, and nothing is lost; edgepress's own operators store each part in its own.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from ...errors import RecipeError
from .scheme import Scheme

# More leave a scale in bfloat16 no bits, and rounding to nearest so little to gain.
MOST_BITS = 6
_WRITTEN = "W4A16-g16+W3A16-g32@4096"


def kept_on_grid(scheme: Scheme) -> bool:
    """Whether groups of a table that are on a grid of ``scheme`` keep their values where it is rounded."""
    return scheme.format == "int" and scheme.symmetric and scheme.bits <= MOST_BITS


class TableScheme(Scheme):
    """The scheme of the frequent rows, and of the others; ``W4A16-g16+W3A16-g32@4096`` is its name.

    Attributes:
        rare: the scheme of the rows from ``rare_from`` on, which is the number of a token.
    """

    rare: Scheme
    rare_from: int = Field(ge=1, description="the first token whose row is stored as `rare`")

    @model_validator(mode="after")
    def _on_one_grid(self) -> Self:
        frequent, rare = self.frequent, self.rare
        if not (kept_on_grid(frequent) and kept_on_grid(rare)) or frequent.activations or rare.activations:
            raise ValueError(f"both parts of a table are symmetric integers, of at most {MOST_BITS} bits")
        widest = rare.group_size
        divides = frequent.group_size is not None and (widest is None or widest % frequent.group_size == 0)
        if rare.bits > frequent.bits or not (divides or frequent.group_size == widest) or frequent == rare:
            raise ValueError(
                f"rows of rare tokens have fewer bits than those of frequent ones, in groups of as many or a "
                f"multiple: {rare.name} behind {frequent.name}"
            )
        return self

    @classmethod
    def of(cls, frequent: Scheme, rare: Scheme, rare_from: int) -> TableScheme:
        """Of two schemes."""
        return cls(**dict(frequent), rare=rare, rare_from=rare_from)

    @property
    def frequent(self) -> Scheme:
        """The scheme of the first rows."""
        return Scheme.model_validate({key: getattr(self, key) for key in Scheme.model_fields})

    @property
    def name(self) -> str:
        """:func:`table_scheme` reads it back."""
        return f"{self.frequent.name}+{self.rare.name}@{self.rare_from}"


def table_scheme(name: str) -> Scheme:
    """The scheme of an embedding or head called ``name``: one for all rows, or a :class:`TableScheme`."""
    frequent, plus, behind = name.partition("+")
    try:
        if not plus:
            return Scheme.parse(name)
        rare, _, first = behind.partition("@")
        if not (first.isascii() and first.isdecimal() and len(first) < 10):
            raise RecipeError(
                f"{name!a:.80} does not say from which token on rows are rare", fix=f"write {_WRITTEN}"
            )
        return TableScheme.of(Scheme.parse(frequent), Scheme.parse(rare), int(first))
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{name!a:.80}: {said}", fix=f"for example {_WRITTEN}") from None


def rows_of(scheme: Scheme, rows: int) -> list[tuple[slice, Scheme]]:
    """The rows of a table of so many that are stored in each scheme, in order."""
    if not isinstance(scheme, TableScheme):
        return [(slice(0, rows), scheme)]
    first = min(scheme.rare_from, rows)
    return [(slice(0, first), scheme.frequent), (slice(first, rows), scheme.rare)]


def _read(value: Any) -> Any:
    return table_scheme(value) if isinstance(value, str) else value


def _on_a_grid(scheme: Scheme) -> Scheme:
    if scheme.activations or not kept_on_grid(scheme):
        raise ValueError(
            f"embedding takes symmetric integer schemes of weights, of at most {MOST_BITS} bits; "
            "with more, rounding to nearest (embedding: SCHEME beside the passes) loses little"
        )
    return scheme


TableSchemeOption = Annotated[
    TableScheme | Scheme,
    BeforeValidator(_read, json_schema_input_type=str | dict[str, Any]),
    AfterValidator(_on_a_grid),
    Field(description=f"a name such as W4A16-g32, or {_WRITTEN}: other rows from that token on"),
]
