"""What is written follows the runtime that must read it."""

from __future__ import annotations

import pytest
from edgepress.errors import MissingDependency
from edgepress.export.opset import Opset, installed_runtime, opset_for


@pytest.mark.parametrize("version", ["1.23.0", "1.32.0", "1.24.1.dev20250101", "2.0.0"])
def test_runtimes_that_can_read_it(version: str) -> None:
    assert opset_for(version) == Opset(21, 10)


@pytest.mark.parametrize("version", ["1.22.1", "0.9", "weekly"])
def test_runtimes_that_cannot(version: str) -> None:
    with pytest.raises(MissingDependency, match="older than"):
        opset_for(version)


def test_the_installed_one_is_found_and_agrees_with_the_module() -> None:
    import onnxruntime

    assert installed_runtime() == onnxruntime.__version__
