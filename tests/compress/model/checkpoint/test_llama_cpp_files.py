"""Files that llama.cpp's own quantizer wrote are read to the bit as llama.cpp reads them, type by type.

``written_by/llama_cpp/written.json`` says who wrote them, and holds the digest of each tensor as llama.cpp
dequantizes it.
"""

import lzma
from hashlib import sha256
from pathlib import Path

import pytest
from edgepress.compress.model.checkpoint import gguf_source
from edgepress.compress.model.checkpoint.gguf_header import read_gguf_header
from edgepress.compress.model.checkpoint.gguf_source import materialise
from edgepress.compress.model.checkpoint.reader import CheckpointReader
from edgepress.files.storage import read_json

from .test_gguf_source import gguf_name, interleaved

FOLDER = Path(__file__).parent / "written_by" / "llama_cpp"
WRITTEN = read_json(FOLDER / "written.json")["files"]
# One of each kind of type: plain, K-quants, i-quants; the others are slow.
SOON = ("Q4_0", "Q4_K_M", "Q6_K", "IQ3_S")


@pytest.mark.chain
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SOON else pytest.mark.slow) for name in WRITTEN]
)
def test_what_llama_cpp_wrote_is_read_as_llama_cpp_reads_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All have the same tokenizer, which test_gguf_source reads.
    monkeypatch.setattr(gguf_source, "save_tokenizer", lambda *_: None)
    said, path = WRITTEN[name], tmp_path / f"{name}.gguf"
    path.write_bytes(lzma.decompress((FOLDER / f"{name}.gguf.xz").read_bytes()))
    assert sha256(path.read_bytes()).hexdigest() == said["sha256"]
    assert set(read_gguf_header(path).weights) == set(said["types"].values())
    reader = CheckpointReader.open(materialise(path, tmp_path / "read"))
    heads = {"q_proj": reader.config["num_attention_heads"], "k_proj": reader.config["num_key_value_heads"]}
    found = {}
    for stored, tensor in reader.read(reader.shapes).items():
        value, linear = tensor.numpy(), stored.split(".")[-2]
        value = interleaved(value, heads[linear]) if linear in heads else value
        found[gguf_name(stored)] = sha256(value.tobytes()).hexdigest()
    assert found == said["float32_sha256"]


def test_every_type_that_an_importance_matrix_is_not_needed_for_is_among_them() -> None:
    types = {kind for said in WRITTEN.values() for kind in said["types"].values()}
    assert types >= {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ3_S", "IQ4_NL", "IQ4_XS", "Q4_0", "Q8_0"}
