"""GGUF files that llama.cpp's own quantizer wrote, for tests: a Llama of one block, once a file type.

    python -m venv llama-cpp && llama-cpp/bin/pip install --no-binary=llama-cpp-python \\
        llama-cpp-python==0.3.36 gguf==0.19.0
    llama-cpp/bin/python benchmarks/lab/makers/llama_cpp_files.py \\
        tests/compress/model/checkpoint/written_by/llama_cpp

Beside each file stands what llama.cpp reads in it: the digest of each tensor as llama.cpp itself dequantizes
it to float32. The rows of a matrix repeat after 32, so that a packed file is small; types below 3 bits that
ask for an importance matrix are not among them. This file imports nothing of edgepress.
"""

import argparse
import ctypes
import hashlib
import json
import lzma
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

# By name, llama.cpp's file types: each is a mixture of block types.
FILE_TYPES = {
    "Q2_K": "LLAMA_FTYPE_MOSTLY_Q2_K",
    "Q3_K_M": "LLAMA_FTYPE_MOSTLY_Q3_K_M",
    "Q4_K_M": "LLAMA_FTYPE_MOSTLY_Q4_K_M",
    "Q5_K_M": "LLAMA_FTYPE_MOSTLY_Q5_K_M",
    "Q6_K": "LLAMA_FTYPE_MOSTLY_Q6_K",
    "IQ3_S": "LLAMA_FTYPE_MOSTLY_IQ3_S",
    "IQ4_NL": "LLAMA_FTYPE_MOSTLY_IQ4_NL",
    "IQ4_XS": "LLAMA_FTYPE_MOSTLY_IQ4_XS",
    "Q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0",
    "Q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0",
}
HIDDEN, HEADS, KV_HEADS, DISTINCT = 256, 4, 2, 32
SHAPES = {
    "token_embd": (260, HIDDEN),
    "blk.0.attn_q": (HIDDEN, HIDDEN),
    "blk.0.attn_k": (HIDDEN // 2, HIDDEN),
    "blk.0.attn_v": (HIDDEN // 2, HIDDEN),
    "blk.0.attn_output": (HIDDEN, HIDDEN),
    "blk.0.ffn_gate": (HIDDEN, HIDDEN),
    "blk.0.ffn_up": (HIDDEN, HIDDEN),
    "blk.0.ffn_down": (HIDDEN, HIDDEN),
    "blk.0.attn_norm": (HIDDEN,),
    "blk.0.ffn_norm": (HIDDEN,),
    "output_norm": (HIDDEN,),
}


def letters() -> list[str]:
    """The 256 bytes as byte-level BPE writes them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = iter(range(256, 512))
    return [chr(byte if byte in plain else next(rest)) for byte in range(256)]


def write_float(path: Path) -> None:
    """The model in float32, by the gguf package."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(260)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<pad>", "<s>", "</s>", *letters(), "th"])
    writer.add_token_types([3] * 3 + [1] * 257)
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    generator = np.random.default_rng(34)
    for name, shape in SHAPES.items():
        rows = generator.normal(0, HIDDEN**-0.5, (DISTINCT, HIDDEN)).astype(np.float32)
        whole = 1 + rows[0] if len(shape) == 1 else rows[np.arange(shape[0]) % DISTINCT]
        writer.add_tensor(f"{name}.weight", whole)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(source: Path, target: Path, file_type: str) -> None:
    """``source`` as ``target`` in one of llama.cpp's file types, by llama.cpp; also back to float32."""
    import llama_cpp

    wanted = llama_cpp.llama_model_quantize_default_params()
    wanted.ftype, wanted.nthread, wanted.allow_requantize = getattr(llama_cpp, file_type), 1, True
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(wanted)) != 0:
        raise SystemExit(f"llama.cpp could not write {file_type}")


def tensors(path: Path) -> dict[str, Any]:
    """The tensors of a GGUF file by their names, as the gguf package finds them."""
    import gguf

    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def make(target: Path) -> None:
    """Write ``target``: packed files, and ``written.json`` with what they hold and who wrote them."""
    target.mkdir(parents=True, exist_ok=True)
    files: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "float.gguf")
        write_float(source)
        for name, file_type in FILE_TYPES.items():
            made, back = Path(scratch, f"{name}.gguf"), Path(scratch, "back.gguf")
            quantize(source, made, file_type)
            quantize(made, back, "LLAMA_FTYPE_ALL_F32")
            kinds = {key: tensor.tensor_type.name for key, tensor in tensors(made).items()}
            read = {
                key: hashlib.sha256(tensor.data.tobytes()).hexdigest()
                for key, tensor in tensors(back).items()
            }
            packed = lzma.compress(made.read_bytes(), preset=9)
            (target / f"{name}.gguf.xz").write_bytes(packed)
            digest = hashlib.sha256(made.read_bytes()).hexdigest()
            files[name] = {"sha256": digest, "types": kinds, "float32_sha256": read}
    written = {
        "by": {name: version(name) for name in ("llama-cpp-python", "gguf", "numpy")},
        "with": "benchmarks/lab/makers/llama_cpp_files.py",
        "date": datetime.now(UTC).date().isoformat(),
        "files": files,
    }
    (target / "written.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("directory", type=Path)
    make(parser.parse_args().directory)


if __name__ == "__main__":
    main()
