"""Every tensor of a model has one place in a GGUF file, under a name of its own, and comes back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepress.benchmarks.lab.interop.families import FAMILIES
from edgepress.benchmarks.lab.same_bytes.pico_models import save_pico
from edgepress.compress.model.gguf.features import architecture_of
from edgepress.compress.model.gguf.places import entries
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import InputError

# By the architecture of the file; rows of the matrix say what is particular of a pico model.
WRITTEN = {
    "llama": "llama",
    "qwen3": "qwen3",
    "phi3": "phi3",
    "gpt2": "gpt2",
    "bloom": "bloom",
    "mpt": "mpt",
    "falcon": "falcon",
    "gpt_neox": "gptneox",
    "starcoder2": "starcoder2",
    "mixtral": "llama",
    "gpt_oss as llama.cpp has it": "gpt-oss",
    "deepseek_v3": "deepseek2",
    "lfm2 F32": "lfm2",
    "mamba F32": "mamba",
    "mamba2 F32": "mamba2",
    "jamba F32": "jamba",
    "bert F32": "bert",
    "modernbert F32": "modern-bert",
    "nomic_bert F32": "nomic-bert",
    "eurobert F32": "eurobert",
    "t5 F32": "t5",
}


@pytest.mark.parametrize("row", WRITTEN)
def test_every_tensor_has_one_place(row: str, tmp_path: Path) -> None:
    family, changes = row.split(" ")[0], FAMILIES.get(row, ("", {}))[1]
    save_pico(tmp_path, family, changes)
    source = WeightSource.open(tmp_path)
    known = architecture_of(source.anatomy)
    assert known.name == WRITTEN[row]
    found = entries(source.anatomy, source.shapes, known)
    names = [entry.name for entry in found]
    assert len(names) == len(set(names)) > len(source.anatomy.blocks)
    assert {part.stored for entry in found for part in entry.parts} <= source.shapes.keys()
    linears = {f"{linear.name}.weight" for linear in source.anatomy.linears()}
    assert linears <= {part.stored for entry in found for part in entry.parts}
    for entry in found:
        for part in entry.parts:
            comes_back(part, source.shapes[part.stored])


def test_what_llama_cpp_leaves_out_is_refused(tmp_path: Path) -> None:
    save_pico(tmp_path, "gemma3_text", {})
    with pytest.raises(InputError, match="scaled scores"):
        architecture_of(WeightSource.open(tmp_path).anatomy)


def comes_back(part: Any, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    there = part.of(array)
    rows = array if part.rows is None else array[part.rows]
    np.testing.assert_allclose(part.back(there.reshape(rows.shape)), rows, rtol=1e-6, atol=1e-6)
