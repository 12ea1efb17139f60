"""onnxruntime-genai on our bundles: the same tokens as our runtime, from the folder as it is published."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepress.compress.api import compress_model
from edgepress.export.api import export_bundle
from edgepress.export.formats._genai import CONFIG, GRAPH
from edgepress.runtime.api import open_bundle
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.bundle.onnx_wire import external_locations
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.chain


NEW_TOKENS = 40
PROMPT = "the river ran under old stone bridges while merchants counted"

needs_genai = pytest.mark.skipif(
    find_spec("onnxruntime_genai") is None,
    reason="onnxruntime-genai is not installed (pip install 'edgepress[genai]', not beside onnxruntime-gpu)",
)


def ours(bundle: Path, ids: list[int], new_tokens: int = NEW_TOKENS) -> list[int]:
    """The greedy continuation by our runtime, cut after an end of text."""
    model = open_bundle(bundle, threads=1)
    decoder, found = model.decoder, []
    logits = decoder.prefill(ids, new_tokens=new_tokens)
    while len(found) < new_tokens:
        found.append(int(logits.argmax()))
        if found[-1] in decoder.section.eos_token_ids:
            break
        logits = decoder.step(found[-1])
    return found


def theirs(bundle: Path, ids: list[int], new_tokens: int = NEW_TOKENS) -> list[int]:
    """The same by onnxruntime-genai, with nothing set but the length."""
    import onnxruntime_genai as genai

    model = genai.Model(str(bundle))
    options = genai.GeneratorParams(model)
    options.set_search_options(max_length=len(ids) + new_tokens)
    generator = genai.Generator(model, options)
    generator.append_tokens(np.array([ids], np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)[len(ids) :]]


@needs_genai
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_a_batch_of_unequal_prompts(
    model_type: str, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    import onnxruntime_genai as genai

    checkpoint = make_decoder(tmp_path / "model", model_type)
    bundle = export_bundle(checkpoint, output=tmp_path / "bundle", operators="standard", validate=False)
    model = genai.Model(str(bundle))
    texts = [PROMPT, "the river", "children watched boats drift slowly"]
    tokenizer = genai.Tokenizer(model)
    ids = [[int(token) for token in tokenizer.encode(text)] for text in texts]
    longest = max(map(len, ids))
    options = genai.GeneratorParams(model)
    options.set_search_options(max_length=longest + NEW_TOKENS, batch_size=len(ids))
    generator = genai.Generator(model, options)
    generator.append_tokens(tokenizer.encode_batch(texts))
    while not generator.is_done():
        generator.generate_next_token()
    for row, prompt in enumerate(ids):
        sequence = [int(token) for token in generator.get_sequence(row)]
        want = ours(bundle, prompt)
        assert sequence[longest : longest + len(want)] == want


def unequal_layers(checkpoint: Path) -> None:
    """Halve the heads and narrow the MLP of the layer in the middle."""
    tensors = load_file(checkpoint / "model.safetensors")
    rows = {"q_proj": 32, "k_proj": 16, "v_proj": 16, "gate_proj": 96, "up_proj": 96}
    columns = {"o_proj": 32, "down_proj": 96}
    for name, tensor in tensors.items():
        part = name.split(".")[-2]
        if name.startswith("model.layers.1.") and part in {**rows, **columns}:
            cut = tensor[: rows[part]] if part in rows else tensor[:, : columns[part]]
            tensors[name] = cut.contiguous()
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    whole, halved = {"ffn": 128, "heads": 4, "kv_heads": 2}, {"ffn": 96, "heads": 2, "kv_heads": 1}
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"edgepress_blocks": [whole, halved, whole]}))


@needs_genai
@pytest.mark.parametrize(
    ("model_type", "scheme", "changes"),
    [
        ("llama", "W4A16-g32", {}),
        ("llama", "W8A8", {"tie_word_embeddings": False}),
        ("llama", None, {"vocab_size": 1024, "hidden_size": 256, "head_dim": 64}),
        ("mistral", None, {"sliding_window": 16}),
        ("qwen3", "W8A16-g32", {"eos_token_id": [2, 7], "bos_token_id": None, "pad_token_id": None}),
    ],
)
def test_the_same_greedy_tokens(
    model_type: str,
    scheme: str | None,
    changes: dict[str, Any],
    make_decoder: Callable[..., Path],
    tmp_path: Path,
) -> None:
    checkpoint = make_decoder(tmp_path / "model", model_type, **changes)
    if scheme is not None:
        checkpoint = compress_model(str(checkpoint), scheme=scheme, output=tmp_path / "compressed")
    bundle = export_bundle(checkpoint, output=tmp_path / "bundle", operators="standard", validate=False)
    ids = open_bundle(bundle, threads=1).tokenizer.encode(PROMPT)
    assert len(ids) > 16 or "sliding_window" not in changes
    assert theirs(bundle, ids) == ours(bundle, ids)


@needs_genai
@pytest.mark.parametrize("kv", ["int8", "int4", "fp16"])
def test_caches_of_every_type(kv: str, pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"passes:\n  - {{pass: kv_cache, bits: {4 if kv == 'int4' else 8}}}\n")
    options: dict[str, Any] = {"calibration": str(pico_text), "samples": 4, "length": 32}
    checkpoint = compress_model(str(pico_llama), recipe=str(recipe), output=tmp_path / "c", **options)
    bundle = export_bundle(
        checkpoint, output=tmp_path / "bundle", operators="standard", validate=False, kv=kv
    )
    assert theirs(bundle, [5, 9, 3, 77]) == ours(bundle, [5, 9, 3, 77])


@needs_genai
def test_layers_of_unequal_size(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = make_decoder(tmp_path / "model")
    unequal_layers(checkpoint)
    bundle = export_bundle(checkpoint, output=tmp_path / "bundle", operators="standard", validate=False)
    kv_heads = [layer["kv_heads"] for layer in Bundle.open(bundle).manifest["decoder"]["layers"]]
    assert kv_heads == [2, 1, 2]
    assert theirs(bundle, [5, 9, 3, 77]) == ours(bundle, [5, 9, 3, 77])


@needs_genai
def test_the_tokenizer_and_the_chat_template(pico_llama: Path, tmp_path: Path) -> None:
    import onnxruntime_genai as genai

    bundle = export_bundle(pico_llama, output=tmp_path / "bundle", operators="standard", validate=False)
    own, other = open_bundle(bundle, threads=1).tokenizer, genai.Tokenizer(genai.Model(str(bundle)))
    assert [int(token) for token in other.encode(PROMPT)] == own.encode(PROMPT)
    assert other.decode(own.encode(PROMPT)) == PROMPT
    messages = [{"role": "user", "content": "the river"}]
    rendered = other.apply_chat_template(json.dumps(messages), add_generation_prompt=True)
    assert rendered == own.render_chat(messages)


def test_the_files_are_part_of_the_bundle(
    pico_llama: Path, pico_bert: Path, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    wide = make_decoder(tmp_path / "wide", hidden_size=256, intermediate_size=512, max_position_embeddings=96)
    bundle = Bundle.open(
        export_bundle(wide, output=tmp_path / "bundle", operators="standard", validate=False)
    )
    assert {CONFIG, GRAPH} <= set(bundle.manifest["files"])
    # The weights are there once.
    locations = external_locations(bundle.graph)
    assert external_locations(bundle.path / GRAPH) == locations and set(locations) == {"model.onnx.data"}
    assert (bundle.path / GRAPH).stat().st_size < 1.1 * bundle.graph.stat().st_size
    config = json.loads((bundle.path / CONFIG).read_text())
    assert config["model"]["context_length"] == config["search"]["max_length"] == 96
    assert (config["model"]["bos_token_id"], config["model"]["eos_token_id"]) == (1, [2])
    assert config["model"]["pad_token_id"] == 0
    encoder = export_bundle(pico_bert, output=tmp_path / "encoder", validate=False)
    assert not {CONFIG, GRAPH} & {path.name for path in encoder.iterdir()}
