"""LoRA adapters: what is merged is W + s · B A, and what cannot be merged so is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.cli.entry import run
from edgepress.compress.api import plan_model
from edgepress.compress.model.checkpoint.reader import CheckpointReader
from edgepress.compress.model.models import resolve
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import EdgepressError, ShapeError
from safetensors.torch import load_file, save_file

from ...conftest import save_decoder, save_encoder

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.2.mlp.down_proj"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made goes away with the test."""
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))


def adapter(folder: Path, base: Path, *modules: str, prefix: str = "", **settings: Any) -> Path:
    """A LoRA of rank 4 over ``modules`` of ``base``, as PEFT saves it."""
    folder.mkdir()
    given = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(base),
        "r": 4,
        "lora_alpha": 6,
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(given | settings))
    shapes, tensors = CheckpointReader.open(base).shapes, {}
    generator = torch.Generator().manual_seed(1)
    for module in modules:
        out, wide = shapes[f"{prefix}{module}.weight"]
        for part, shape in (("lora_A", (4, wide)), ("lora_B", (out, 4))):
            tensors[f"base_model.model.{module}.{part}.weight"] = torch.randn(shape, generator=generator)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize(("settings", "scale"), [({}, 6 / 4), ({"use_rslora": True}, 6 / 2)])
def test_the_merged_weight_is_the_base_s_plus_the_product(
    settings: dict[str, Any], scale: float, pico_llama: Path, tmp_path: Path
) -> None:
    folder = adapter(tmp_path / "style", pico_llama, Q, DOWN, **settings)
    found = resolve(str(folder))
    assert (found.name, found.described) == ("style", "llama with the adapter style")
    before, after = CheckpointReader.open(pico_llama), CheckpointReader.open(found.path)
    parts = load_file(folder / "adapter_model.safetensors")
    for name in before.shapes:
        old, new = before.read([name])[name], after.read([name])[name]
        module = name.removesuffix(".weight")
        if module in (Q, DOWN):
            down, up = (parts[f"base_model.model.{module}.lora_{part}.weight"] for part in "AB")
            assert torch.allclose(new, old + scale * up @ down, atol=1e-5)
        else:
            assert torch.equal(new, old)
    assert after.companions() == before.companions()
    assert resolve(str(folder)).path == found.path  # the second time nothing is made


def test_groups_that_do_not_divide_are_refused_before_anything_is_merged(
    pico_llama: Path, tmp_path: Path
) -> None:
    folder = adapter(tmp_path / "style", pico_llama, Q)
    with pytest.raises(ShapeError, match="group size 128 does not divide"):
        plan_model(str(folder), scheme="W4A16-g128")
    assert not (tmp_path / "cache" / "merged").exists()


def test_an_encoder_s_modules_are_found_by_the_names_that_transformers_uses(tmp_path: Path) -> None:
    base = save_encoder(tmp_path / "bert", labels=["a", "b"])
    module = "encoder.layer.1.attention.self.query"
    folder = adapter(tmp_path / "lora", base, module, prefix="bert.")
    after = WeightSource.open(resolve(str(folder)).path)
    assert not torch.equal(after.dense(f"bert.{module}"), WeightSource.open(base).dense(f"bert.{module}"))


def test_a_whole_module_that_was_saved_replaces_the_base_s(pico_llama: Path, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", pico_llama, Q)
    file = folder / "adapter_model.safetensors"
    norm = torch.full((64,), 0.5)
    save_file({**load_file(file), "base_model.model.model.norm.weight": norm}, file)
    assert torch.equal(WeightSource.open(resolve(str(folder)).path).tensor("model.norm.weight"), norm)


def test_gpt2_stores_its_weights_turned(tmp_path: Path) -> None:
    base = save_decoder(tmp_path / "gpt2", "gpt2")
    folder, module = tmp_path / "lora", "transformer.h.0.mlp.c_fc"
    stored = next(name for name in CheckpointReader.open(base).shapes if name.endswith("h.0.mlp.c_fc.weight"))
    wide, out = CheckpointReader.open(base).shapes[stored]
    adapter(folder, base, fan_in_fan_out=True)
    down, up = torch.ones(4, wide), torch.ones(out, 4)
    names = [f"base_model.model.{module}.lora_{part}.weight" for part in "AB"]
    save_file(dict(zip(names, (down, up), strict=True)), folder / "adapter_model.safetensors")
    old, new = (
        CheckpointReader.open(path).read([stored])[stored] for path in (base, resolve(str(folder)).path)
    )
    assert torch.allclose(new, old + 6.0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"peft_type": "IA3"}, "no LoRA"),
        ({"use_dora": True}, "use_dora is True"),
        ({"alpha_pattern": {"q_proj": 3}}, "alpha_pattern"),
        ({"base_model_name_or_path": None}, "names no base model"),
        ({"base_model_name_or_path": "org/absent"}, "no directory org/absent"),
        (
            {"base_model_name_or_path": "~nobody-of-this-name/m"},
            "no file or directory ~nobody-of-this-name/m",
        ),
        ({"lora_alpha": "x"}, "lora_alpha"),
        ({"lora_alpha": 10**400}, "lora_alpha"),
    ],
)
def test_what_cannot_be_merged_is_refused(
    settings: dict[str, Any], said: str, pico_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = adapter(tmp_path / "a", pico_llama, Q, **settings)
    assert run(["compress", str(folder), "--scheme", "W8A8", "-o", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "tensors",
    [
        {"base_model.model.model.layers.9.mlp.up_proj.lora_A.weight": (4, 64)},
        {f"base_model.model.{Q}.lora_A.weight": (4, 64)},
        {f"base_model.model.{Q}.lora_A.weight": (4, 60), f"base_model.model.{Q}.lora_B.weight": (64, 4)},
        {f"base_model.model.{Q}.lora_A.weight": (4, 64), f"base_model.model.{Q}.lora_B.weight": (64, 5)},
        {f"base_model.model.{Q}.lora_A.weight": (0, 64), f"base_model.model.{Q}.lora_B.weight": (64, 0)},
        {f"base_model.model.{Q}.lora_A.weight": (4, 8, 8), f"base_model.model.{Q}.lora_B.weight": (64, 4)},
        {
            f"base_model.model.{Q}.lora_A.weight": (1, 200_000),
            f"base_model.model.{Q}.lora_B.weight": (200_000, 1),
        },
        {f"base_model.model.{Q}.lora_magnitude_vector.weight": (64,)},
        {"x": (1,)},
    ],
)
def test_tensors_that_do_not_fit_are_named(
    tensors: dict[str, tuple[int, ...]], pico_llama: Path, tmp_path: Path
) -> None:
    folder = adapter(tmp_path / "a", pico_llama, Q)
    save_file(
        {name: torch.ones(shape) for name, shape in tensors.items()}, folder / "adapter_model.safetensors"
    )
    with pytest.raises(EdgepressError, match=r"fit"):
        resolve(str(folder))


def test_hostile_files_are_typed(pico_llama: Path, tmp_path: Path) -> None:
    pickled = adapter(tmp_path / "pickled", pico_llama, Q)
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    broken = adapter(tmp_path / "broken", pico_llama, Q)
    (broken / "adapter_model.safetensors").write_bytes(b"\xff" * 40)
    lost = adapter(tmp_path / "lost", pico_llama, Q)
    (lost / "adapter_model.safetensors").unlink()
    circle = adapter(tmp_path / "circle", pico_llama, Q, base_model_name_or_path=str(tmp_path / "circle"))
    for folder, said in ((pickled, "pickle"), (broken, "cannot read"), (lost, "missing"), (circle, "itself")):
        with pytest.raises(EdgepressError, match=said):
            resolve(str(folder))
