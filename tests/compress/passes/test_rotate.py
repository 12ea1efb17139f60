"""Rotations: orthogonal matrices, the same function for every family, and activations that round better."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.block_anatomy import BlockAnatomy, Mlp
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.rotate.rotation import (
    FusedTensors,
    hadamard,
    mean_preserving,
    random_orthogonal,
    random_rotation,
    rotate_residual,
)
from edgepress.errors import EdgepressError, InputError
from edgepress.files.storage import read_json
from safetensors.torch import load_file, save_file
from torch import Tensor

pytestmark = pytest.mark.chain


FOUR = {"num_experts": 4, "num_experts_per_tok": 2}
# Family, changes of its config.
FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4}),
    ("llama", {"hidden_size": 72, "tie_word_embeddings": False}),
    ("qwen3", {"head_dim": 32}),
    ("gemma", {}),
    ("opt", {}),
    ("phi", {}),
    ("gpt2", {}),
    ("gpt_neox", {}),
    ("nemotron", {}),
    ("cohere2", {}),
    ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    ("granitemoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    ("qwen2_moe", {**FOUR, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 64}),
    ("qwen3_moe", {**FOUR, "moe_intermediate_size": 32, "mlp_only_layers": [1]}),
    ("olmoe", {**FOUR, "intermediate_size": 32}),
    ("gpt_oss", {}),
    ("deepseek_v3", {}),
]
MakeModel = Callable[..., Path]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rotated(model: Path, folder: Path, **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"embedding": None, "passes": [{"pass": "rotate", **options}]}))
    return compress_model(str(model), recipe=str(recipe), output=folder / "o")


def logits(path: Path) -> Tensor:
    ids = torch.randint(3, 100, (2, 24), generator=generator(5))
    with torch.no_grad():
        output = load_model(path)(input_ids=ids)
    return output.logits if hasattr(output, "logits") else output.last_hidden_state  # type: ignore[no-any-return]


@pytest.mark.parametrize("size", [1, 2, 9, 16, 48, 64, 72])
def test_matrices_are_orthogonal(size: int) -> None:
    for matrix in (
        random_orthogonal(size, generator()),
        random_rotation(size, generator()),
        mean_preserving(size, generator()),
    ):
        assert torch.allclose(matrix @ matrix.T, torch.eye(size, dtype=torch.float64), atol=1e-10)


def test_hadamard_equals_the_definition_by_parities_of_common_bits() -> None:
    expected = [[(-1) ** bin(row & column).count("1") for column in range(8)] for row in range(8)]
    assert torch.allclose(hadamard(8) * 8**0.5, torch.tensor(expected, dtype=torch.float64))
    with pytest.raises(ValueError, match="power of two"):
        hadamard(12)


def test_a_hadamard_part_spreads_every_channel() -> None:
    # One channel of 576 = 64 · 9 is found in all: no entry is much above 1 / sqrt(64).
    assert float(random_rotation(576, generator()).abs().max()) < 1.01 / 64**0.5
    ones = torch.ones(24, dtype=torch.float64)
    assert torch.allclose(ones @ mean_preserving(24, generator()), ones)


@pytest.mark.parametrize(("family", "changes"), FAMILIES)
def test_the_model_computes_the_same(
    make_decoder: MakeModel, tmp_path: Path, family: str, changes: dict[str, Any]
) -> None:
    model = make_decoder(tmp_path / "model", family, **changes)
    path = rotated(model, tmp_path)
    expected, found = logits(model), logits(path)
    assert float((found - expected).abs().max()) < 2e-4 * float(expected.abs().max())
    before, after = WeightSource.open(model), WeightSource.open(path)
    inner = [block.mixer.latent is not None and block.mixer.q for block in before.anatomy.blocks]
    for linear in before.anatomy.linears():
        if linear in inner:  # it reads a narrow state, which stays
            continue
        assert not torch.allclose(before.dense(linear.name), after.dense(linear.name), atol=1e-3)
    details = read_json(path / "edgepress.json")["steps"][0]["details"]
    assert details["untied"] == before.anatomy.tied and not after.anatomy.tied
    grown = sum(map(after.stored_bytes, after.shapes)) - sum(map(before.stored_bytes, before.shapes))
    assert grown == details.get("bytes_added", 0)


def mixed(block: BlockAnatomy, read: Callable[[str], Tensor], states: Tensor) -> Tensor:
    """What norm and experts of a block make of ``states``, a token and an expert after the other."""
    assert block.experts is not None
    rows = states * (states.square().mean(-1, keepdim=True) + block.norm2.eps).rsqrt()
    rows = rows * read(f"{block.norm2.name}.weight")

    def output(mlp: Mlp, row: Tensor) -> Tensor:
        assert mlp.gate is not None
        gate, up, down = (read(f"{part.name}.weight") for part in (mlp.gate, mlp.up, mlp.down))
        return down @ (torch.nn.functional.silu(gate @ row) * (up @ row))

    found = []
    for row in rows:
        weights, chosen = torch.softmax(read(f"{block.experts.router}.weight") @ row, -1).topk(
            block.experts.chosen
        )
        weights = weights / weights.sum() if block.experts.normalized else weights
        experts = list(block.expert_mlps())
        total = torch.stack(
            [w * output(experts[int(e)], row) for w, e in zip(weights, chosen, strict=True)]
        ).sum(0)
        if block.experts.shared is not None:
            factor = torch.sigmoid(read(f"{block.experts.shared_gate}.weight") @ row)
            total = total + factor * output(block.experts.shared, row)
        found.append(total)
    return torch.stack(found)


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe"])
def test_rotated_experts_are_the_same_in_float64(
    make_decoder: MakeModel, family: str, tmp_path: Path
) -> None:
    """Of tensors that are not rounded to float32 the outputs are the same to its last digits, but rotated."""
    changes = next(changes for name, changes in FAMILIES if name == family)
    source = WeightSource.open(make_decoder(tmp_path / "model", family, **changes))
    block = source.anatomy.blocks[1]

    def read(name: str) -> Tensor:
        return source.tensor(name).to(torch.float64)

    tensors = FusedTensors(read, source.names(f"{block.prefix}."))
    rotation, states = random_rotation(64, generator()), torch.randn(20, 64, generator=generator(1)).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgepress.compress.rotate.rotation._product", lambda weight, turn: weight @ turn)
        rotate_residual(tensors, block, rotation)
    expected = mixed(block, read, states) @ rotation
    assert torch.allclose(mixed(block, tensors.get, states @ rotation), expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("residual", [True, False])
def test_rotations_of_a_mixture_learn(
    make_decoder: MakeModel, pico_text: Path, tmp_path: Path, residual: bool
) -> None:
    changes = next(changes for name, changes in FAMILIES if name == "qwen2_moe")
    model = make_decoder(tmp_path / "model", "qwen2_moe", **changes)
    step = {"pass": "rotate", "learn": "W4A16-g32", "steps": 20, "residual": residual}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"embedding": None, "passes": [step]}))
    text = {"calibration": str(pico_text), "samples": 8, "length": 32}
    path = compress_model(str(model), recipe=str(tmp_path / "r.yaml"), output=tmp_path / "o", **text)
    expected, found = logits(model), logits(path)
    assert float((found - expected).abs().max()) < 2e-4 * float(expected.abs().max())
    learned = read_json(path / "edgepress.json")["steps"][0]["details"]["learned"]
    assert all(after < before for before, after in learned.values()) and ("residual" in learned) == residual


@pytest.mark.parametrize("family", ["bert", "gemma2", "olmo2"])
def test_norms_that_keep_their_scales_leave_only_the_heads(
    pico_bert: Path, make_decoder: MakeModel, tmp_path: Path, family: str
) -> None:
    model = pico_bert if family == "bert" else make_decoder(tmp_path / "model", family)
    with pytest.raises(InputError, match="residual: false"):
        rotated(model, tmp_path / "whole")
    path = rotated(model, tmp_path / "heads", residual=False)
    expected = logits(model)
    assert float((logits(path) - expected).abs().max()) < 2e-4 * float(expected.abs().max())


def test_heads_behind_a_norm_stay_and_the_hidden_states_turn(make_decoder: MakeModel, tmp_path: Path) -> None:
    model = make_decoder(tmp_path / "model", "bitnet")
    with pytest.raises(InputError, match="heads: false"):
        rotated(model, tmp_path / "whole")
    expected, found = logits(model), logits(rotated(model, tmp_path / "hidden", heads=False))
    assert float((found - expected).abs().max()) < 2e-4 * float(expected.abs().max())


def with_outliers(model: Path, folder: Path) -> Path:
    """A model three channels of whose hidden states are far larger than the others."""
    import shutil

    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][:, [3, 17, 40]] *= 30
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def activation_error(path: Path) -> float:
    """The mean relative squared error of what q, k and v give when their inputs are 4 bits a token."""
    model, source = load_model(path), WeightSource.open(path)
    errors: list[Tensor] = []

    def look(module: Any, inputs: tuple[Tensor]) -> None:
        rows = inputs[0].reshape(-1, inputs[0].shape[-1])
        scale = rows.abs().amax(-1, keepdim=True) / 7.5
        damage = ((rows / scale).round().clamp(-8, 7) * scale - rows) @ module.weight.T
        errors.append(damage.square().sum() / (rows @ module.weight.T).square().sum())

    for block in source.anatomy.blocks:
        for linear in block.attention.projections:
            model.get_submodule(linear.name).register_forward_pre_hook(look)
    with torch.no_grad():
        model(input_ids=torch.randint(3, 100, (2, 24), generator=generator(1)))
    return float(torch.stack(errors).mean())


def test_four_bit_activations_of_a_model_with_outliers_lose_less(pico_llama: Path, tmp_path: Path) -> None:
    model = with_outliers(pico_llama, tmp_path / "outliers")
    path = rotated(model, tmp_path / "rotated")
    assert activation_error(path) < 0.5 * activation_error(model)


def test_quantized_or_pruned_models_are_refused(pico_llama: Path, tmp_path: Path) -> None:
    small = compress_model(str(pico_llama), scheme="W4A16-g32", output=tmp_path / "w4")
    with pytest.raises(InputError, match="first pass"):
        rotated(small, tmp_path / "again")
    recipe = tmp_path / "r.yaml"
    recipe.write_text("passes:\n  - {pass: magnitude, sparsity: 0.5}\n  - {pass: rotate}\n")
    with pytest.raises(InputError, match="pruned"):
        compress_model(str(pico_llama), recipe=str(recipe), output=tmp_path / "pruned")
    with pytest.raises(EdgepressError, match="all layers"):
        rotated(pico_llama, tmp_path / "some", targets=["q"])


def test_rotate_gptq_and_tune_in_one_recipe(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "passes:\n  - {pass: rotate}\n  - {pass: gptq, scheme: W3A16-g32}\n"
        "  - {pass: tune, precision: float32, batch_tokens: 64, piece_tokens: 64}\n"
    )
    plan = plan_model(str(pico_llama), recipe=str(recipe), samples=16, length=32)
    path = compress_model(
        str(pico_llama),
        recipe=str(recipe),
        output=tmp_path / "o",
        calibration=str(pico_text),
        samples=16,
        length=32,
    )
    source = WeightSource.open(path)
    assert len(source.schemes) == len(list(source.anatomy.linears())) and not source.anatomy.tied
    stored = sum(map(source.stored_bytes, source.shapes))
    assert plan.result_bytes == pytest.approx(stored, rel=0.1)
    gptq, tune = read_json(path / "edgepress.json")["steps"][1:]
    assert dict(tune["details"]["held_out"])[tune["details"]["kept"]] <= tune["details"]["held_out"][0][1]
    assert gptq["damage"]["kl"] > 0
