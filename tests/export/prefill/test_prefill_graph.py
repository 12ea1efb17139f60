"""Prefill graphs: of every family, scheme and cache they fill the cache as the model's own graph does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from click.testing import CliRunner
from edgepress.cli.entry import edgepress, run
from edgepress.compress.api import compress_model
from edgepress.compress.model.block_anatomy import Linear
from edgepress.compress.model.kv_scheme import KVScheme
from edgepress.errors import GateFailed, UnknownName
from edgepress.export.api import export_bundle
from edgepress.export.graph import decoder_graph
from edgepress.export.graph.build import WeightView
from edgepress.export.graph.graph_writer import Opset
from edgepress.export.prefill import prefill_graph
from edgepress.export.prefill.prefill_graph import write_prefill
from edgepress.export.proof.distances import divergence, log_softmax
from edgepress.runtime.bundle.manifest import PrepackedLinear
from edgepress.runtime.prepack import int8_weights
from edgepress.runtime.prepack.int8_weights import opened_in_memory
from edgepress.storage import read_json

pytestmark = pytest.mark.chain


IDS = np.random.default_rng(5).integers(0, 300, (1, 100))
FAMILIES = [
    "bitnet",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "phi",
    "gpt2",
    "gpt_neox",
    "opt",
]
# Of the next token's distribution, in nats, for random weights and 8-bit activations with one scale a token.
NEAR = 0.01

Make = Callable[..., Path]


def distance(exported: Any, opset: Opset, kv_dtype: str = "float32", depth: int = 60) -> float:
    """KL of what the model says after a prefill graph filled the cache, from what it says otherwise."""
    section = write_prefill(WeightView(exported.source, kv_dtype=kv_dtype), opset, exported.path)
    linears = [PrepackedLinear(**linear) for linear in section["linears"]]
    filler = opened_in_memory(exported.path.with_name("prefill.onnx"), exported.path, linears, threads=1)
    with exported.driver() as driver:
        want = log_softmax(driver.logits(IDS, depth=depth)[0])
        found = log_softmax(driver.logits(IDS, depth=depth, filler=filler)[0])
    return float(divergence(want, found).mean())


@pytest.mark.parametrize("model_type", FAMILIES)
def test_families(
    model_type: str, make_decoder: Make, export_graph: Any, opset: Opset, tmp_path: Path
) -> None:
    exported = export_graph(make_decoder(tmp_path / "model", model_type), "W4A16_ASYM-g32")
    assert distance(exported, opset) < NEAR


@pytest.mark.parametrize("scheme", ["W2A16-g32", "W3A16-g16", "W4A16-channel", "W8A16_ASYM-g64"])
def test_schemes(scheme: str, pico_llama: Path, export_graph: Any, opset: Opset) -> None:
    assert distance(export_graph(pico_llama, scheme, "W8A16-g32"), opset) < NEAR


@pytest.mark.parametrize("bits", [8, 4])
def test_caches_of_codes(bits: int, pico_llama: Path, export_graph: Any, opset: Opset) -> None:
    scheme = KVScheme(bits=bits, granularity="per-channel")
    exported = export_graph(pico_llama, "W4A16-g32", kv=scheme)
    assert distance(exported, opset, {8: "int8", 4: "uint8"}[bits]) < NEAR * (1 if bits == 8 else 5)


def test_a_cache_in_half_precision(pico_llama: Path, export_graph: Any, opset: Opset) -> None:
    assert distance(export_graph(pico_llama, "W4A16-g32", kv_dtype="float16"), opset, "float16") < NEAR


def test_a_scheme_for_each_layer(pico_llama: Path, export_graph: Any, opset: Opset) -> None:
    schemes = {
        "0.self_attn.k_proj": "W8A16-g32",
        "0.mlp.up_proj": "W8A16-g64",
        "1.self_attn.q_proj": None,
        "1.mlp.up_proj": "W8A8",
        "1.mlp.down_proj": None,
    }

    def scheme_of(linear: Linear) -> str | None:
        return schemes.get(linear.name.removeprefix("model.layers."), "W4A16-g32")

    assert distance(export_graph(pico_llama, scheme_of), opset) < NEAR


@pytest.fixture(scope="module")
def w4(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compressed pico Llama; read only."""
    output = tmp_path_factory.mktemp("prefill") / "w4"
    return compress_model(str(pico_llama), scheme="W4A16", group_size=32, output=output)


@pytest.fixture(scope="module")
def bundle(w4: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle, proven; read only."""
    return export_bundle(w4, output=tmp_path_factory.mktemp("prefill") / "bundle")


def test_the_graph_is_nodes_without_weights(bundle: Path) -> None:
    graph = ir.load(bundle / "prefill.onnx").graph
    assert {value.name for value in graph.outputs} == {
        f"present.{layer}.{part}" for layer in range(3) for part in ("key", "value")
    }
    kinds = [node.op_type for node in graph]
    assert kinds.count("MatMulIntegerToFloat") == 2 * 5 + 1  # of the last block the keys and values alone
    assert "MatMulNBits" not in kinds
    made = read_json(bundle / "manifest.json")["prefill"]
    assert made["made_bytes"] == sum(linear["out"] * linear["columns"] for linear in made["linears"])
    assert not (bundle / "prefill.onnx.data").exists()


def test_the_proof_and_the_card_speak_of_it(bundle: Path) -> None:
    proof = read_json(bundle / "manifest.json")["parity"]["prefill"]
    assert proof["status"] == "passed" and proof["float"]["cases"] == 4
    assert 0 < proof["kl_mean"] < proof["bounds"]["kl_mean"]
    assert "prefill graph (passed)" in (bundle / "README.md").read_text()


def test_inspect_and_verify(bundle: Path) -> None:
    assert "prefill.onnx, 11 products" in CliRunner().invoke(edgepress, ["inspect", str(bundle)]).output
    assert CliRunner().invoke(edgepress, ["verify", str(bundle)]).exit_code == 0


def test_none_is_written_unless_wanted_and_of_use(w4: Path, pico_llama: Path, tmp_path: Path) -> None:
    plain = export_bundle(w4, output=tmp_path / "a", validate=False, prefill="none")
    dense = export_bundle(pico_llama, output=tmp_path / "b", validate=False)
    for path in (plain, dense):
        assert "prefill" not in read_json(path / "manifest.json")
        assert not (path / "prefill.onnx").exists()
    assert "--prefill none" in (plain / "README.md").read_text()
    with pytest.raises(UnknownName, match="int4"):
        export_bundle(w4, output=tmp_path / "c", validate=False, prefill="int4")


def test_a_large_one_is_written_when_it_is_asked_for(
    w4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prefill_graph, "LARGEST", 1000)
    assert run(["export", str(w4), "-o", str(tmp_path / "a"), "--no-validate", "-q"]) == 0
    assert "no prefill graph" in capsys.readouterr().out
    plain = read_json(tmp_path / "a" / "manifest.json")
    assert "prefill" not in plain and "--prefill int8" in plain["graph"]["notes"][-1]
    asked = read_json(
        export_bundle(w4, output=tmp_path / "b", validate=False, prefill="int8") / "manifest.json"
    )
    assert "prefill" in asked and not any("prefill" in note for note in asked["graph"]["notes"])
    assert "--prefill int8" in (tmp_path / "b" / "README.md").read_text()


def test_one_that_rounds_too_much_is_left_out(
    w4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounded = int8_weights._rounded
    monkeypatch.setattr(int8_weights, "_rounded", lambda weight: (rounded(weight)[0], rounded(weight)[1] * 2))
    manifest = read_json(export_bundle(w4, output=tmp_path / "b") / "manifest.json")
    assert manifest["parity"]["prefill"]["status"] == "left out"
    assert "prefill" not in manifest and "prefill.onnx" not in manifest["files"]


def test_one_that_computes_something_else_is_not_published(
    w4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_prefill, add_and_normalize = prefill_graph.build_prefill, decoder_graph.add_and_normalize

    def wrong(build: Any) -> None:
        with monkeypatch.context() as changed:
            changed.setattr(
                decoder_graph, "add_and_normalize", lambda b, v, s, n, _: add_and_normalize(b, v, v, n)
            )
            build_prefill(build)

    monkeypatch.setattr(prefill_graph, "build_prefill", wrong)
    with pytest.raises(GateFailed, match="key or value"):
        export_bundle(w4, output=tmp_path / "b")
    assert not (tmp_path / "b").exists()
