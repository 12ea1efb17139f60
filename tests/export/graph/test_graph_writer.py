"""What is written follows the runtime that must read it."""

import pytest
from edgepress.errors import MissingDependency
from edgepress.export.graph.graph_writer import Kind, Opset, installed_runtime, opset_for


@pytest.mark.parametrize("version", ["1.24.0", "1.32.0", "1.24.1.dev20250101", "2.0.0"])
def test_runtimes_that_can_read_it(version: str) -> None:
    assert opset_for(version, "decoder") == Opset(21, 10)
    assert opset_for(version, "encoder") == Opset(23, 11)


@pytest.mark.parametrize("version", ["1.22.1", "0.9", "weekly"])
@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_runtimes_that_cannot(version: str, kind: Kind) -> None:
    with pytest.raises(MissingDependency, match="older than"):
        opset_for(version, kind)


def test_encoders_ask_for_a_newer_one() -> None:
    assert opset_for("1.23.2", "decoder") == Opset(21, 10)
    with pytest.raises(MissingDependency, match=r"1\.24"):
        opset_for("1.23.2", "encoder")


def test_the_installed_one_is_found_and_agrees_with_the_module() -> None:
    import onnxruntime

    assert installed_runtime() == onnxruntime.__version__
