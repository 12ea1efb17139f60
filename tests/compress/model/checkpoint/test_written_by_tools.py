"""Checkpoints that quantization tools themselves wrote are read as the tools read them.

Each folder of ``written_by`` with a config is one; its ``written.json`` says who wrote it and holds the
digests of its linears as the tool dequantizes them, ``dequantized.safetensors`` their first rows.
"""

from hashlib import sha256
from pathlib import Path

import pytest
from edgepress.compress.model.weights import WeightSource
from edgepress.files.storage import read_json, sha256_file
from safetensors.torch import load_file

FOLDER = Path(__file__).parent / "written_by"
# How each is described, and how far a weight may be from the tool's, of its own size: 0 is to the bit.
SAID = {
    "bitsandbytes_nf4": ("4 bits (bitsandbytes, nf4, scales quantized too)", 0.0),
    "bitsandbytes_int8": ("8 bits (bitsandbytes, int8)", 2**-22),  # it multiplies by a rounded 1/127
    "hqq_4": ("4 bits (HQQ)", 0.0),  # its config has no quantization_config
    "compressed_tensors_pack": ("", 0.0),  # edgepress's own form
    "compressed_tensors_fp8": ("8 bits (compressed-tensors, naive-quantized)", 0.0),
    "auto_round": ("4 bits (AutoRound, groups of 32)", 2**-8),  # which gives its weights in bfloat16
    "auto_round_gptq": ("4 bits (GPTQ, groups of 32)", 2**-8),
    "auto_round_awq": ("4 bits (AWQ, groups of 32)", 2**-8),
}


@pytest.mark.parametrize("name", SAID)
def test_what_a_tool_wrote_is_read_as_the_tool_reads_it(name: str) -> None:
    described, near = SAID[name]
    written, rows = (
        read_json(FOLDER / name / "written.json"),
        load_file(FOLDER / name / "dequantized.safetensors"),
    )
    source = WeightSource.open(FOLDER / name)
    assert source.reader.coded.described == described
    assert len(rows) == 7
    for module, first in rows.items():
        found = 0.0 + source.dense(module).contiguous()  # no negative zeros, as in what is compared
        assert ((found[: len(first)] - first).abs() <= near * first.abs()).all(), module
        exact = sha256(found.numpy().tobytes()).hexdigest() == written["float32_sha256"][module]
        assert exact or near, module


def test_files_are_those_that_the_tools_wrote() -> None:
    folders = {file.parent for file in FOLDER.glob("*/config.json")}
    assert {folder.name for folder in folders} == set(SAID)
    for folder in folders:
        files = read_json(folder / "written.json")["files"]
        assert {name: sha256_file(folder / name) for name in files} == files
