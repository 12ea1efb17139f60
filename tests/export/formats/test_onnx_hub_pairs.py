"""Encoder–decoders in the layout of hubs: ONNX Runtime alone, fed as optimum feeds it, gives transformers'
logits and greedy tokens.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.errors import GateFailed
from edgepress.export.api import export_bundle
from edgepress.export.graph import hub_stacks
from edgepress.files.storage import read_json
from onnxruntime import InferenceSession

pytestmark = pytest.mark.chain

Make = Callable[..., Path]
LENGTHS, NEW = (1, 5, 40), 8
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("t5", {}),
    ("mt5", {"feed_forward_proj": "gated-gelu", "d_kv": 12, "own_head": True}),
    ("bart", {}),
    ("marian", {}),
]


class Client:
    """Both sessions of ``folder``, and a cache that begins with the sizes of the config."""

    def __init__(self, folder: Path, heads: int, head_dim: int) -> None:
        (encoder,), (decoder,) = ([*folder.glob(f"{name}_model*.onnx")] for name in ("encoder", "decoder"))
        self.encoder, self.decoder = InferenceSession(encoder), InferenceSession(decoder)
        self.pasts = [one.name for one in self.decoder.get_inputs() if one.name.startswith("past")]
        self.empty = (heads, 0, head_dim)

    def read(self, given: dict[str, Any]) -> None:
        (states,) = self.encoder.run(["last_hidden_state"], given)
        self.known = {"encoder_hidden_states": states}
        if "attention_mask" in given:
            self.known["encoder_attention_mask"] = given["attention_mask"]
        nothing = np.zeros((len(states), *self.empty), np.float32)
        self.cache = dict.fromkeys(self.pasts, nothing)
        self.begun = False

    def write(self, ids: Any) -> Any:
        fed = {"input_ids": ids, "use_cache_branch": np.array([self.begun]), **self.known, **self.cache}
        names = ["logits", *(name.replace("past_key_values", "present") for name in self.pasts)]
        logits, *presents = self.decoder.run(names, fed)
        self.cache, self.begun = dict(zip(self.pasts, presents, strict=True)), True
        return logits

    def greedy(self, start: int, count: int) -> Any:
        rows = len(self.known["encoder_hidden_states"])
        tokens = np.full((rows, 1), start)
        for _ in range(count):
            last = self.write(tokens[:, -1:])[:, -1].argmax(-1)
            tokens = np.concatenate([tokens, last[:, None]], axis=1)
        return tokens


def batch() -> dict[str, Any]:
    """Texts of unequal length, padded on the right."""
    rows = [[3 + (7 * place + length) % 30 for place in range(length)] for length in LENGTHS]
    ids = np.zeros((len(rows), max(LENGTHS)), np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = row, 1
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize(("family", "changes"), FORMS)
def test_logits_and_tokens_are_those_of_transformers(
    family: str, changes: dict[str, Any], make_encoder_decoder: Make, tmp_path: Path
) -> None:
    path = make_encoder_decoder(tmp_path / "m", family, **changes)
    out = export_bundle(path, format="onnx_hub", output=tmp_path / "h")
    assert {"encoder_model.onnx", "decoder_model_merged.onnx"} == {
        file.name for file in (out / "onnx").iterdir()
    }
    assert read_json(out / "manifest.json")["parity"]["status"] == "passed"
    card = (out / "README.md").read_text()
    assert 'ORTModelForSeq2SeqLM.from_pretrained(".", subfolder="onnx")' in card and "```js" in card
    model, config = load_model(path), read_json(path / "config.json")
    heads = config.get("num_heads") or config["decoder_attention_heads"]
    client, given = Client(out / "onnx", heads, config["d_model"] // heads), batch()
    rows = [
        row[mask > 0][None] for row, mask in zip(given["input_ids"], given["attention_mask"], strict=True)
    ]
    written = np.asarray([[0, 7, 11, 5], [0, 3, 3, 9], [0, 20, 6, 8]])
    client.read(given)
    logits = np.concatenate([client.write(written[:, cut]) for cut in (slice(0, 3), slice(3, 4))], axis=1)
    with torch.no_grad():
        for row, ids, found in zip(rows, written, logits, strict=True):
            texts = {"input_ids": torch.tensor(row), "decoder_input_ids": torch.tensor(ids[None])}
            assert float(np.abs(found - model(**texts).logits[0].numpy()).max()) < 1e-4
    client.read(given)
    found = client.greedy(config["decoder_start_token_id"], NEW)
    for row, tokens in zip(rows, found, strict=True):
        ids = torch.tensor(tokens[None, :-1])
        with torch.no_grad():
            scores = model(input_ids=torch.tensor(row), decoder_input_ids=ids).logits[0]
        chosen = scores.gather(1, torch.tensor(tokens[1:, None]))[:, 0]
        assert float((scores.max(-1).values - chosen).max()) < 1e-4  # torch's own choices


def test_a_whisper_is_given_spectra(make_whisper: Make, tmp_path: Path) -> None:
    path = make_whisper(tmp_path / "m")
    out = export_bundle(path, format="onnx_hub", output=tmp_path / "h")
    config = read_json(out / "preprocessor_config.json")
    assert {"n_fft": 400, "hop_length": 160, "sampling_rate": 16_000}.items() <= config.items()
    settings, model = read_json(path / "config.json"), load_model(path)
    heads, width = settings["decoder_attention_heads"], settings["d_model"]
    client = Client(out / "onnx", heads, width // heads)
    shape = (2, settings["num_mel_bins"], 2 * settings["max_source_positions"])
    sounds = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    client.read({"input_features": sounds})
    written = np.asarray([[0, 7, 11, 5], [0, 3, 3, 9]])
    found = np.concatenate([client.write(column[:, None]) for column in written.T], axis=1)
    given = {"input_features": torch.tensor(sounds), "decoder_input_ids": torch.tensor(written)}
    with torch.no_grad():
        wanted = model(**given).logits.numpy()
    assert float(np.abs(found - wanted).max()) < 1e-4
    assert "ORTModelForSpeechSeq2Seq" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("family", "scheme", "suffix"), [("t5", "W4A16-g32", "_q4"), ("bart", "W8A8", "_quantized")]
)
def test_codes_are_proven_and_stored_once(
    family: str, scheme: str, suffix: str, make_encoder_decoder: Make, tmp_path: Path
) -> None:
    path = make_encoder_decoder(tmp_path / "m", family)
    made = compress_model(str(path), scheme=scheme, output=tmp_path / "c")
    out = export_bundle(made, format="onnx_hub", output=tmp_path / "h")
    parity = read_json(out / "manifest.json")["parity"]
    assert parity["codes"]["max_abs_difference"] < 1e-4 and parity["quantized"]["kl_mean"] < 0.01
    graph = onnx.load(out / "onnx" / f"decoder_model_merged{suffix}.onnx").graph
    (choice,) = (node for node in graph.node if node.name == "read")
    assert not any(branch.g.initializer for branch in choice.attribute)
    names = [one.name for one in graph.initializer]
    assert len(names) == len(set(names))
    assert "GatherBlockQuantized" not in {node.op_type for node in graph.node}


def test_a_faulty_branch_fails_the_proof(
    make_encoder_decoder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys and values that are computed again in every step would be right too: those that are kept must
    be the ones that are read.
    """
    path = make_encoder_decoder(tmp_path / "m", "bart")
    right = hub_stacks._read

    def swapped(build: Any, states: Any, cached: Any, kept: Any) -> Any:
        return right(build, states, cached, [(value, key) for key, value in kept])

    monkeypatch.setattr(hub_stacks, "_read", swapped)
    with pytest.raises(GateFailed):
        export_bundle(path, format="onnx_hub", output=tmp_path / "h")
    assert not (tmp_path / "h").exists()
