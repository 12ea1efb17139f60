"""The recipe that a caller asks for: one by its name or file, or by a scheme, whose groups are as the model
lets them be.
"""

from __future__ import annotations

from .model.anatomy import Anatomy
from .model_checks import check_kind, check_shapes
from .recipe import Recipe, load_recipe
from .scheme_recipe import recipe_for


class AskedRecipe:
    """A ``recipe``, or the ``scheme`` with ``group_size`` that stands for one; ``calibrated`` says whether
    there is text for it.
    """

    def __init__(
        self, recipe: str | None, scheme: str | None, group_size: int | None, *, calibrated: bool
    ) -> None:
        self._read = None if recipe is None else load_recipe(recipe)
        self._scheme, self._group_size, self._calibrated = str(scheme), group_size, calibrated

    def of(self, anatomy: Anatomy) -> Recipe:
        """The recipe for such a model."""
        return self._read or recipe_for(
            self._scheme, group_size=self._group_size, calibrated=self._calibrated, anatomy=anatomy
        )

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a model that the recipe cannot work on, by its anatomy alone."""
        recipe = self.of(anatomy)
        check_kind(anatomy, recipe)
        check_shapes(anatomy, recipe)
