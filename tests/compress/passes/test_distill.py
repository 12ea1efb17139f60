"""``distill``: a smaller model comes closer to the one it was cut from, by every loss."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.passes.distill import Distill
from edgepress.compress.pipeline.block_shards import Masks
from edgepress.compress.pipeline.stage import Stage
from edgepress.compress.text.calibration import Calibration, calibration_from
from edgepress.compress.train.losses.loss_names import paired_blocks
from edgepress.errors import TrainingError
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json, write_json
from edgepress.runtime.text.tokenizer import Tokenizer
from edgepress.terminal.progress import Silent

pytestmark = pytest.mark.chain


LEARN: dict[str, Any] = {
    "batch_tokens": 64,
    "micro_batch_tokens": 64,
    "learning_rate": 0.01,
    "epochs": 3,
    "precision": "float32",
}


def calibration(model: Path, text: Path, kind: Any) -> Calibration:
    return calibration_from(str(text), Tokenizer.open(model), kind=kind, samples=24, length=32)


def stage(student: Path, teacher: Path, folder: Path, text: Path) -> Stage:
    source = WeightSource.open(student)
    known = calibration(teacher, text, source.anatomy.kind)
    folder.mkdir(exist_ok=True)
    return Stage(source, WeightSource.open(teacher), folder, known, Masks(), torch.device("cpu"), Silent())


def losses_of(result: Any) -> list[float]:
    return [loss for _, loss in result.details["held_out"]]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"losses": {"reverse_kl": 1.0, "cross_entropy": 0.1}, "temperature": 2.0},
        {"losses": {"jensen_shannon": 1.0}, "training": {"cache": False}},
        {"losses": {"hidden": 1.0, "relations": 1.0, "states": 1.0}},
        {"losses": {"attention": 1.0, "forward_kl": 1.0}},
        {"losses": {"hidden": (1.0, 0.0), "forward_kl": (0.2, 1.0)}},
        {"losses": {"reverse_kl": 1.0}, "on_policy": 0.5, "training": {"cache": False}},
    ],
)
def test_a_student_of_fewer_layers_learns(
    make_decoder: Callable[..., Path],
    pico_llama: Path,
    pico_text: Path,
    tmp_path: Path,
    options: dict[str, Any],
) -> None:
    student = make_decoder(tmp_path / "s", num_hidden_layers=2)
    before = stage(student, pico_llama, tmp_path / "w", pico_text)
    result = Distill(**options | {"training": LEARN | options.get("training", {})}).apply(before)
    losses = losses_of(result)
    assert min(losses) < losses[0]  # the start is kept where nothing is better
    assert result.details["measure"] == (" + ".join(options["losses"]) if options else "kl")
    assert (tmp_path / "w" / "teacher").exists() == options.get("training", {}).get("cache", True)


@pytest.mark.parametrize("losses", [{}, {"cosine": 1.0}, {"embedding": 1.0, "hidden": 0.5}])
def test_an_encoder_learns_from_embeddings_and_states(
    make_encoder: Callable[..., Path],
    pico_bert: Path,
    pico_text: Path,
    tmp_path: Path,
    losses: dict[str, float],
) -> None:
    teacher = tmp_path / "t"
    shutil.copytree(pico_bert, teacher)
    write_json(
        teacher / "modules.json", [{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "p"}]
    )
    (teacher / "p").mkdir()
    write_json(teacher / "p" / "config.json", {"pooling_mode_mean_tokens": True})
    student = make_encoder(tmp_path / "s", num_hidden_layers=1)
    result = Distill(training=LEARN, losses=losses).apply(stage(student, teacher, tmp_path / "w", pico_text))
    # Over six draws of the weights the ratio is 0.28, with a standard deviation of 0.04, or less.
    assert min(losses_of(result)) < 0.8 * losses_of(result)[0]


def test_a_narrower_student_of_a_recipe_learns_and_twice_to_the_same_bytes(
    pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.yaml"
    # At a rate of 0.01 most draws of the weights never come nearer.
    learn = {"pass": "distill", **LEARN, "learning_rate": 0.001}
    passes = [{"pass": "ffn", "keep": 0.5}, learn]
    recipe.write_text(yaml.safe_dump({"name": "narrow", "passes": passes}))
    made = [
        compress_model(
            str(pico_llama),
            recipe=str(recipe),
            output=tmp_path / name,
            calibration=str(pico_text),
            samples=24,
            length=32,
        )
        for name in ("a", "b")
    ]
    step = read_json(made[0] / "edgepress.json")["steps"][1]
    assert dict(step["details"]["held_out"])[step["details"]["kept"]] < step["details"]["held_out"][0][1]
    assert hash_tree(made[0]) == hash_tree(made[1])
    before, after = WeightSource.open(pico_llama).shapes, WeightSource.open(made[0]).shapes
    assert before != after and before.keys() == after.keys()


def test_blocks_are_compared_at_the_same_share_of_the_depth(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    anatomies = [
        WeightSource.open(make_decoder(tmp_path / str(count), num_hidden_layers=count)).anatomy
        for count in (2, 3, 6)
    ]
    two, three, six = anatomies
    layers = "model.layers."
    assert paired_blocks(two, six) == {f"{layers}0": f"{layers}2", f"{layers}1": f"{layers}5"}
    assert paired_blocks(three, six) == {f"{layers}{i}": f"{layers}{2 * i + 1}" for i in range(3)}
    assert paired_blocks(two, three) == {f"{layers}0": f"{layers}1", f"{layers}1": f"{layers}2"}
    assert paired_blocks(six, six) == {f"{layers}{i}": f"{layers}{i}" for i in range(6)}


def test_losses_that_a_model_does_not_have_are_refused(
    pico_llama: Path, pico_bert: Path, pico_text: Path, tmp_path: Path
) -> None:
    decoder = stage(pico_llama, pico_llama, tmp_path / "a", pico_text)
    with pytest.raises(TrainingError, match="cosine"):
        Distill(losses={"cosine": 1.0}).apply(decoder)
    with pytest.raises(TrainingError, match="do not divide"):
        Distill(losses={"relations": 1.0}, relation_heads=7).apply(decoder)
    encoder = stage(pico_bert, pico_bert, tmp_path / "b", pico_text)
    with pytest.raises(TrainingError, match="forward_kl"):
        Distill(losses={"forward_kl": 1.0}).apply(encoder)
    for weight in (-1.0, float("nan"), (1.0, -1.0), (1.0, 1.0, 1.0)):
        with pytest.raises(ValueError, match="losses"):
            Distill(losses={"forward_kl": weight})  # type: ignore[dict-item]


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_is_trained_from_scratch_with_its_embedding(
    make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path, tied: bool
) -> None:
    model = make_decoder(tmp_path / "m", "llama", tie_word_embeddings=tied)
    recipe = tmp_path / "recipe.yaml"
    learn = {**LEARN, "pass": "distill", "losses": {"cross_entropy": 1.0}, "embedding": True}
    recipe.write_text(yaml.safe_dump({"name": "scratch", "passes": [learn]}))
    path = compress_model(
        str(model),
        recipe=str(recipe),
        output=tmp_path / "o",
        calibration=str(pico_text),
        samples=24,
        length=32,
    )
    step = read_json(path / "edgepress.json")["steps"][0]
    losses = [loss for _, loss in step["details"]["held_out"]]
    # Over six draws of the weights the ratio is 0.75, with a standard deviation of 0.03.
    assert losses[-1] < 0.9 * losses[0]
    before, after = WeightSource.open(model), WeightSource.open(path)
    for name in [before.anatomy.embedding, *([] if tied else [str(before.anatomy.head)])]:
        assert not torch.equal(before.tensor(f"{name}.weight"), after.tensor(f"{name}.weight"))
    known = calibration(model, pico_text, "decoder")
    ids = known.batches[0].input_ids
    with torch.no_grad():
        found = load_model(path)(ids, use_cache=False).logits.log_softmax(-1)
        was = load_model(model)(ids, use_cache=False).logits.log_softmax(-1)
    told = [-one[:, :-1].gather(-1, ids[:, 1:, None]).mean() for one in (was, found)]
    # Over six draws of the weights the ratio is 0.66, with a standard deviation of 0.02.
    assert float(told[1]) < 0.9 * float(told[0])
