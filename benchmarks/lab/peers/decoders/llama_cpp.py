"""llama.cpp through llama-cpp-python, built from source for this CPU.

The checkpoint is written as float32 GGUF without a vocabulary (prompts are token ids) and quantized by
llama.cpp itself. Its Q4_0 keeps embedding and head in 6 or 8 bits; ``q4-0-all`` puts them into 4 as well. A
checkpoint in bfloat16 is a large one: its matrices are rounded one at a time to Q4_0, and Q8_0 outside the
blocks, by the gguf package, which takes a seventh of the disk.
"""

import ctypes
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..contract import ConversionTask, DecoderVariant, DecodingEngine, EngineSettings, StepwiseEngine

TITLE = "llama.cpp"
PACKAGES = ("--no-binary=llama-cpp-python", "llama-cpp-python==0.3.36", "gguf==0.19.0")
BUILD = {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF"}
DISTRIBUTIONS = ("llama-cpp-python",)
VARIANTS = {
    "q4-0": DecoderVariant("Q4_0", 4, 8),
    "q4-0-all": DecoderVariant("Q4_0, embedding too", 4, 4),
    "q8-0": DecoderVariant("Q8_0", 8, 8),
}
_FULL, _FILE = "llama-cpp-float32.gguf", "model.gguf"


def convert(task: ConversionTask, variant: str) -> None:
    """Write ``model.gguf``."""
    import llama_cpp

    if json.loads((task.checkpoint / "config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16":
        if variant != "q4-0":
            raise SystemExit("a large model is written as Q4_0 alone")
        _write_gguf(task.checkpoint, task.artifact / _FILE, rounded=True)
        return
    full = task.artifact.parent / _FULL  # shared by the variants of a model
    if not full.exists():
        part = full.with_suffix(".part")
        _write_gguf(task.checkpoint, part)
        part.rename(full)
    wanted = llama_cpp.llama_model_quantize_default_params()
    q8 = variant == "q8-0"
    wanted.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0 if q8 else llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    if variant == "q4-0-all":
        wanted.token_embedding_type = wanted.output_tensor_type = 2  # GGML_TYPE_Q4_0
    target = str(task.artifact / _FILE).encode()
    if llama_cpp.llama_model_quantize(str(full).encode(), target, ctypes.byref(wanted)) != 0:
        raise SystemExit("llama.cpp could not quantize the model")


def _write_gguf(checkpoint: Path, target: Path, *, rounded: bool = False) -> None:
    import gguf

    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(target, "llama")
    _write_sizes(writer, config, checkpoint)
    names = _names(config["num_hidden_layers"])
    for file in sorted(checkpoint.glob("*.safetensors")):
        for name, found in _floats(file):
            tensor, kind = _reordered(name, found, config), None
            if rounded and tensor.ndim > 1:
                types = gguf.GGMLQuantizationType
                kind = types.Q4_0 if ".layers." in name else types.Q8_0
                tensor = gguf.quants.quantize(tensor, kind)
            writer.add_tensor(names[name], tensor, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _floats(file: Path) -> Iterator[tuple[str, Any]]:
    """The tensors of a safetensors file by name as float32, one in memory; numpy knows no bfloat16."""
    import numpy as np

    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        raw = np.fromfile(file, np.uint8, stop - start, offset=8 + length + start)
        if entry["dtype"] == "BF16":
            yield name, (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])
        else:
            yield name, raw.view(np.float32).reshape(entry["shape"])


def _write_sizes(writer: Any, config: dict[str, Any], checkpoint: Path) -> None:
    heads = config["num_attention_heads"]
    rope = config.get("rope_parameters") or {}
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(0)
    _write_tokenizer(writer, checkpoint, config["vocab_size"])


def _write_tokenizer(writer: Any, checkpoint: Path, size: int) -> None:
    """The byte-level BPE of ``tokenizer.json``, so that a start loads it as a user's does."""
    import gguf

    described = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    special = {one["content"] for one in described["added_tokens"]}
    ids = described["model"]["vocab"] | {one["content"]: one["id"] for one in described["added_tokens"]}
    tokens = {number: token for token, number in ids.items()}
    found = [tokens.get(number, f"[PAD{number}]") for number in range(size)]
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    merges = described["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(found)
    writer.add_token_types([control if token in special else normal for token in found])
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])


def _names(blocks: int) -> dict[str, str]:
    """GGUF's names of the tensors of a Llama."""
    parts = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    names = {
        f"model.layers.{index}.{part}.weight": f"blk.{index}.{short}.weight"
        for index in range(blocks)
        for part, short in parts.items()
    }
    ends = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    return names | {f"{part}.weight": f"{short}.weight" for part, short in ends.items()}


def _reordered(name: str, tensor: Any, config: dict[str, Any]) -> Any:
    """Query and key rows as llama.cpp rotates them: pairs side by side, not half a head apart."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
    if heads is None:
        return tensor
    rows, columns = tensor.shape
    pairs = tensor.reshape(config[heads], 2, rows // config[heads] // 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns).copy()


def load(artifact: Path, variant: str, settings: EngineSettings) -> DecodingEngine:
    """The model with its weights repacked for this CPU, as llama.cpp does by default."""
    import llama_cpp

    llama_cpp.llama_backend_init()
    options = llama_cpp.llama_model_default_params()
    model = llama_cpp.llama_model_load_from_file(str(artifact / _FILE).encode(), options)
    wanted = llama_cpp.llama_context_default_params()
    wanted.n_ctx = wanted.n_batch = settings.context
    wanted.n_threads = wanted.n_threads_batch = settings.threads
    context = llama_cpp.llama_init_from_model(model, wanted)
    if not model or not context:
        raise SystemExit("llama.cpp could not load the model")
    sampler = llama_cpp.llama_sampler_init_greedy()

    def decode(ids: Sequence[int]) -> int:
        tokens = (llama_cpp.llama_token * len(ids))(*ids)
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, len(ids))) != 0:
            raise SystemExit("llama.cpp could not decode")
        return int(llama_cpp.llama_sampler_sample(sampler, context, -1))

    def first(ids: Sequence[int]) -> int:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        return decode(ids)

    return StepwiseEngine(first, lambda token: decode([token]))
