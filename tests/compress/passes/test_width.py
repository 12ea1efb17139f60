"""A narrower residual stream: what stays, how it is repaired, and where the result loads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.block_anatomy import Linear
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.prune.structured.residual_basis import NormInputs, basis_of
from edgepress.compress.prune.structured.residual_fit import (
    NormOutputs,
    ResidualError,
    fit_norm_outputs,
    fit_residual,
    fitted_scales,
)
from edgepress.errors import InputError, RecipeError
from edgepress.export.api import export_bundle
from edgepress.files.storage import read_json
from torch import Tensor

pytestmark = pytest.mark.chain


LINEAR = Linear("d", "down", 24, 20, False)
CALIBRATED: dict[str, Any] = {"samples": 16, "length": 32}


def recipe(folder: Path, *passes: dict[str, Any]) -> str:
    path = folder / "r.yaml"
    path.write_text(yaml.safe_dump({"name": "r", "passes": list(passes), "embedding": None}))
    return str(path)


def run(model: Path, text: Path, folder: Path, *passes: dict[str, Any], name: str = "o") -> Path:
    return compress_model(
        str(model), recipe=recipe(folder, *passes), output=folder / name, calibration=str(text), **CALIBRATED
    )


def outputs(model: Any) -> Tensor:
    ids = torch.randint(5, 110, (2, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(ids).logits  # type: ignore[no-any-return]


def step_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(path / "edgepress.json")["steps"][0]
    return found


def seen(rows: Tensor, scales: Tensor, weight: Tensor) -> NormInputs:
    found = NormInputs.zeros(rows.shape[1], torch.device("cpu"))
    found.add(rows, scales)
    found.want(weight)
    return found


def test_bases_are_what_their_names_say() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(300, 8, generator=generator) * torch.tensor([1, 4, 2, 0.1, 3, 0.5, 0.2, 0.3])
    scales, weight = torch.rand(8, generator=generator) + 0.5, torch.randn(6, 8, generator=generator)
    found = seen(rows, scales, weight)
    by_size = (rows * scales).abs().mean(0).argsort(descending=True)[:3].sort().values
    assert torch.equal(basis_of(found, "activation", 3, None), torch.eye(8, dtype=torch.float64)[:, by_size])
    principal = basis_of(found, "pca", 3, None)
    assert principal is not None
    _, _, vectors = np.linalg.svd(rows.numpy().astype(np.float64), full_matrices=False)
    assert np.allclose(principal @ principal.T, vectors[:3].T @ vectors[:3], atol=1e-5)
    apart = torch.tensor([False, True] + [False] * 6)
    alone = basis_of(found, "pca", 8, apart)
    assert alone is not None and torch.allclose(alone @ alone.T, torch.eye(8, dtype=torch.float64))
    assert sorted(alone[1].abs().round(decimals=9).tolist()) == [0.0] * 7 + [1.0]


def test_the_least_replaceable_channels_stay() -> None:
    """One channel is the sum of two others: any of the three goes without loss, and another is unread."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(400, 6, generator=generator)
    rows[:, 2] = rows[:, 0] + rows[:, 1]
    weight = torch.randn(5, 6, generator=generator)
    weight[:, 4] = 0
    basis = basis_of(seen(rows, torch.ones(6), weight), "reconstruction", 4, None)
    assert basis is not None
    gone = set(range(6)) - set(basis.argmax(0).tolist())
    assert 4 in gone and len(gone & {0, 1, 2}) == 1


def test_fits_are_numpys_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    given, now = torch.randn(200, 6, generator=generator), torch.randn(200, 4, generator=generator)
    basis = torch.linalg.qr(torch.randn(6, 4, dtype=torch.float64, generator=generator))[0]
    reading = NormOutputs(basis)
    for part in (slice(0, 90), slice(90, 200)):
        reading.add(given[part], now[part])
    expected, *_ = np.linalg.lstsq(now.numpy(), given.numpy(), rcond=None)
    found = reading.fit(1e-9)
    assert found is not None and np.allclose(found, expected.T, atol=1e-4)
    left = np.square(given.numpy() - now.numpy() @ expected).sum() / np.square(given.numpy()).sum()
    assert reading.error(found) == pytest.approx(left, rel=1e-3)
    table = torch.randn(30, 6, generator=generator)
    centred = table - table.mean(0)
    scales = fitted_scales(reading, torch.ones(4), centred.T @ centred, basis, 1e-9)
    columns = [(now[:, [i]] @ (centred @ basis.float())[:, [i]].T).flatten().numpy() for i in range(4)]
    naive, *_ = np.linalg.lstsq(np.stack(columns, 1), (given @ centred.T).flatten().numpy(), rcond=None)
    assert scales is not None and np.allclose(scales, naive, atol=1e-3)


def test_the_damping_is_the_one_that_the_other_half_likes() -> None:
    """Noise as the target: whatever is fitted to one half is wrong in the other, so the most damping wins."""
    generator = torch.Generator().manual_seed(0)
    now, noise = torch.randn(60, 20, generator=generator), torch.randn(60, 24, generator=generator)
    basis = torch.linalg.qr(torch.randn(24, 20, dtype=torch.float64, generator=generator))[0]
    for given, expected in ((noise + now @ basis.T.float(), 10.0), (3 * now @ basis.T.float(), 0.01)):
        halves = NormOutputs(basis), NormOutputs(basis)
        for number, half in enumerate(halves):
            half.add(given[number::2], now[number::2])
        chosen, direct = fit_norm_outputs(halves, None), halves[0].fit(expected)
        assert chosen is not None and direct is not None and torch.allclose(chosen, direct)
        gaps = ResidualError(LINEAR, torch.device("cpu")), ResidualError(LINEAR, torch.device("cpu"))
        weight = torch.zeros(24, 20)
        lacking = noise if expected == 10.0 else given
        for number, gap in enumerate(gaps):
            gap.add(now[number::2].unsqueeze(0), lacking[number::2].unsqueeze(0), None)
        fitted = fit_residual(gaps, weight, None, torch.arange(20), None)
        whole = gaps[0].fit(weight, None, torch.arange(20), expected)
        assert torch.allclose(fitted.fit.weight, whole.fit.weight)
        assert fitted.error == pytest.approx(whole.error)


@pytest.mark.parametrize("basis", ["activation", "reconstruction", "pca"])
@pytest.mark.parametrize("tied", [False, True])
def test_all_of_the_width_is_the_model_itself(
    basis: str, tied: bool, make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path
) -> None:
    model = make_decoder(tmp_path / "m", tie_word_embeddings=tied)
    out = run(model, pico_text, tmp_path, {"pass": "width", "keep": 1.0, "basis": basis, "tied": "separate"})
    assert torch.allclose(outputs(load_model(out)), outputs(load_model(model)), atol=2e-3)


@pytest.mark.parametrize(
    ("model_type", "basis"),
    [
        *(("llama", "activation"), ("qwen3", "pca")),
        pytest.param("mistral", "pca", marks=pytest.mark.slow),
        pytest.param("qwen2", "activation", marks=pytest.mark.slow),
        pytest.param("llama", "pca", marks=pytest.mark.slow),
        pytest.param("mistral", "activation", marks=pytest.mark.slow),
        pytest.param("qwen2", "pca", marks=pytest.mark.slow),
        pytest.param("qwen3", "activation", marks=pytest.mark.slow),
    ],
)
def test_narrower_models_load_in_plain_transformers_and_export(
    model_type: str, basis: str, make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    model = make_decoder(tmp_path / "m", model_type)
    out = run(model, pico_text, tmp_path, {"pass": "width", "keep": 0.8, "multiple": 16, "basis": basis})
    before, after = WeightSource.open(model).anatomy, WeightSource.open(out).anatomy
    assert after.hidden_size == int(0.8 * before.hidden_size) // 16 * 16
    assert after.tied == before.tied
    assert after.blocks[0].attention.head_dim == before.blocks[0].attention.head_dim
    plain = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    assert torch.allclose(outputs(plain), outputs(load_model(out)), atol=1e-5)
    export_bundle(out, output=tmp_path / "b")


@pytest.mark.parametrize("tied", ["keep", "separate"])
def test_repair_brings_the_output_closer(
    tied: str,
    make_decoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    distance: Callable[[Path, Path, Path], float],
) -> None:
    model, found = make_decoder(tmp_path / "m", tie_word_embeddings=True), {}
    for repair in ("none", "least_squares"):
        step = {"pass": "width", "keep": 0.75, "multiple": 16, "repair": repair, "tied": tied}
        out = run(model, pico_text, tmp_path, step, name=repair)
        found[repair] = distance(model, out, pico_text)
        assert step_of(out)["damage"]["kl"] > 0
        assert WeightSource.open(out).anatomy.tied == (tied == "keep")
    assert found["least_squares"] < found["none"]


def test_unrepaired_channels_are_the_naive_slices(
    make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path
) -> None:
    """The rows and columns of the channels that stay, each norm's scales times √(d/k)."""
    model = make_decoder(tmp_path / "m", tie_word_embeddings=True)
    step = {"pass": "width", "keep": 0.75, "multiple": 16, "repair": "none"}
    out = run(model, pico_text, tmp_path, step)
    before, after = WeightSource.open(model), WeightSource.open(out)
    table, left = before.tensor("model.embed_tokens.weight"), after.tensor("model.embed_tokens.weight")
    kept = (table.T.unsqueeze(1) == left.T.unsqueeze(0)).all(-1).any(1)
    factor = (len(kept) / int(kept.sum())) ** 0.5
    block = after.anatomy.blocks[1]
    scales = before.tensor(f"{block.norm2.name}.weight")[kept]
    assert torch.allclose(after.tensor(f"{block.norm2.name}.weight"), torch.full_like(scales, factor))
    up, down = f"{block.mlp.up.name}.weight", f"{block.mlp.down.name}.weight"
    assert torch.allclose(after.tensor(up), before.tensor(up)[:, kept] * scales, atol=1e-6)
    assert torch.equal(after.tensor(down), before.tensor(down)[kept])
    final = before.tensor("model.norm.weight")[kept] * factor
    assert torch.allclose(after.tensor("model.norm.weight"), final, atol=1e-6)
    ratio = block.norm1.eps / before.anatomy.blocks[1].norm1.eps
    assert ratio == pytest.approx(factor**2)


def test_a_llama_with_heads_that_do_not_divide_is_written_as_its_twin(
    make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    sizes = {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2}
    model = make_decoder(tmp_path / "m", tie_word_embeddings=True, **sizes)
    out = run(model, pico_text, tmp_path, {"pass": "width", "keep": 0.7})
    config = read_json(out / "config.json")
    assert (config["model_type"], config["hidden_size"], config["head_dim"]) == ("mistral", 64, 16)
    plain = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    assert plain.config.sliding_window is None
    assert torch.allclose(outputs(plain), outputs(load_model(out)), atol=1e-5)
    export_bundle(out, output=tmp_path / "b")
    biased = make_decoder(tmp_path / "b1", attention_bias=True, **sizes)
    plan = plan_model(str(biased), recipe=recipe(tmp_path, {"pass": "width", "keep": 0.7, "multiple": 8}))
    assert plan.steps[0].bytes_after == plan.steps[0].bytes_before // 2


def test_groups_fit_what_is_left(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    step = {"pass": "width", "keep": 0.8, "multiple": 32}
    out = run(pico_llama, pico_text, tmp_path, step, {"pass": "gptq", "scheme": "W4A16-g32"})
    assert WeightSource.open(out).schemes
    export_bundle(out, output=tmp_path / "b")


@pytest.mark.parametrize("model", ["pico_bert", "gpt2", "gemma", "gemma2", "bitnet"])
def test_models_that_cannot_are_refused(
    model: str,
    make_decoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    path = request.getfixturevalue(model) if "_" in model else make_decoder(tmp_path / "m", model)
    with pytest.raises(InputError, match="cannot shrink"):
        run(path, pico_text, tmp_path, {"pass": "width", "keep": 0.8})
    assert not (tmp_path / "o").exists()


def test_what_leaves_nothing_is_refused_before_any_work(pico_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no multiple"):
        plan_model(str(pico_llama), recipe=recipe(tmp_path, {"pass": "width", "keep": 0.1, "multiple": 64}))
