"""Bundles as users get them: whole, proven, readable by the runtime; or not at all."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from edgepress.cli.program import edgepress
from edgepress.compress.api import compress_model
from edgepress.compress.model.checkpoint.gguf_header import read_gguf_header
from edgepress.errors import (
    CheckpointError,
    EdgepressError,
    GateFailed,
    InputError,
    MissingDependency,
    OutOfResource,
    OutputExists,
    ShapeError,
    UnknownName,
)
from edgepress.export.api import export_bundle
from edgepress.export.graph.attention import attention, positions
from edgepress.export.graph.linear import integer, integer_tiles, nbits, tiles
from edgepress.export.proof.distances import gate
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import sha256_file
from edgepress.runtime.api import open_bundle
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.bundle.verification import verify_directory
from edgepress.runtime.engine.decoder import Decoder
from edgepress.runtime.kernels.library import instructions, library
from edgepress.runtime.session import needs

pytestmark = pytest.mark.chain


Make = Callable[..., Path]


@pytest.fixture(scope="module")
def w4(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pico Llama at 4 bits."""
    return compress_model(
        str(pico_llama), scheme="W4A16", group_size=32, output=tmp_path_factory.mktemp("ckpt") / "w4"
    )


@pytest.fixture(scope="module")
def w8a8(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pico Llama with integer products."""
    return compress_model(str(pico_llama), scheme="W8A8", output=tmp_path_factory.mktemp("ckpt") / "w8a8")


@pytest.fixture(scope="module")
def bundle(w4: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle. Read only."""
    return export_bundle(w4, output=tmp_path_factory.mktemp("bundle") / "w4")


def test_a_bundle_of_our_own_operators_is_proven_and_says_so(
    w4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library() is None:
        pytest.skip("the library of operators was not built here")
    path = export_bundle(w4, output=tmp_path / "own")
    opened = Bundle.open(path)
    manifest = opened.manifest
    assert opened.own_operators and manifest["parity"]["status"] == "passed"
    assert manifest["parity"]["ran"] == {"operators": "edgepress", "instructions": instructions()}
    assert manifest["graph"]["runs_in"].startswith("edgepress alone;")
    assert not {"genai_config.json", "model.genai.onnx"} & set(manifest["files"])
    card = (path / "README.md").read_text()
    assert "library_name: edgepress\n" in card and "## In other runtimes" in card
    assert "edgepress export w4 --format onnx -o own --for standard\n" in card
    assert "edgepress export w4 --format onnx -o own\n" in card
    whole = Decoder.open(opened).prefill([1, 5, 9, 7, 30]).copy()
    decoder = Decoder.open(opened)
    decoder.prefill([1, 5, 9])
    decoder.step(7)
    assert np.array_equal(decoder.step(30), whole)
    monkeypatch.setenv("EDGEPRESS_KERNELS", "off")
    with pytest.raises(MissingDependency, match="needs edgepress's own operators") as missing:
        Decoder.open(opened)
    assert missing.value.why == "EDGEPRESS_KERNELS is off" and "--for standard" in missing.value.fix
    with pytest.raises(MissingDependency, match="needs edgepress's own operators"):
        export_bundle(w4, output=tmp_path / "again", operators="edgepress")
    assert nothing_left(tmp_path, "own")


def test_without_the_library_the_default_is_the_standard_form(
    w4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRESS_KERNELS", "off")
    result = CliRunner().invoke(edgepress, ["export", str(w4), "-o", str(tmp_path / "b")])
    assert result.exit_code == 0, result.output
    why = "any client of ONNX Runtime; edgepress's own operators are not here: EDGEPRESS_KERNELS is off"
    assert f"standard operators: runs in {why}" in result.output
    bundle = Bundle.open(tmp_path / "b")
    assert not bundle.own_operators and {"genai_config.json", "model.genai.onnx"} < set(
        bundle.manifest["files"]
    )
    assert bundle.manifest["graph"]["runs_in"] == why
    assert bundle.manifest["parity"]["ran"] == {"operators": "standard", "instructions": None}
    card = (tmp_path / "b" / "README.md").read_text()
    assert why in card
    assert "library_name: onnxruntime\n" in card and "In other runtimes" not in card
    assert "run with standard operators" in card and "-o b --for standard\n" in card
    shown = CliRunner().invoke(edgepress, ["inspect", str(tmp_path / "b"), "--json"])
    assert json.loads(shown.stdout)["graph"]["runs_in"] == why


def test_formats_of_other_runtimes_have_no_operators_of_ours(w4: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gguf is for another runtime"):
        export_bundle(w4, output=tmp_path / "b", format="gguf", operators="edgepress")


def test_a_bundle_of_0_1_runs_with_its_own_graph_alone(bundle: Path, w4: Path, tmp_path: Path) -> None:
    """Its manifest names a second graph, whose weights a device made."""
    old = tmp_path / "old"
    shutil.copytree(bundle, old)
    shutil.copyfile(old / "model.onnx", old / "prefill.onnx")
    manifest = json.loads((old / "manifest.json").read_text())
    linear = {"name": "p", "of": "q", "first": 0, "out": 4, "columns": 4, "norm": ""}
    manifest["prefill"] = {"file": "prefill.onnx", "made_bytes": 16, "linears": [linear]}
    manifest["files"] = hash_tree(old, skip=frozenset({"manifest.json"}))
    (old / "manifest.json").write_text(json.dumps(manifest))
    ids = list(range(3, 90))
    found = Decoder.open(Bundle.open(old), threads=1).prefill(ids)
    assert np.array_equal(found, Decoder.open(Bundle.open(bundle), threads=1).prefill(ids))
    assert not verify_directory(old).problems


def test_w8a8_of_our_own_operators_is_proven_for_decoders_and_encoders(
    w8a8: Path, pico_bert: Path, tmp_path: Path
) -> None:
    if library() is None:
        pytest.skip("the library of operators was not built here")
    encoder = compress_model(str(pico_bert), scheme="W8A8", output=tmp_path / "ckpt")
    for checkpoint in (w8a8, encoder):
        path = export_bundle(checkpoint, output=tmp_path / f"{checkpoint.name}-bundle", operators="edgepress")
        opened = Bundle.open(path)
        assert opened.own_operators and opened.manifest["parity"]["status"] == "passed"


def test_our_own_operators_are_for_the_cpu(w4: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="do not run on cuda"):
        export_bundle(w4, output=tmp_path / "own", operators="edgepress", provider="cuda")
    with pytest.raises(UnknownName, match="set of operators"):
        export_bundle(w4, output=tmp_path / "own", operators="theirs")


def nothing_left(folder: Path, *names: str) -> bool:
    return {path.name for path in folder.iterdir()} == set(names)


def test_the_runtime_reads_it(bundle: Path, w4: Path) -> None:
    opened = Bundle.open(bundle)
    manifest = opened.manifest
    assert (opened.kind, opened.scheme) == ("decoder", "W4A16-g32 rtn")
    assert manifest["decoder"]["layers"] == [{"kv_heads": 2, "head_dim": 16}] * 3
    assert (manifest["decoder"]["bos_token_id"], manifest["decoder"]["eos_token_ids"]) == (1, [2])
    assert manifest["source"]["embedding"] == "W8A16-g32"
    assert manifest["layers"] == json.loads((w4 / "edgepress.json").read_text())["layers"]
    assert manifest["weights"]["params"] == 131_520
    assert 0 < manifest["weights"]["bytes_per_token"] < manifest["weights"]["bytes"]
    assert set(manifest["files"]) == set(hash_tree(bundle)) - {"manifest.json"}
    assert "quantization_config" not in json.loads((bundle / "config.json").read_text())
    assert len(list(open_bundle(bundle).stream("the river", max_new_tokens=4))) > 0


def test_the_proof_is_in_the_manifest(bundle: Path) -> None:
    parity = Bundle.open(bundle).manifest["parity"]
    assert parity["status"] == "passed"
    assert 0 < parity["float"]["max_abs_difference"] <= parity["float"]["bound"]
    assert 0 < parity["codes"]["max_abs_difference"] <= parity["codes"]["bound"]
    assert 0 < parity["quantized"]["kl_mean"] <= parity["quantized"]["bounds"]["kl_mean"]
    assert parity["greedy"]["tokens"] == 64


def test_a_plain_checkpoint_becomes_a_float_bundle(pico_llama: Path, tmp_path: Path) -> None:
    opened = Bundle.open(export_bundle(pico_llama, output=tmp_path / "plain"))
    assert opened.scheme == "fp32"
    assert set(opened.manifest["parity"]) == {"status", "text", "ran", "float", "greedy"}
    decoder = Decoder.open(opened, threads=1)
    assert decoder.logits(np.arange(6)[None]).shape == (1, 6, decoder.vocab_size)


def test_encoders(pico_bert: Path, tmp_path: Path) -> None:
    compressed = compress_model(str(pico_bert), scheme="W8A8", output=tmp_path / "ckpt")
    (compressed / "1_Pooling").mkdir()
    pooling = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (compressed / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds]
    (compressed / "modules.json").write_text(json.dumps(modules))
    (compressed / "sentence_bert_config.json").write_text('{"max_seq_length": 48}')
    opened = Bundle.open(export_bundle(compressed, output=tmp_path / "bundle"))
    assert opened.manifest["encoder"] == {
        "pooling": "mean",
        "normalize": True,
        "max_length": 48,
        "hidden_size": 64,
        "inputs": ["input_ids", "attention_mask", "token_type_ids"],
    }
    assert opened.manifest["parity"]["quantized"]["cosine_min"] > 0.99
    vectors = open_bundle(opened.path).encode(["the river", "old stone bridges ran under the harbour"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def planted_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    original = nbits.pack_codes
    monkeypatch.setattr(nbits, "pack_codes", lambda tensor, layout: original(tensor, layout)[:, :, ::-1])


def planted_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    original = nbits.pack_scales
    monkeypatch.setattr(
        nbits, "pack_scales", lambda tensor, layout: original(tensor, layout) * np.float32(1.001)
    )


def planted_rope(monkeypatch: pytest.MonkeyPatch) -> None:
    original = positions.rope_tables
    monkeypatch.setattr(positions, "rope_tables", lambda *_: original(*_)[::-1])


def planted_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    original = tiles.pack_tiles
    monkeypatch.setattr(tiles, "pack_tiles", lambda codes, *rest: original(codes[:, ::-1], *rest))


def planted_tile_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    original = tiles.pack_tiles

    def planted(codes: Any, scales: Any, *rest: Any) -> Any:
        return original(codes, scales * np.float32(1.01), *rest)

    monkeypatch.setattr(tiles, "pack_tiles", planted)


@pytest.mark.parametrize(
    ("plant", "operators"),
    [
        (planted_codes, "standard"),
        (planted_scales, "standard"),
        (planted_rope, "standard"),
        (planted_tiles, "edgepress"),
        (planted_tile_scales, "edgepress"),
        (planted_rope, "edgepress"),
    ],
)
def test_a_planted_fault_fails_the_proof_and_publishes_nothing(
    plant: Callable[[pytest.MonkeyPatch], None],
    operators: str,
    w4: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if operators == "edgepress" and library() is None:
        pytest.skip("the library of operators was not built here")
    plant(monkeypatch)
    with pytest.raises(GateFailed, match="failed its proof"):
        export_bundle(w4, output=tmp_path / "bundle", operators=operators)
    assert nothing_left(tmp_path)


def test_a_planted_fault_in_integer_scales_fails_the_proof(
    w8a8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = integer._checked

    def wrong(tensor: Any) -> Any:
        return type(tensor)(tensor.scheme, tensor.codes, tensor.scale * 1.001)

    export_bundle(w8a8, output=tmp_path / "right", operators="standard")
    monkeypatch.setattr(integer, "_checked", lambda tensor: wrong(original(tensor)))
    with pytest.raises(GateFailed, match="quantized weights"):
        export_bundle(w8a8, output=tmp_path / "bundle", operators="standard")
    assert nothing_left(tmp_path, "right")


def test_a_planted_fault_in_integer_tiles_fails_the_proof(
    w8a8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library() is None:
        pytest.skip("the library of operators was not built here")
    original = integer_tiles.pack_lines
    monkeypatch.setattr(integer_tiles, "pack_lines", lambda codes: original(codes[:, ::-1]))
    with pytest.raises(GateFailed, match="failed its proof"):
        export_bundle(w8a8, output=tmp_path / "bundle", operators="edgepress")
    assert nothing_left(tmp_path)


def test_a_planted_fault_in_the_cache_fails_the_proof(
    pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = attention.CausalInputs

    def swapped(last: Any, total: Any, *rest: Any) -> Any:
        return original(total, total, *rest)

    monkeypatch.setattr("edgepress.export.graph.decoder_graph.CausalInputs", swapped)
    with pytest.raises(EdgepressError):
        export_bundle(pico_llama, output=tmp_path / "bundle")
    assert nothing_left(tmp_path)


def test_nan_never_passes_a_gate() -> None:
    with pytest.raises(GateFailed):
        gate("it", float("nan"), 1.0)
    with pytest.raises(GateFailed):
        gate("it", float("nan"), 1.0, at_least=True)
    gate("it", 1.0, 1.0)


def test_without_proof_the_manifest_and_card_say_so(w4: Path, tmp_path: Path) -> None:
    path = export_bundle(w4, output=tmp_path / "bundle", validate=False)
    assert Bundle.open(path).manifest["parity"]["status"] == "skipped"
    assert "--no-validate" in Bundle.open(path).manifest["parity"]["warning"]
    assert "Not proven" in (path / "README.md").read_text()


def test_the_card(bundle: Path, w4: Path) -> None:
    text = (bundle / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["tags"][:3] == ["onnx", "edgepress", "quantized"]
    assert front["pipeline_tag"] == "text-generation"
    assert "base_model" not in front and "license" not in front  # a directory has no id on the hub
    assert f"edgepress export {w4.name} --format onnx" in text
    worst = max(Bundle.open(bundle).manifest["layers"], key=lambda layer: layer["error"])
    assert worst["name"] in text


def test_the_license_is_carried_over(make_decoder: Make, tmp_path: Path) -> None:
    checkpoint = make_decoder(tmp_path / "model")
    (checkpoint / "README.md").write_text(
        "---\nlicense: apache-2.0\ntags: !!python/object:os.system []\n---\n# A\n"
    )
    text = (export_bundle(checkpoint, output=tmp_path / "bundle") / "README.md").read_text()
    assert yaml.safe_load(text.split("---")[1])["license"] == "apache-2.0"


def test_an_existing_output_is_kept_unless_asked(bundle: Path, w4: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(OutputExists):
            export_bundle(w4, output=other, overwrite=overwrite)
    assert (other / "precious").read_text() == "x"
    out = tmp_path / "bundle"
    shutil.copytree(bundle, out)
    (out / "stray").touch()
    with pytest.raises(OutputExists):
        export_bundle(w4, output=out)
    assert (out / "stray").exists()
    with pytest.raises(OutputExists, match="did not write"):
        export_bundle(w4, output=out, overwrite=True, validate=False)
    assert hash_tree(out, skip=frozenset({"stray"})) == hash_tree(bundle)
    (out / "stray").unlink()
    export_bundle(w4, output=out, overwrite=True, validate=False)
    assert Bundle.open(out).manifest["parity"]["status"] != "passed"


def test_what_is_read_does_not_lie_in_the_output(w4: Path, bundle: Path, tmp_path: Path) -> None:
    """Nor the output in the checkpoint."""
    nest, checkpoint = tmp_path / "nest", tmp_path / "nest" / "ck"
    shutil.copytree(bundle, nest)
    shutil.copytree(w4, checkpoint)
    (tmp_path / "link").symlink_to(nest)
    before = hash_tree(tmp_path)
    for source in (checkpoint, tmp_path / "link" / "ck"):
        with pytest.raises(InputError, match="holds the input"):
            export_bundle(source, output=nest, overwrite=True)
        with pytest.raises(InputError, match="inside the input"):
            export_bundle(source, output=checkpoint / "new")
    with pytest.raises(InputError, match="holds the input"):
        export_bundle(w4, output=bundle, text=bundle / "README.md", overwrite=True)
    assert hash_tree(tmp_path) == before


def test_bad_requests(w4: Path, pico_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="onxx"):
        export_bundle(w4, format="onxx", output=tmp_path / "bundle")
    with pytest.raises(InputError, match="inside the input"):
        export_bundle(w4, output=w4 / "bundle")
    with pytest.raises(InputError, match="proof's text"):
        export_bundle(w4, output=tmp_path / "bundle", text=tmp_path / "missing.txt")
    with pytest.raises(UnknownName):
        export_bundle("smollm3", output=tmp_path / "bundle")
    assert nothing_left(tmp_path)


def test_impossible_shapes_leave_nothing(make_decoder: Make, tmp_path: Path) -> None:
    checkpoint = make_decoder(tmp_path / "model", head_dim=20)
    with pytest.raises(ShapeError, match="20 channels"):
        export_bundle(checkpoint, output=tmp_path / "bundle")
    assert nothing_left(tmp_path, "model")


def test_a_tokenizer_of_another_model_is_refused(make_decoder: Make, tmp_path: Path) -> None:
    checkpoint = make_decoder(tmp_path / "model", vocab_size=64)
    with pytest.raises(CheckpointError, match="embedding has 64 rows"):
        export_bundle(checkpoint, output=tmp_path / "bundle")


def test_too_little_disk_is_found_first(w4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def refuse(path: Path, needed: int) -> None:
        asked.append(needed)
        raise OutOfResource(f"{path} needs {needed} bytes")

    monkeypatch.setattr(needs, "require_disk", refuse)
    with pytest.raises(OutOfResource):
        export_bundle(w4, output=tmp_path / "bundle")
    assert asked[0] > 131_520 * 4  # the float graph of the proof is counted
    assert nothing_left(tmp_path)


def test_the_users_text_is_used(w4: Path, pico_text: Path, tmp_path: Path) -> None:
    path = export_bundle(w4, output=tmp_path / "bundle", text=pico_text)
    assert set(Bundle.open(path).manifest["parity"]["text"]) == {"sha256"}


def test_without_a_tokenizer_the_proof_runs_on_random_ids(make_decoder: Make, tmp_path: Path) -> None:
    checkpoint = make_decoder(tmp_path / "model")
    (checkpoint / "tokenizer.json").unlink()
    path = export_bundle(checkpoint, output=tmp_path / "bundle")
    assert Bundle.open(path).manifest["parity"]["status"] == "passed"


def test_the_verb_prints_one_document(w4: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    arguments = ["export", str(w4), "-o", str(tmp_path / "bundle"), "--json", "-q"]
    outcome = runner.invoke(edgepress, arguments)
    assert outcome.exit_code == 0, outcome.output
    document = json.loads(outcome.stdout)
    assert document["scheme"] == "W4A16-g32 rtn"
    assert document["parity"]["status"] == "passed"
    plain = runner.invoke(edgepress, [*arguments[:-2], "-q", "--overwrite", "--no-validate"])
    assert "WARNING" in plain.stdout


def bom_of(directory: Path) -> dict[str, Any]:
    """The bill of materials of an export, held against the official schema."""
    text = (directory / "bom.cdx.json").read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert "bom.cdx.json" in json.loads((directory / "manifest.json").read_text())["files"]
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def test_the_bill_of_materials_reaches_back_to_the_original(
    make_decoder: Make, pico_text: Path, tmp_path: Path
) -> None:
    model = make_decoder(tmp_path / "original")
    (model / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    (model / "LICENSE").write_text("Not for sale.")
    text = str(pico_text)
    sizes = {"group_size": 32, "samples": 4, "length": 16}
    w4 = compress_model(str(model), scheme="W4A16", calibration=text, output=tmp_path / "w4", **sizes)
    bundle = export_bundle(w4, output=tmp_path / "bundle", text=pico_text)
    bom = bom_of(bundle)
    made, (base, *texts) = bom["metadata"]["component"], bom["components"]
    assert (base["name"], base["licenses"]) == ("original", [{"license": {"id": "CC-BY-NC-4.0"}}])
    assert made["licenses"] == base["licenses"]
    assert [item["bom-ref"] for item in texts] == ["text:calibration", "text:proof"]
    assert {item["hashes"][0]["content"] for item in texts} == {sha256_file(pico_text)}
    assert "onnxruntime" in {item["name"] for item in bom["metadata"]["tools"]["components"]}
    named = {item["name"] for item in made["components"]}
    assert named == {path.name for path in bundle.iterdir()} - {"bom.cdx.json", "manifest.json"}
    card = (bundle / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == "cc-by-nc-4.0"
    assert "- of the base model, original: CC-BY-NC-4.0 (README.md)" in card
    assert f"- of the calibration text, {pico_text.name}: unknown" in card
    assert (bundle / "LICENSE").read_text() == "Not for sale."


def test_a_gguf_file_has_its_bill_of_materials_and_its_licence(make_decoder: Make, tmp_path: Path) -> None:
    model = make_decoder(tmp_path / "original")
    (model / "README.md").write_text("---\nlicense: mit\n---\n")
    (model / "NOTICE.txt").write_text("Made by somebody.")
    out = export_bundle(model, output=tmp_path / "out", format="gguf")
    assert bom_of(out)["metadata"]["component"]["licenses"] == [{"license": {"id": "MIT"}}]
    assert (out / "NOTICE.txt").read_text() == "Made by somebody."
    assert read_gguf_header(out / "original.gguf").license == "MIT"
    assert verify_directory(out).problems == ()
