"""ONNX Runtime opens a package of our bundles, takes the variant for its provider, and computes what the
bundle does; what cannot be put together is refused before anything is written.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from edgepress.cli.entry import run
from edgepress.errors import BundleError, InputError
from edgepress.export.api import export_bundle
from edgepress.export.model_package import write_package
from edgepress.files.storage import read_json, write_json
from edgepress.runtime.bundle.verification import verify_directory

pytestmark = pytest.mark.chain
OPENS = pytest.mark.skipif(
    not hasattr(onnxruntime, "ModelPackageContext"), reason="this ONNX Runtime opens no packages"
)


@pytest.fixture(scope="module")
def bundles(pico_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pico BERT for the CPU, with standard operators, and for OpenVINO."""
    folder = tmp_path_factory.mktemp("bundles")
    cpu = export_bundle(pico_bert, output=folder / "one", operators="standard", validate=False)
    other = export_bundle(pico_bert, output=folder / "two", provider="openvino", validate=False)
    return {"cpu": cpu, "openvino": other}


@OPENS
def test_onnx_runtime_opens_the_variant_of_its_provider(bundles: dict[str, Path], tmp_path: Path) -> None:
    path = write_package(list(bundles.values()), output=tmp_path / "bert.ortpackage")
    context = onnxruntime.ModelPackageContext(str(path))
    assert context.get_component_names() == ["model"]
    assert context.get_variant_names("model") == ["cpu", "openvino"]
    assert context.get_variant_ep_name("model", "openvino") == "OpenVINOExecutionProvider"
    strict = onnxruntime.ModelPackage.open(str(path))
    assert strict.get_info()["package_name"] == read_json(bundles["cpu"] / "manifest.json")["name"]
    strict.close()
    options = onnxruntime.ModelPackageOptions(onnxruntime.SessionOptions())
    chosen = context.select_component("model", options)
    assert chosen.get_selected_variant_name() == "cpu"
    feeds = {
        "input_ids": np.array([[5, 9, 7]], np.int64),
        "attention_mask": np.ones((1, 3), np.int64),
        "token_type_ids": np.zeros((1, 3), np.int64),
    }
    session = chosen.create_session()
    plain = onnxruntime.InferenceSession(bundles["cpu"] / "model.onnx")
    feeds = {node.name: feeds[node.name] for node in plain.get_inputs()}
    for found, wanted in zip(session.run(None, feeds), plain.run(None, feeds), strict=True):
        assert np.array_equal(found, wanted)


def test_every_byte_is_verified_and_replaced(bundles: dict[str, Path], tmp_path: Path) -> None:
    path = write_package([bundles["cpu"]], output=tmp_path / "bert.ortpackage")
    found = verify_directory(path)
    assert (found.kind, found.problems) == ("package", ())
    assert verify_directory(path / "cpu").problems == ()
    write_package([bundles["openvino"]], output=path, overwrite=True)
    assert [one.name for one in path.iterdir() if one.is_dir()] == ["openvino"]
    (path / "openvino" / "config.json").write_text("{}", encoding="utf-8")
    assert any("openvino/config.json" in problem for problem in verify_directory(path).problems)


@OPENS
def test_an_encoder_decoder_is_two_components(
    pico_t5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = export_bundle(pico_t5, output=tmp_path / "bundle", operators="standard", validate=False)
    out = tmp_path / "t5.ortpackage"
    assert run(["package", str(bundle), "-o", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["variants"] == ["cpu"]
    context = onnxruntime.ModelPackageContext(str(out))
    assert sorted(context.get_component_names()) == ["decoder", "encoder"]
    options = onnxruntime.ModelPackageOptions(onnxruntime.SessionOptions())
    outputs = {
        name: [node.name for node in context.select_component(name, options).create_session().get_outputs()]
        for name in ("encoder", "decoder")
    }
    assert outputs["encoder"][0] == "cross.0.key" and "logits" in outputs["decoder"]


def test_what_is_no_package_is_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out.ortpackage"
    cpu = bundles["cpu"]
    with pytest.raises(InputError, match="both written for cpu"):
        write_package([cpu, cpu], output=out)
    with pytest.raises(InputError, match="at least one"):
        write_package([], output=out)

    def changed(key: str, value: object) -> Path:
        other = tmp_path / key
        shutil.copytree(bundles["openvino"], other)
        manifest = read_json(other / "manifest.json")
        manifest[key] = value
        write_json(other / "manifest.json", manifest)
        return other

    with pytest.raises(InputError, match="not of one model"):
        write_package([cpu, changed("name", "another")], output=out)
    graph = read_json(cpu / "manifest.json")["graph"]
    with pytest.raises(InputError, match="--for standard"):
        write_package([changed("graph", graph | {"operators": "edgepress"})], output=out)
    (tmp_path / "graph").rename(tmp_path / "own")
    with pytest.raises(BundleError, match="for which provider"):
        write_package([changed("graph", graph | {"provider": "abacus"})], output=out)
    assert not out.exists()
