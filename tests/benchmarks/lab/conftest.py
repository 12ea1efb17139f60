"""A sentence encoder for the tests of the lab, whose longer ones wait for ``make check-all``."""

from collections.abc import Callable
from pathlib import Path

import pytest
from edgepress.files.storage import write_json

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("chain"):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def pooled_bert(tmp_path_factory: pytest.TempPathFactory, make_encoder: Callable[..., Path]) -> Path:
    """A BERT of four layers with a pooling, as sentence-transformers saves it. Read only."""
    path = make_encoder(tmp_path_factory.mktemp("pooled") / "bert", num_hidden_layers=4)
    (path / "1_Pooling").mkdir()
    write_json(path / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [{"path": name, "type": f"sentence_transformers.models.{kind}"} for name, kind in kinds.items()]
    write_json(path / "modules.json", modules)
    return path
