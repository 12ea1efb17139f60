"""``width`` of mixtures: routers, gates and all experts lose the channels that the residual stream loses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.api import plan_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import InputError, RecipeError
from edgepress.export.api import export_bundle
from edgepress.files.storage import read_json
from safetensors.torch import load_file, save_file
from torch import Tensor

pytestmark = pytest.mark.chain

Make, Run = Callable[..., Path], Callable[..., Path]
FOUR: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
GRANITE: dict[str, Any] = {
    "residual_multiplier": 0.5,
    "embedding_multiplier": 3.0,
    "logits_scaling": 2.0,
    "attention_multiplier": 0.3,
}
SIZES: dict[str, dict[str, Any]] = {
    "qwen2_moe": FOUR | {"shared_expert_intermediate_size": 80},
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": FOUR | {"mlp_only_layers": [1]},
    "granitemoe": GRANITE | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {},
    "deepseek_v3": {},
    "granite": GRANITE,
    "dense latents": {"first_k_dense_replace": 3},
}
MODEL_TYPES = {name: name for name in SIZES} | {"dense latents": "deepseek_v3"}
# No other dimension of these models is so large.
HIDDEN, KEPT = 192, 96
STEP: dict[str, Any] = {"pass": "width", "keep": 0.5, "multiple": 8, "repair": "none"}
IDS = torch.randint(5, 110, (2, 17), generator=torch.Generator().manual_seed(0))
_SLOW = [pytest.mark.slow]
EACH = ["qwen2_moe", *(pytest.param(name, marks=_SLOW) for name in list(SIZES)[1:])]


def plain(path: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(IDS).logits  # type: ignore[no-any-return]


def weights(source: WeightSource) -> int:
    """Of the blocks, the embedding and a head that is not the embedding."""
    anatomy = source.anatomy
    tables = anatomy.vocab_size * anatomy.hidden_size * (1 if anatomy.tied else 2)
    return tables + sum(linear.out_features * linear.in_features for linear in anatomy.linears())


def cut_by_hand(model: Any, kept: Tensor) -> Any:
    """transformers' model of the ``kept`` channels: of every tensor the entries along what is as long as the
    hidden states, those of norms times ``√(d/k)``, in front of a larger epsilon.
    """
    from transformers import AutoModelForCausalLM

    ratio, config = HIDDEN / len(kept), model.config
    config.hidden_size, config.rms_norm_eps = len(kept), config.rms_norm_eps * ratio
    tensors = {}
    for name, value in model.state_dict().items():
        factor = ratio**0.5 if value.shape == (HIDDEN,) and "norm" in name else 1.0
        for axis, size in enumerate(value.shape):
            value = value.index_select(axis, kept) if size == HIDDEN else value
        tensors[name] = value * factor
    smaller = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    smaller.load_state_dict(tensors)
    return smaller


@pytest.mark.parametrize("family", EACH)
def test_what_is_left_is_the_model_cut_by_hand(
    family: str, make_decoder: Make, pico_text: Path, tmp_path: Path, run: Run, recipe: Callable[..., str]
) -> None:
    model = make_decoder(tmp_path / "m", MODEL_TYPES[family], hidden_size=HIDDEN, **SIZES[family])
    asked = STEP | {"keep": 0.6, "multiple": 32}
    out = run(model, pico_text, tmp_path, asked)
    before, after = WeightSource.open(model), WeightSource.open(out)
    assert after.anatomy.hidden_size == KEPT
    tables = [source.tensor("model.embed_tokens.weight") for source in (before, after)]
    kept = (tables[0].T.unsqueeze(1) == tables[1].T.unsqueeze(0)).all(-1).any(1).nonzero().flatten()
    assert len(kept) == KEPT
    found, theirs = logits(load_model(out)), logits(plain(out))
    assert torch.allclose(found, logits(cut_by_hand(plain(model), kept)), atol=1e-5)
    assert torch.allclose(found, theirs, atol=1e-5)
    (step,) = plan_model(str(model), recipe=recipe(tmp_path, asked)).steps
    sizes = [weights(source) for source in (before, after)]
    assert sizes[1] <= 0.6 * sizes[0] and [step.bytes_before, step.bytes_after] == [4 * n for n in sizes]
    layers = read_json(out / "edgepress.json")["layers"]
    assert {layer["status"] for layer in layers} == {"ok"} and layers[-1]["error"] > 0


@pytest.mark.parametrize("family", EACH)
@pytest.mark.parametrize("basis", ["activation", "pca"])
def test_all_of_the_width_is_the_model_itself(
    basis: str, family: str, make_decoder: Make, pico_text: Path, tmp_path: Path, run: Run
) -> None:
    model = make_decoder(tmp_path / "m", MODEL_TYPES[family], **SIZES[family])
    step = {"pass": "width", "keep": 1.0, "repair": "none", "basis": basis, "tied": "separate"}
    out = run(model, pico_text, tmp_path, step)
    found, wanted = logits(load_model(out)), logits(load_model(model))
    assert torch.allclose(found, wanted, atol=1e-5 if basis == "activation" else 2e-3)


@pytest.mark.parametrize("basis", ["activation", "pca"])
@pytest.mark.parametrize("tied", ["keep", "separate"])
def test_idle_channels_go_and_the_rest_stays_as_it_was(
    tied: str, basis: str, make_decoder: Make, pico_text: Path, tmp_path: Path, run: Run
) -> None:
    model = make_decoder(tmp_path / "m", "qwen2_moe", **SIZES["qwen2_moe"])
    tensors = load_file(model / "model.safetensors")
    idle = torch.randperm(64, generator=torch.Generator().manual_seed(3))[32:]
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor[idle] = 0
        elif name == "model.embed_tokens.weight":
            tensor[:, idle] = 0
        elif name == "model.norm.weight" and basis == "pca":
            tensor.fill_(1.0)  # a tied head cannot take in scales of a basis that mixes channels
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    out = run(model, pico_text, tmp_path, STEP | {"basis": basis, "tied": tied})
    assert WeightSource.open(out).anatomy.tied == (tied == "keep")
    (layer,) = read_json(out / "edgepress.json")["layers"]
    assert layer["error"] < 1e-5
    before, after = logits(load_model(model)), logits(load_model(out))
    assert torch.allclose(before, after, atol=1e-4)
    if basis == "activation" and tied == "keep":
        bundle = export_bundle(out, output=tmp_path / "b")
        assert read_json(bundle / "manifest.json")["parity"]["status"] == "passed"


@pytest.mark.parametrize("change", [{"repair": "least_squares"}, {"basis": "reconstruction"}])
def test_what_counts_on_one_mlp_is_refused_before_any_work(
    change: dict[str, str], make_decoder: Make, tmp_path: Path, recipe: Callable[..., str]
) -> None:
    model = make_decoder(tmp_path / "m", "mixtral", num_local_experts=4)
    with pytest.raises(RecipeError, match="basis: activation or pca"):
        plan_model(str(model), recipe=recipe(tmp_path, STEP | change))


@pytest.mark.parametrize(
    ("family", "sizes", "change"),
    [
        ("granite", GRANITE, {"repair": "least_squares"}),
        ("olmoe", {"num_experts": 4, "num_experts_per_tok": 2}, {}),
    ],
)
def test_factors_that_no_repair_counts_in_and_norms_as_wide_as_the_states_are_refused(
    family: str,
    sizes: dict[str, Any],
    change: dict[str, str],
    make_decoder: Make,
    pico_text: Path,
    tmp_path: Path,
    run: Run,
) -> None:
    model = make_decoder(tmp_path / "m", family, **sizes)
    with pytest.raises(InputError, match="cannot shrink"):
        run(model, pico_text, tmp_path, STEP | change)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["granitemoe", "gpt_oss", "deepseek_v3"])
def test_a_narrower_mixture_learns_is_rounded_and_exports(
    family: str,
    make_decoder: Make,
    pico_text: Path,
    tmp_path: Path,
    run: Run,
    distance: Callable[[Path, Path, Path], float],
) -> None:
    model = make_decoder(tmp_path / "m", family, hidden_size=HIDDEN, **SIZES[family])
    training = {"batch_tokens": 64, "micro_batch_tokens": 64, "learning_rate": 0.005, "epochs": 3}
    cut = STEP | {"keep": 0.6, "multiple": 32}
    left = run(model, pico_text, tmp_path, cut, name="cut")
    learned = run(model, pico_text, tmp_path, cut, {"pass": "distill", "training": training}, name="learned")
    assert distance(model, learned, pico_text) < 0.9 * distance(model, left, pico_text)
    out = run(learned, pico_text, tmp_path, {"pass": "gptq", "scheme": "W4A16-g32"})
    bundle = export_bundle(out, output=tmp_path / "b")
    assert read_json(bundle / "manifest.json")["parity"]["status"] == "passed"
