"""Every file of the folder of formats follows the protocol; all are published one way, or not at all."""

import inspect
from pathlib import Path
from typing import Any, get_args

import pytest
from edgepress.compress.api import compress_model
from edgepress.errors import GateFailed, InputError
from edgepress.export.api import FORMATS, export_bundle
from edgepress.export.format import ExportFormat, OutputKind
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json
from edgepress.plugins import load, names
from edgepress.runtime.kernels.library import library
from huggingface_hub import ModelCard

pytestmark = pytest.mark.chain
OWN = library() is not None


def form_of(name: str) -> ExportFormat[Any]:
    found: ExportFormat[Any] = load(FORMATS, name, "export format").FORMAT
    return found


@pytest.fixture(scope="module")
def w4(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pico Llama at 4 bits."""
    output = tmp_path_factory.mktemp("formats") / "w4"
    return compress_model(str(pico_llama), scheme="W4A16", group_size=32, output=output)


@pytest.mark.parametrize("name", names(FORMATS))
def test_every_file_has_the_parts_of_the_protocol(name: str) -> None:
    form = form_of(name)
    assert form.kind in get_args(OutputKind)
    for part in ("prepare", "write", "check", "opened_by"):
        _self, *expected = inspect.signature(getattr(ExportFormat, part)).parameters
        assert list(inspect.signature(getattr(form, part)).parameters) == expected, part


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["onnx", "gguf", "gguf_tq1_0", "onnx_hub"])
def test_each_goes_the_same_way(name: str, w4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, steps, form = tmp_path / "out", list[str](), form_of(name)
    with monkeypatch.context() as changed:
        for part in ("prepare", "write", "check"):
            real = getattr(type(form), part)

            def recorded(*given: Any, real: Any = real, part: str = part, **named: Any) -> Any:
                steps.append(part)
                assert not (output / "manifest.json").exists()
                return real(*given, **named)

            changed.setattr(type(form), part, recorded)
        export_bundle(w4, format=name, output=output, validate=False)
    assert steps == ["prepare", "write"]
    manifest = read_json(output / "manifest.json")
    assert (manifest["schema"], manifest["parity"]["status"]) == (f"edgepress.{form.kind}/1", "skipped")
    assert set(manifest["files"]) == set(hash_tree(output)) - {"manifest.json"}
    card = ModelCard.load(output / "README.md")
    library = {"onnx": "edgepress" if OWN else "onnxruntime", "onnx_hub": "transformers.js"}.get(name, "gguf")
    assert (card.data.library_name, card.data.pipeline_tag) == (library, "text-generation")
    assert "**Not proven**" in card.text
    assert f"edgepress export w4 --format {name} -o out" in card.text

    def refuse(*_: Any) -> None:
        raise GateFailed("it is another model")

    monkeypatch.setattr(type(form), "check", refuse)
    with pytest.raises(GateFailed, match="another model"):
        export_bundle(w4, format=name, output=tmp_path / "refused")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_only_bundles_are_timed(w4: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only bundles"):
        export_bundle(w4, format="gguf", output=tmp_path / "out", gate=lambda *_: None)
    assert list(tmp_path.iterdir()) == []
