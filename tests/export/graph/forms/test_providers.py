"""Bundles for other providers: proven against the CPU's form, honest about what has not run, or refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from edgepress.cli.entry import run
from edgepress.compress.api import compress_model
from edgepress.errors import GateFailed, InputError, MissingDependency, UnknownName
from edgepress.export.api import export_bundle
from edgepress.export.graph.forms.providers import FORMS, NOT_RUN
from edgepress.export.proof import parity
from edgepress.runtime.api import TextModel, open_bundle
from edgepress.runtime.session.session import BEHIND, PROVIDERS, open_session

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def w4(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pico Llama at 4 bits."""
    output = tmp_path_factory.mktemp("providers") / "w4"
    return compress_model(str(pico_llama), scheme="W4A16", group_size=32, output=output)


def test_the_runtime_knows_every_provider() -> None:
    assert set(FORMS) == set(PROVIDERS)
    assert set(BEHIND) < set(PROVIDERS)


@pytest.mark.parametrize("provider", ["cuda", "openvino", "tensorrt"])
def test_a_bundle_for_a_provider_that_is_not_here(
    w4: Path, tmp_path: Path, provider: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "bundle"
    assert run(["export", str(w4), "--provider", provider, "-o", str(output), "-q"]) == 0
    assert f"{provider}: {NOT_RUN} ({PROVIDERS[provider]}" in capsys.readouterr().out
    manifest = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["graph"]["provider"] == FORMS[provider].describe()
    form = manifest["parity"]["form"]
    assert (manifest["parity"]["status"], form["status"]) == ("passed", NOT_RUN)
    assert form["cpu"]["kl_mean"] < form["cpu"]["bound"]
    assert manifest["decoder"]["kv_dtype"] == FORMS[provider].dtype
    card = (output / "README.md").read_text(encoding="utf-8")
    assert f"- provider {provider}: {NOT_RUN}" in card and f"--provider {provider}" in card
    assert not (output / "genai_config.json").exists()
    model = open_bundle(output, threads=1)
    assert isinstance(model, TextModel)
    assert len(model.generate("the river ran", max_new_tokens=5, chat=False).token_ids) == 5


@pytest.mark.parametrize("family", ["bert", "modernbert", "deberta-v2"])
def test_an_encoder_for_openvino_has_standard_operators_alone(
    make_encoder: Callable[..., Path], tmp_path: Path, family: str
) -> None:
    model = make_encoder(tmp_path / "m", family)
    path = compress_model(str(model), scheme="W4A16-g32", output=tmp_path / "w4")
    plain = export_bundle(path, output=tmp_path / "plain", operators="standard", validate=False)
    output = export_bundle(path, output=tmp_path / "bundle", provider="openvino")
    form = json.loads((output / "manifest.json").read_text(encoding="utf-8"))["parity"]["form"]
    assert form["status"] == NOT_RUN and form["cpu"]["cosine_distance_mean"] < 1e-4
    nodes = ir.load(output / "model.onnx").graph
    assert {node.domain for node in nodes} == {""}
    assert "DequantizeLinear" in {node.op_type for node in nodes}
    ids = np.arange(5, 35, dtype=np.int64).reshape(2, 15)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    found, expected = (_states(bundle / "model.onnx", feeds) for bundle in (output, plain))
    assert (found * expected).sum() > 0.9999 * np.linalg.norm(found) * np.linalg.norm(expected)


def _states(graph: Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    session = open_session(graph, threads=1)
    given = {node.name: feeds[node.name] for node in session.get_inputs()}
    return session.run(["last_hidden_state"], given)[0]


def test_a_provider_that_does_not_start_has_not_run(
    w4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime-gpu lists CUDA and TensorRT on every machine."""
    real = open_session

    def opened(graph: Path, provider: str = "cpu", **options: Any) -> Any:
        if provider != "cpu":
            raise MissingDependency(
                f"this ONNX Runtime has the provider {provider!r}, and could not start it"
            )
        return real(graph, **options)

    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: list(PROVIDERS.values()))
    monkeypatch.setattr(parity, "open_session", opened)
    output = export_bundle(w4, output=tmp_path / "bundle", provider="cuda")
    form = json.loads((output / "manifest.json").read_text(encoding="utf-8"))["parity"]["form"]
    assert form["status"] == NOT_RUN and "CUDAExecutionProvider did not start" in form["why"]
    assert form["cpu"]["kl_mean"] < form["cpu"]["bound"] and "cuda" not in form


def test_without_proof_it_has_not_run_either(w4: Path, tmp_path: Path) -> None:
    output = export_bundle(w4, output=tmp_path / "bundle", provider="cuda", validate=False)
    assert f"cuda: {NOT_RUN} (nothing was proven)" in (output / "README.md").read_text(encoding="utf-8")


def test_a_form_that_computes_something_else_is_not_published(
    w4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "FORM_KL", -1.0)
    with pytest.raises(GateFailed, match="from the CPU's form"):
        export_bundle(w4, output=tmp_path / "bundle", provider="openvino")
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_such_form_is_refused(
    w4: Path, pico_llama: Path, pico_bert: Path, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    mixture = make_decoder(tmp_path / "m", "mixtral", num_local_experts=2, num_hidden_layers=1)
    w8a8 = compress_model(str(pico_llama), scheme="W8A8", output=tmp_path / "w8a8")
    output = tmp_path / "bundle"
    for checkpoint, options, why in (
        (pico_bert, {"provider": "cuda"}, "encoders"),
        (w8a8, {"provider": "openvino"}, "integer products"),
        (mixture, {"provider": "cuda"}, "mixtures of experts"),
        (w4, {"provider": "cuda", "kv": "fp32"}, "its cache is float16"),
        (w4, {"provider": "openvino", "kv": "fp16"}, "its cache is float32"),
        (w4, {"provider": "cuda", "gate": lambda *_: None}, "not measured here"),
        (w4, {"provider": "cuda", "activations": "float32"}, "its own choice"),
    ):
        with pytest.raises(InputError, match=why):
            export_bundle(checkpoint, output=output, **options)  # type: ignore[arg-type]
        assert not output.exists()
    with pytest.raises(UnknownName, match="openvino"):
        export_bundle(w4, output=output, provider="openvinno")
