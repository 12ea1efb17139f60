"""``distill`` of encoder–decoders from end to end: students learn to write what the teacher writes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.passes.distill import Distill
from edgepress.compress.pipeline.block_shards import Masks
from edgepress.compress.pipeline.processes import Processes
from edgepress.compress.pipeline.stage import Stage
from edgepress.compress.text.calibration import calibration_from
from edgepress.compress.train.students.distill_students import shallow_source
from edgepress.errors import RecipeError, TrainingError
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json, write_json
from edgepress.runtime.text.tokenizer import Tokenizer
from edgepress.terminal.progress import Silent
from torch import Tensor

pytestmark = pytest.mark.chain


SAMPLES, LENGTH, WRITTEN = 48, 24, 8
LEARN: dict[str, Any] = {
    "pass": "distill",
    "beams": 2,
    "answer_tokens": WRITTEN,
    "batch_tokens": 64,
    "piece_tokens": 96,
    "learning_rate": 0.03,
    "epochs": 10,
    "precision": "float32",
}


def distilled(model: Path, folder: Path, text: Path, **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"name": "sequence", "embedding": None, "passes": [LEARN | options]}))
    return compress_model(
        str(model),
        recipe=str(recipe),
        output=folder / "o",
        calibration=str(text),
        samples=SAMPLES,
        length=LENGTH,
    )


def losses_of(path: Path) -> list[float]:
    step = read_json(path / "edgepress.json")["steps"][0]
    assert step["details"]["measure"] == "sequence"
    return [loss for _, loss in step["details"]["held_out"]]


def transformers_model(path: Path) -> Any:
    from transformers import AutoModelForSeq2SeqLM

    model, found = AutoModelForSeq2SeqLM.from_pretrained(path, output_loading_info=True)
    assert not any(found.values())
    return model.eval()


def sources(model: Path, text: Path) -> Tensor:
    ids = Tokenizer.open(model).encode_batch(text.read_text().split("\n\n")[:40], max_length=LENGTH)
    return torch.tensor(ids)


def answers(model: Any, ids: Tensor) -> Tensor:
    written: Tensor = model.generate(input_ids=ids, max_new_tokens=WRITTEN, max_length=None, do_sample=False)
    return torch.nn.functional.pad(written, (0, 1 + WRITTEN - written.shape[1]), value=-1)[:, 1:]


def test_a_cut_student_writes_more_like_its_teacher(pico_t5: Path, pico_text: Path, tmp_path: Path) -> None:
    path = distilled(pico_t5, tmp_path / "a", pico_text, student_layers=[2, 1])
    losses = losses_of(path)
    # Over six draws of the weights the ratio is 0.56, with a standard deviation of 0.11.
    assert min(losses) < 0.9 * losses[0]
    anatomy = WeightSource.open(path).anatomy
    assert anatomy.layers() == (2, 1)
    config = read_json(path / "config.json")
    assert config == read_json(pico_t5 / "config.json") | {"num_layers": 2, "num_decoder_layers": 1}
    student, ids = transformers_model(path), sources(pico_t5, pico_text)
    before = shallow_source(WeightSource.open(pico_t5), (2, 1), tmp_path)
    wanted = answers(transformers_model(pico_t5), ids)
    agreed = [
        float((answers(model, ids) == wanted).float().mean())
        for model in (transformers_model(before.reader.path), student)
    ]
    assert agreed[1] > agreed[0]
    with torch.no_grad():
        mine = load_model(path)(input_ids=ids, decoder_input_ids=ids).logits
        assert torch.equal(mine, student(input_ids=ids, decoder_input_ids=ids).logits)
    again = distilled(pico_t5, tmp_path / "b", pico_text, student_layers=[2, 1])
    assert hash_tree(again) == hash_tree(path)


@pytest.mark.parametrize("own_head", [pytest.param(False, marks=pytest.mark.slow), True])
def test_tables_learn_with_the_embedding_and_stay_without(
    own_head: bool, make_encoder_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path
) -> None:
    model = make_encoder_decoder(tmp_path / "m", own_head=own_head)
    before = WeightSource.open(model)
    names = [before.anatomy.embedding, *before.anatomy.position_biases, *(["lm_head"] if own_head else [])]
    for learns in (False, True):
        options = {"student_layers": [2, 1], "embedding": learns, "checkpointing": learns, "epochs": 4}
        options["learning_rate"] = 0.01  # at 0.03 some draws of the weights never come nearer
        path = distilled(model, tmp_path / str(learns), pico_text, **options)
        after, losses = WeightSource.open(path), losses_of(path)
        assert min(losses) < losses[0]  # the start is kept where nothing is better
        for name in names:
            kept = torch.equal(before.tensor(f"{name}.weight"), after.tensor(f"{name}.weight"))
            assert kept != learns, name
        assert ("lm_head.weight" in after.shapes) == own_head
        assert "encoder.embed_tokens.weight" not in after.shapes
        ids = sources(model, pico_text)
        with torch.no_grad():
            expected = transformers_model(path)(input_ids=ids, decoder_input_ids=ids).logits
            assert torch.equal(load_model(path)(input_ids=ids, decoder_input_ids=ids).logits, expected)


def test_the_teachers_own_shape_gains_nothing_from_itself(
    pico_t5: Path, pico_text: Path, tmp_path: Path
) -> None:
    losses = losses_of(distilled(pico_t5, tmp_path / "a", pico_text, epochs=1, beams=1))
    cut = losses_of(distilled(pico_t5, tmp_path / "b", pico_text, epochs=1, beams=1, student_layers=[1, 1]))
    assert losses[0] < cut[0]


def test_a_config_becomes_a_student(pico_t5: Path, pico_text: Path, tmp_path: Path) -> None:
    shape = {"d_model": 16, "d_ff": 48, "num_layers": 1, "num_decoder_layers": 2, "num_heads": 2}
    write_json(tmp_path / "config.json", read_json(pico_t5 / "config.json") | shape)
    options = {"student": str(tmp_path / "config.json"), "embedding": True}
    path = distilled(pico_t5, tmp_path / "a", pico_text, **options)
    losses, anatomy = losses_of(path), WeightSource.open(path).anatomy
    # Over six draws of the weights the ratio is 0.33, with a standard deviation of 0.12.
    assert min(losses) < 0.9 * losses[0]
    assert (anatomy.layers(), anatomy.hidden_size) == ((1, 2), 16)
    assert transformers_model(path).config.d_ff == 48


def test_the_plan_counts_what_is_left(pico_t5: Path, pico_text: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    for layers, share in (([3, 2], 1.0), ([1, 2], None)):
        recipe.write_text(yaml.safe_dump({"name": "r", "passes": [LEARN | {"student_layers": layers}]}))
        plan = plan_model(str(pico_t5), recipe=str(recipe), calibration=str(pico_text), samples=16, length=16)
        step, blocks = plan.steps[0], WeightSource.open(pico_t5).anatomy.blocks
        gone = sum(4 * one.out_features * one.in_features for block in blocks[1:3] for one in block.linears())
        assert step.bytes_before - step.bytes_after == (0 if share else gone)
    recipe.write_text(yaml.safe_dump({"name": "r", "passes": [LEARN | {"student_layers": [4, 2]}]}))
    with pytest.raises(RecipeError, match=r"encoder and decoder have \[3, 2\]"):
        plan_model(str(pico_t5), recipe=str(recipe))
    both = LEARN | {"student_layers": [1, 1], "student": "x"}
    recipe.write_text(yaml.safe_dump({"name": "r", "passes": [both]}))
    with pytest.raises(RecipeError, match="leave out student_layers"):
        plan_model(str(pico_t5), recipe=str(recipe))


def stage_of(student: Path, teacher: Path, folder: Path, text: Path) -> Stage:
    source = WeightSource.open(student)
    known = calibration_from(
        str(text), Tokenizer.open(teacher), kind=source.anatomy.kind, samples=24, length=LENGTH
    )
    return Stage(source, WeightSource.open(teacher), folder, known, Masks(), torch.device("cpu"), Silent())


def test_what_such_models_do_not_have_is_refused(
    pico_t5: Path, pico_llama: Path, pico_bert: Path, pico_text: Path, tmp_path: Path
) -> None:
    stage = stage_of(pico_t5, pico_t5, tmp_path, pico_text)
    for loss in ("cross_entropy", "states", "cosine"):
        with pytest.raises(TrainingError, match=f"{loss} is not one of an encoder–decoder") as refused:
            Distill(losses={loss: 1.0}).apply(stage)  # type: ignore[dict-item]
        assert "sequence" in refused.value.fix
    for path, kind in ((pico_llama, "a decoder"), (pico_bert, "an encoder")):
        with pytest.raises(TrainingError, match=f"sequence is not one of {kind}"):
            Distill(losses={"sequence": 1.0}).apply(stage_of(path, path, tmp_path, pico_text))
    with pytest.raises(TrainingError, match=r"on_policy is for decoders, .* an encoder–decoder"):
        Distill(on_policy=0.5).apply(stage)
    with pytest.raises(TrainingError, match="the student is a decoder, the teacher an encoder–decoder"):
        Distill().apply(stage_of(pico_llama, pico_t5, tmp_path, pico_text))
    spread = Processes(0, 2, sharded=True)
    with pytest.raises(TrainingError, match="FSDP"):
        Distill().apply(replace(stage, processes=spread))
    assert not any(tmp_path.iterdir())


def test_a_student_that_lacks_tokens_is_refused(
    make_encoder_decoder: Callable[..., Path], pico_t5: Path, pico_text: Path, tmp_path: Path
) -> None:
    shape = read_json(pico_t5 / "config.json")
    write_json(tmp_path / "config.json", shape | {"vocab_size": shape["vocab_size"] - 1})
    with pytest.raises(TrainingError, match="cannot learn from this teacher"):
        distilled(pico_t5, tmp_path / "a", pico_text, student=str(tmp_path / "config.json"))
