"""The layout of hubs: where files lie, what they are called, and that the graph is the proven one."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.errors import BundleError, InputError
from edgepress.export.api import export_bundle
from edgepress.export.graph import whole_graph
from edgepress.files.storage import read_json, write_json
from onnxruntime import InferenceSession

pytestmark = pytest.mark.chain


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_decoder_lies_where_transformers_js_looks(
    pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_graph, "EXTERNAL_FROM", 0)
    path = compress_model(str(pico_llama), scheme="W4A16-g32", output=tmp_path / "o")
    (path / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    out = export_bundle(path, format="onnx_hub", output=tmp_path / "h")
    assert {"onnx/model_q4.onnx", "onnx/model_q4.onnx_data", "tokenizer.json"} <= files(out)
    config = read_json(out / "config.json")
    assert config["model_type"] == "llama" and "quantization_config" not in config
    assert config["transformers.js_config"] == {
        "dtype": "q4",
        "use_external_data_format": {"model_q4.onnx": 1},
    }
    tokenizer = read_json(out / "tokenizer_config.json")
    assert tokenizer["chat_template"] == "{{ messages }}"
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    manifest = read_json(out / "manifest.json")
    assert manifest["parity"]["status"] == "passed" and manifest["graph"]["operators"] == "standard"
    graph = onnx.load(out / "onnx" / "model_q4.onnx", load_external_data=False).graph
    assert "GatherBlockQuantized" not in {node.op_type for node in graph.node}  # not in every browser's build
    card = (out / "README.md").read_text()
    assert 'pipeline("text-generation"' in card and 'file_name="model_q4.onnx"' in card


def test_an_encoder_s_graph_gives_its_states_to_anyone(
    make_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    path = compress_model(str(make_encoder(tmp_path / "m")), scheme="W8A8", output=tmp_path / "o")
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    write_json(path / "modules.json", modules)
    out = export_bundle(path, format="onnx_hub", output=tmp_path / "h")
    assert {"onnx/model_quantized.onnx", "modules.json"} <= files(out)
    ids = np.arange(5, 17, dtype=np.int64)[None]
    session = InferenceSession(out / "onnx" / "model_quantized.onnx")
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    asked = {one.name: given[one.name] for one in session.get_inputs()}
    (states,) = session.run(["last_hidden_state"], asked)
    with torch.no_grad():
        expected = load_model(path, embedding=True)(torch.from_numpy(ids))[0].numpy()
    np.testing.assert_allclose(states, expected, atol=2e-3)


def test_float_weights_have_the_plain_name(pico_llama: Path, tmp_path: Path) -> None:
    out = export_bundle(pico_llama, format="onnx_hub", output=tmp_path / "h", validate=False)
    assert "onnx/model.onnx" in files(out)
    assert read_json(out / "config.json")["transformers.js_config"]["dtype"] == "fp32"


def test_a_template_that_is_no_text_is_refused(pico_llama: Path, tmp_path: Path) -> None:
    path = tmp_path / "m"
    shutil.copytree(pico_llama, path)
    (path / "chat_template.jinja").write_bytes(b"\xff{{ messages }}")
    with pytest.raises(BundleError, match=r"chat_template\.jinja is not UTF-8"):
        export_bundle(path, format="onnx_hub", output=tmp_path / "h", validate=False)
    assert not (tmp_path / "h").exists()


def test_another_provider_is_refused(pico_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not for cuda"):
        export_bundle(pico_llama, format="onnx_hub", output=tmp_path / "h", provider="cuda")
    assert not (tmp_path / "h").exists()


def test_the_card_names_the_clients_that_open_the_family(
    make_decoder: Callable[..., Path], make_vision: Callable[..., Path], tmp_path: Path
) -> None:
    def card(model: Path) -> str:
        out = export_bundle(model, format="onnx_hub", output=tmp_path / f"{model.name}-h", validate=False)
        return (out / "README.md").read_text()

    neither = card(make_decoder(tmp_path / "exaone4", "exaone4"))
    assert "library_name: onnxruntime" in neither and "optimum were tried and do not" in neither
    assert "ORTModelForCausalLM" not in neither and "```js" not in neither
    falcon = card(make_decoder(tmp_path / "falcon", "falcon"))
    assert "library_name: onnxruntime" in falcon and "were tried and do not" not in falcon
    assert "ORTModelForCausalLM" in falcon and "```js" not in falcon
    images = card(make_vision(tmp_path / "vit", "vit"))
    assert "AutoModel.from_pretrained" in images and "ORTModelForCustomTasks" in images


def test_an_embedding_of_four_bits_is_proven(pico_llama: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("passes: [{pass: rtn, scheme: W4A16-g32}]\nembedding: W4A16-g32\n", encoding="utf-8")
    path = compress_model(str(pico_llama), recipe=str(recipe), output=tmp_path / "o")
    out = export_bundle(path, format="onnx_hub", output=tmp_path / "h")
    assert read_json(out / "manifest.json")["parity"]["status"] == "passed"
