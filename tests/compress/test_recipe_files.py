"""The keys that are read from the source of a pass are those that the pass takes."""

import pytest
from edgepress.compress.pipeline.pass_names import pass_names
from edgepress.compress.pipeline.pass_options import pass_type
from edgepress.compress.recipe_files import option_names, training_names
from edgepress.compress.train.training_options import TrainingOptions


@pytest.mark.parametrize("name", pass_names())
def test_no_key_is_missing_and_none_is_made_up(name: str) -> None:
    kind = pass_type(name)
    taken = kind.model_fields.keys() | kind.fixed.keys()
    learns = set(TrainingOptions.model_fields) if "training" in kind.model_fields else set()
    assert option_names(name) == taken | learns


def test_the_training_section() -> None:
    assert training_names() == set(TrainingOptions.model_fields)
