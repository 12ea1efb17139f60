"""Learned rotations: exact steps on the manifold, the loss by hand, less of it than a random rotation leaves,
and the same model.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.rotate.learned_rotation import (
    CayleyDescent,
    Reader,
    cayley,
    learn,
    rotated_values,
    rounding_loss,
    skew_direction,
    without,
)
from edgepress.compress.rotate.rotation import mean_preserving, random_orthogonal, random_rotation
from edgepress.errors import CalibrationError
from edgepress.files.storage import read_json
from torch import Tensor

SCHEMES = ["W8A8", "W4A16-g16", "MXFP4", "NVFP4"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def readers(size: int = 32, count: int = 3) -> list[Reader]:
    """Rows with a few channels far larger than the others."""
    found = []
    for seed in range(count):
        rows = torch.randn(128, size, generator=generator(seed))
        rows[:, [1, 5]] *= 20
        found.append(Reader(rows, torch.randn(24, size, generator=generator(100 + seed))))
    return found


def skew(size: int, seed: int = 0) -> Tensor:
    matrix = torch.randn(size, size, generator=generator(seed), dtype=torch.float64)
    return matrix - matrix.T


@pytest.mark.parametrize("size", [1, 2, 7, 24])
def test_the_transform_of_a_skew_matrix_is_orthogonal(size: int) -> None:
    found = cayley(5 * skew(size))
    assert torch.allclose(found @ found.T, torch.eye(size, dtype=torch.float64), atol=1e-12)
    assert float(torch.linalg.det(found)) == pytest.approx(1)


def test_a_small_step_is_the_matrix_exponential_to_second_order() -> None:
    direction = 1e-2 * skew(6)
    expected = torch.linalg.matrix_exp(direction)
    assert float((cayley(direction) - expected).abs().max()) < float(direction.norm()) ** 3


def test_the_direction_is_that_of_steepest_descent() -> None:
    """Naive: of all skew matrices of one size, none makes a linear loss fall faster."""
    start = random_orthogonal(8, generator(1))
    gradient = torch.randn(8, 8, generator=generator(2), dtype=torch.float64)
    steepest = skew_direction(start, gradient)
    assert torch.allclose(steepest, -steepest.T)

    def slope(direction: Tensor) -> float:
        return float((gradient * (direction @ start)).sum() / direction.norm())

    assert slope(steepest) < 0
    assert all(slope(steepest) <= slope(skew(8, seed)) for seed in range(3, 50))


def test_a_vector_can_be_kept_where_it_is() -> None:
    vector = torch.full((9,), 1 / 3, dtype=torch.float64)
    direction = without(skew(9), vector)
    assert torch.allclose(direction, -direction.T)
    assert float((direction @ vector).abs().max()) < 1e-12
    descent = CayleyDescent(mean_preserving(9, generator()).unsqueeze(0), fixed=vector)
    for seed in range(5):
        descent.step(torch.randn(1, 9, 9, generator=generator(seed), dtype=torch.float64), 0.3)
    (found,) = descent.rotation
    assert torch.allclose(vector @ found, vector, atol=1e-12)
    assert torch.allclose(found @ vector, vector, atol=1e-12)


def test_descent_finds_the_rotation_between_two_sets_of_points() -> None:
    """Naive: the orthogonal Procrustes problem has a solution in closed form."""
    points = torch.randn(40, 5, generator=generator(3), dtype=torch.float64)
    hidden = cayley(0.4 * skew(5, 4))
    wanted = points @ hidden
    descent = CayleyDescent(torch.eye(5, dtype=torch.float64).unsqueeze(0), momentum=0.5)
    for step in range(200):
        rotation = descent.rotation.requires_grad_(True)
        (points @ rotation[0] - wanted).square().sum().backward()  # type: ignore[no-untyped-call]
        assert rotation.grad is not None
        gradient, descent.rotation = rotation.grad, rotation.detach()
        descent.step(gradient, 0.1 * (1 - step / 200))
    left, _, right = torch.linalg.svd(points.T @ wanted)
    assert torch.allclose(descent.rotation[0], left @ right, atol=1e-2)
    one = torch.eye(5, dtype=torch.float64)
    assert float((descent.rotation[0] @ descent.rotation[0].T - one).abs().max()) < 1e-10


def test_a_gradient_of_zeros_moves_nothing() -> None:
    start = random_orthogonal(4, generator()).unsqueeze(0)
    descent = CayleyDescent(start)
    descent.step(torch.zeros(1, 4, 4), 0.5)
    assert torch.allclose(descent.rotation, start)


def test_heads_are_turned_one_by_one() -> None:
    """Naive: a block-diagonal matrix, with each value head's rotation once for every query head."""
    rotations = torch.stack([random_rotation(4, generator(seed)) for seed in range(2)]).float()
    values = torch.randn(5, 24, generator=generator(3))  # 2 value heads, 3 query heads each
    whole = torch.block_diag(*[rotations[head] for head in (0, 0, 0, 1, 1, 1)])
    assert torch.allclose(rotated_values(values, rotations), values @ whole, atol=1e-6)


def test_the_loss_is_that_of_int8_by_hand() -> None:
    reader, rotation = readers()[0], random_rotation(32, generator()).float()

    def int8(values: Tensor) -> Tensor:
        scale = values.abs().amax(1, keepdim=True) / 127.5
        return (values / scale).round().clamp(-128, 127) * scale

    wanted = reader.rows @ reader.weight.T
    weight = (reader.weight @ rotation).to(torch.float32)
    scale = (weight.abs().amax(1, keepdim=True) / 127.5).half().float()
    rounded = (weight / scale).round().clamp(-128, 127) * scale
    damage = int8(reader.rows @ rotation) @ rounded.T - wanted
    expected = float(damage.square().sum() / wanted.square().sum())
    found = float(rounding_loss(reader, rotation.unsqueeze(0), Scheme.parse("W8A8")))
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.chain
@pytest.mark.parametrize("name", SCHEMES)
def test_less_is_lost_than_under_a_random_rotation(name: str) -> None:
    scheme, start = Scheme.parse(name), random_rotation(32, generator(7)).unsqueeze(0)
    found = learn(readers(), start, scheme, 30, 0.1)
    one = torch.eye(32, dtype=torch.float64)
    assert float((found.rotation[0] @ found.rotation[0].T - one).abs().max()) < 1e-10
    assert found.best < found.first
    losses = [
        sum(float(rounding_loss(reader.part(1), rotation.float(), scheme)) for reader in readers()) / 3
        for rotation in (start, found.rotation)
    ]
    assert losses == pytest.approx([found.first, found.best])


@pytest.mark.parametrize("name", ["FP8_DYNAMIC", "W8A16-channel"])
def test_what_does_not_help_is_not_kept(name: str) -> None:
    """An error of FP8 is a share of the value itself, whatever the peak."""
    start = random_rotation(32, generator(7)).unsqueeze(0)
    found = learn(readers(), start, Scheme.parse(name), 3, 1.0)
    assert found.best <= found.first
    assert found.best < found.first or torch.equal(found.rotation, start)


def rotated(model: Path, folder: Path, text: Path | None, **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.yaml"
    entry = {"pass": "rotate", "learn": "MXFP4", "steps": 6, **options}
    recipe.write_text(yaml.safe_dump({"embedding": None, "passes": [entry]}))
    calibration = {} if text is None else {"calibration": str(text), "samples": 8, "length": 32}
    return compress_model(str(model), recipe=str(recipe), output=folder / "o", **calibration)


def logits(path: Path) -> Tensor:
    ids = torch.randint(3, 100, (2, 24), generator=generator(5))
    with torch.no_grad():
        output = load_model(path)(input_ids=ids)
    return output.logits if hasattr(output, "logits") else output.last_hidden_state  # type: ignore[no-any-return]


@pytest.mark.chain
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"num_key_value_heads": 2}),
        ("gemma", {}),
        ("gpt2", {}),  # LayerNorms with biases, one matrix for q, k and v
        ("phi", {}),  # one norm for attention and MLP
    ],
)
def test_the_model_computes_the_same(
    make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path, family: str, changes: dict[str, Any]
) -> None:
    model = make_decoder(tmp_path / "model", family, **changes)
    path = rotated(model, tmp_path, pico_text)
    expected, found = logits(model), logits(path)
    assert float((found - expected).abs().max()) < 2e-4 * float(expected.abs().max())
    learned = read_json(path / "edgepress.json")["steps"][0]["details"]["learned"]
    assert set(learned) == {"heads", "residual"}
    assert all(best <= first for first, best in learned.values())


@pytest.mark.chain
def test_an_encoder_learns_its_heads(pico_bert: Path, pico_text: Path, tmp_path: Path) -> None:
    path = rotated(pico_bert, tmp_path, pico_text, residual=False)
    expected = logits(pico_bert)
    assert float((logits(path) - expected).abs().max()) < 2e-4 * float(expected.abs().max())
    assert set(read_json(path / "edgepress.json")["steps"][0]["details"]["learned"]) == {"heads"}


@pytest.mark.chain
def test_text_is_asked_for(pico_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError):
        rotated(pico_llama, tmp_path, None)
    recipe = tmp_path / "r.yaml"
    recipe.write_text("passes:\n  - {pass: rotate, learn: W8A8}\n  - {pass: w8a8}\n")
    assert plan_model(str(pico_llama), recipe=str(recipe), samples=16, length=32)
