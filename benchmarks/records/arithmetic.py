"""What decides on the bits of a model's answers: its files, the code and the libraries that compute with
them, and the processor.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...files.storage import sha256_file, sha256_json
from ...runtime.kernels.library import library
from ...runtime.session.cpu_features import first_processor

# Folders of edgepress whose code has a part in an answer.
_CODE = (
    *("benchmarks/quality", "benchmarks/records", "runtime"),
    *("compress/model", "compress/numbers", "compress/pipeline"),
)
_LIBRARIES = ("numpy", "pillow", "tokenizers", "torch", "transformers", "onnxruntime", "onnxruntime-gpu")
# Of variables that choose instructions or orders of summation.
_VARIABLES = ("ATEN_", "DNNL_", "EDGEPRESS_KERNELS", "MKL_", "ONEDNN_", "OPENBLAS_", "TORCH_")
_FIELDS = ("model name", "flags", "CPU part", "Features")


def arithmetic_of(model: str, runtime: Mapping[str, Any]) -> str:
    """The hash of the files of a ``model``, which is theirs, and of what computes: ``runtime`` as records
    name it, with its threads, the versions of libraries, this processor and its instructions."""
    operators = library()
    return sha256_json(
        [
            _code(),
            model,
            dict(runtime),
            None if operators is None else sha256_file(operators),
            {name: _version(name) for name in _LIBRARIES},
            {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)},
            _processor(),
        ]
    )


@cache
def _code() -> str:
    """The hash of edgepress's own."""
    package = Path(__file__).parents[2]
    files = sorted(file for folder in _CODE for file in (package / folder).rglob("*.py"))
    return sha256_json([sha256_file(file) for file in files])


def _version(library: str) -> str | None:
    try:
        return version(library)
    except ModuleNotFoundError:  # PackageNotFoundError is one
        return None


def _processor() -> list[Any]:
    """The first processor's name and instructions."""
    said = first_processor()
    known = {name: said[name] for name in _FIELDS if name in said}
    return [platform.machine(), known or platform.processor()]
