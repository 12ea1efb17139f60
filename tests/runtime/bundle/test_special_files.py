"""A pipe in the place of a bundle's file is refused, and not waited for."""

import os
import sys
from pathlib import Path

import pytest
from edgepress.errors import EdgepressError
from edgepress.runtime.api import open_bundle


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in folders")
@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "model.onnx.data", "tokenizer.json"])
def test_no_file_of_a_bundle_may_be_a_pipe(name: str, verify: bool, own_bundle: Path) -> None:
    (own_bundle / name).unlink(missing_ok=True)
    os.mkfifo(own_bundle / name)
    with pytest.raises(EdgepressError):
        open_bundle(own_bundle, verify=verify)
