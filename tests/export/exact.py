"""Sessions over graphs that never round activations."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir
from edgepress.export.proof.graphs import EXACT, exact_model, session_over


@contextmanager
def exact_session(graph: Path) -> Iterator[Any]:
    """A session over ``graph`` with its stored weights and a decoder's cache in float32."""
    with session_over(exact_model(ir.load(graph)), graph.parent, EXACT) as session:
        yield session
