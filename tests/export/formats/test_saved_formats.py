"""GGUF and BitNet: what their own readers load computes what the checkpoint stands for."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.model.checkpoint.gguf_source import materialise
from edgepress.compress.model.gguf.entry import Entry
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import GateFailed, InputError, ShapeError
from edgepress.export.api import export_bundle
from edgepress.export.formats import gguf
from edgepress.files.storage import read_json
from edgepress.runtime.text.tokenizer import Tokenizer
from gguf import GGUFReader

pytestmark = pytest.mark.chain


IDS = torch.arange(3, 43).view(2, 20)


def compressed(model: Path, folder: Path, text: Path, **step: Any) -> Path:
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"name": "r", "passes": [step]}))
    options: dict[str, Any] = {}
    if step["pass"] == "ternary":
        options = {"calibration": str(text), "samples": 24, "length": 32}
    return compress_model(str(model), recipe=str(recipe), output=folder / "o", **options)


TERNARY = {"pass": "ternary", "scales": "matrix", "tokens": 256, "batch_tokens": 64, "piece_tokens": 64}


def wide(make_decoder: Callable[..., Path], folder: Path) -> Path:
    """A pico Llama whose rows are whole blocks of GGUF."""
    return make_decoder(folder, hidden_size=256, intermediate_size=256, num_hidden_layers=2, head_dim=64)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("step", "form"),
    [
        (TERNARY, "gguf"),
        (TERNARY, "gguf_tq1_0"),
        ({"pass": "rtn", "scheme": "W4A16-g32"}, "gguf"),
        pytest.param({"pass": "rtn", "scheme": "W8A16-g32"}, "gguf", marks=pytest.mark.slow),
        pytest.param({"pass": "rtn", "scheme": "W4A16-g64"}, "gguf", marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("tokenizers_made_here")
def test_a_gguf_file_reads_back_as_the_checkpoint(
    make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path, step: dict[str, Any], form: str
) -> None:
    step = {**step, "group_size": 64} if step["pass"] == "ternary" else step
    path = compressed(wide(make_decoder, tmp_path / "m"), tmp_path, pico_text, **step)
    out = export_bundle(str(path), format=form, output=tmp_path / "g")
    assert read_json(out / "manifest.json")["parity"]["status"] == "passed"
    (file,) = out.glob("*.gguf")
    read = materialise(file, tmp_path / "read")
    with torch.no_grad():
        expected = load_model(path, embedding=True)(IDS, use_cache=False).logits
        found = load_model(read)(IDS, use_cache=False).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    card = (out / "README.md").read_text()
    assert f"llama-cli -m {file.name} " in card and "bit by bit." in card
    text = "the river ran under old stone bridges"
    assert Tokenizer.open(read).encode(text) == Tokenizer.open(path).encode(text)


def test_a_gguf_file_s_context_ends_where_a_window_begins(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    """llama.cpp's Llama, which Mistral is to it, has no windows."""
    model = make_decoder(tmp_path / "m", "mistral", sliding_window=64, num_hidden_layers=1)
    out = export_bundle(
        compress_model(str(model), scheme="Q4_0", output=tmp_path / "o"),
        format="gguf",
        output=tmp_path / "g",
        validate=False,
    )
    (file,) = out.glob("*.gguf")
    assert GGUFReader(file).fields["llama.context_length"].contents() == 64


@pytest.fixture
def uncompiled() -> Iterator[None]:
    """What transformers has torch compile, which takes longer than all else, runs as it is written."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("uncompiled")
def test_transformers_loads_the_bitnet_form(
    pico_llama: Path,
    pico_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from transformers import AutoModelForCausalLM
    from transformers.integrations import bitnet

    path = compressed(pico_llama, tmp_path, pico_text, **TERNARY, group_size=32)
    out = export_bundle(str(path), format="bitnet", output=tmp_path / "b")
    loaded, source = AutoModelForCausalLM.from_pretrained(out), WeightSource.open(path)
    for linear in source.anatomy.linears():
        module = loaded.get_submodule(linear.name)
        assert isinstance(module, bitnet.AutoBitLinear) and not module.online_quant
        assert torch.equal(module.weight * module.weight_scale, source.dense(linear.name))

    monkeypatch.chdir(out)
    code = Path("README.md").read_text().partition("```python\n")[2].partition("```")[0]
    exec(code, {})  # the card's own way to use it
    assert len(capsys.readouterr().out) > len("The capital of France is")

    class Unrounded:
        apply = staticmethod(lambda rows: rows)

    # The order of a sum decides which way an activation halfway between two int8 codes goes, and one code is
    # 1/127 of the row's largest: what stays the same on every processor is the model without that rounding.
    monkeypatch.setattr(bitnet, "ActQuant", Unrounded)
    with torch.no_grad():
        found = loaded(IDS, use_cache=False).logits
        expected = load_model(path)(IDS, use_cache=False).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_what_they_cannot_hold_is_refused(
    pico_llama: Path, make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path
) -> None:
    path = compressed(pico_llama, tmp_path, pico_text, **{**TERNARY, "scales": "group", "group_size": 32})
    with pytest.raises(ShapeError, match="scales"):
        export_bundle(str(path), format="bitnet", output=tmp_path / "b")
    with pytest.raises(ShapeError, match="64 input channels"):
        export_bundle(str(path), format="gguf", output=tmp_path / "b")
    with pytest.raises(ShapeError, match="not ternary"):
        export_bundle(str(pico_llama), format="bitnet", output=tmp_path / "b")
    with pytest.raises(InputError, match="gptj"):
        export_bundle(str(make_decoder(tmp_path / "g", "gptj")), format="gguf", output=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_file_that_differs_is_not_published(
    pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = compressed(pico_llama, tmp_path, tmp_path, **{"pass": "rtn", "scheme": "W4A16-g32"})
    real = gguf._stored

    def wrong(job: Any, entry: Entry, ternary: str) -> Any:
        array, kind = real(job, entry, ternary)
        turned = entry.name == "blk.0.attn_q.weight"
        return (np.ascontiguousarray(array[::-1]) if turned else array), kind

    monkeypatch.setattr(gguf, "_stored", wrong)
    with pytest.raises(GateFailed, match=r"blk\.0\.attn_q"):
        export_bundle(str(path), format="gguf", output=tmp_path / "g")
    assert not (tmp_path / "g").exists()
