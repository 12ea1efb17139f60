"""Students of distill: of their own, of fewer layers, and the token ids that two models share."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.job import CalibrationChoice, Job
from edgepress.compress.measure.reading import LAST
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.train.losses.logit_terms import LogitDivergence
from edgepress.compress.train.students.distill_students import (
    evenly_spaced,
    shallow_anatomy,
    shallow_source,
    shared_ids,
    student_anatomy,
    student_source,
)
from edgepress.errors import EdgepressError, RecipeError, TrainingError
from edgepress.export.api import export_bundle
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json, write_json
from edgepress.terminal.progress import Silent
from torch import nn

LEARN: dict[str, Any] = {
    "pass": "distill",
    "batch_tokens": 64,
    "piece_tokens": 64,
    "learning_rate": 0.02,
    "epochs": 3,
    "precision": "float32",
}


def distilled(model: Path, folder: Path, text: Path, *passes: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"name": "own", "passes": list(passes)}))
    return compress_model(
        str(model), recipe=str(recipe), output=folder / "o", calibration=str(text), samples=24, length=32
    )


def smaller_config(model: Path, folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    config = read_json(model / "config.json") | {"hidden_size": 32, "num_hidden_layers": 2} | changes
    write_json(folder / "config.json", config)
    return folder / "config.json"


@pytest.mark.chain
def test_a_config_becomes_a_student_that_learns_and_exports(
    pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    config = smaller_config(pico_llama, tmp_path, vocab_size=352)  # padded rows, which are no tokens
    learn = {**LEARN, "student": str(config), "embedding": True, "losses": {"forward_kl": 1.0, "hidden": 0.1}}
    learn["epochs"] = 8
    path = distilled(pico_llama, tmp_path / "a", pico_text, learn)
    step = read_json(path / "edgepress.json")["steps"][0]
    held_out = step["details"]["held_out"]
    assert min(loss for _, loss in held_out) < held_out[0][1]  # the start is kept where nothing is better
    anatomy = WeightSource.open(path).anatomy
    assert (anatomy.hidden_size, len(anatomy.blocks), anatomy.vocab_size) == (32, 2, 352)
    assert anatomy == student_anatomy(config)
    assert hash_tree(distilled(pico_llama, tmp_path / "b", pico_text, learn)) == hash_tree(path)
    assert export_bundle(str(path), output=tmp_path / "bundle").is_dir()


@pytest.mark.chain
def test_a_checkpoint_is_a_student_and_other_passes_follow(
    make_decoder: Callable[..., Path], pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    student = make_decoder(tmp_path / "s", num_hidden_layers=1)
    learn = {**LEARN, "student": str(student)}
    path = distilled(pico_llama, tmp_path / "a", pico_text, learn, {"pass": "rtn", "scheme": "W4A16-g32"})
    source = WeightSource.open(path)
    assert len(source.anatomy.blocks) == 1 and len(source.schemes) == 7
    recipe = str(tmp_path / "a" / "recipe.yaml")
    plan = plan_model(str(pico_llama), recipe=recipe, calibration=str(pico_text), samples=24, length=32)
    assert plan.steps[1].layers == 7
    with pytest.raises(TrainingError, match="put distill first"):
        distilled(pico_llama, tmp_path / "b", pico_text, {"pass": "magnitude", "sparsity": 0.5}, learn)


@pytest.mark.chain
def test_a_student_that_changed_is_other_work(
    make_decoder: Callable[..., Path], pico_llama: Path, tmp_path: Path
) -> None:
    recipe, keys = tmp_path / "r.yaml", []
    recipe.write_text(yaml.safe_dump({"name": "own", "passes": [{**LEARN, "student": str(tmp_path / "s")}]}))
    for eps in (1e-5, 1e-3):
        make_decoder(tmp_path / "s", num_hidden_layers=1, rms_norm_eps=eps)
        job = Job(str(pico_llama), str(recipe), None, None, CalibrationChoice(), Silent())
        keys.append(job.key("model", None, "cpu", job.reads()))
    assert keys[0] != keys[1]


def test_what_is_not_there_is_said(pico_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no student"):
        student_source(tmp_path / "none.json", WeightSource.open(pico_llama), tmp_path, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("hello", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[1, 2]", "not a JSON object"),
        ("{}", "no model_type"),
        ('{"model_type": "abacus"}', "'abacus'"),
        ('{"model_type": "llama", "auto_map": {"AutoConfig": "x.y"}}', "auto_map"),
        ('{"model_type": "llama", "hidden_size": 1099511627776}', "hidden_size"),
        ('{"model_type": "llama", "hidden_size": 8, "num_attention_heads": 3}', "makes no model"),
    ],
)
def test_a_file_that_describes_no_student_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "student.json").write_text(text)
    with pytest.raises(EdgepressError) as caught:
        student_anatomy(tmp_path / "student.json")
    assert message in str(caught.value) and "student.json" in str(caught.value)
    assert caught.value.exit_code in (2, 5)


def test_vocabularies_may_go_on_but_not_differ(pico_llama: Path, tmp_path: Path) -> None:
    count = len(read_json(pico_llama / "tokenizer.json")["model"]["vocab"])
    for name in ("longer", "other", "split", "merged"):
        shutil.copytree(pico_llama, tmp_path / name)
        content = read_json(tmp_path / name / "tokenizer.json")
        if name == "longer":
            content["model"]["vocab"]["<new>"] = count
        elif name == "other":
            tokens = sorted(content["model"]["vocab"], key=content["model"]["vocab"].get)
            first, second = tokens[300], tokens[301]
            content["model"]["vocab"] |= {first: 301, second: 300}
        elif name == "split":
            content["pre_tokenizer"] = {"type": "Whitespace"}
        else:
            content["model"]["merges"] = content["model"]["merges"][:-1]
        write_json(tmp_path / name / "tokenizer.json", content)
    assert shared_ids(pico_llama, pico_llama) == shared_ids(tmp_path / "longer", pico_llama) == count
    for name, why in (("other", "id 300"), ("split", "pre_tokenizer"), ("merged", "merges")):
        with pytest.raises(TrainingError, match="different vocabularies") as refused:
            shared_ids(tmp_path / name, pico_llama)
        assert why in str(refused.value.why)


def test_padded_rows_have_no_part_in_a_distribution(pico_llama: Path) -> None:
    model, rows = load_model(pico_llama), torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    term = LogitDivergence("forward_kl", 20, None, vocabulary=100)
    with torch.no_grad():
        answers = term.answers(model, {LAST: rows}, None, slice(0, 4))  # type: ignore[arg-type]
        logits = model.get_output_embeddings()(rows)[:, :100]
    assert int(answers["ids"].max()) < 100
    expected = torch.log_softmax(logits, -1).topk(20).values
    torch.testing.assert_close(answers["log_probabilities"].sort(descending=True).values, expected)


def test_layers_are_spread_as_in_the_paper() -> None:
    assert evenly_spaced(12, 6) == [0, 2, 4, 7, 9, 11]
    assert evenly_spaced(12, 3) == [0, 6, 11]
    assert evenly_spaced(12, 1) == [0]
    assert evenly_spaced(6, 3) == [0, 2, 5]
    assert all(evenly_spaced(count, count) == list(range(count)) for count in range(1, 30))
    for count in range(1, 30):
        for kept in range(1, count):
            chosen = evenly_spaced(count, kept)
            assert len(set(chosen)) == kept and chosen == sorted(chosen) and chosen[0] == 0


@pytest.mark.chain
@pytest.mark.parametrize("own_head", [False, True])
def test_the_student_is_the_teacher_without_the_other_layers(
    own_head: bool, make_encoder_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForSeq2SeqLM

    path = make_encoder_decoder(tmp_path / "m", own_head=own_head, num_layers=4, num_decoder_layers=3)
    teacher = WeightSource.open(path)
    student = shallow_source(teacher, (2, 2), tmp_path)
    assert student.anatomy == shallow_anatomy(teacher.anatomy, (2, 2))
    whole = load_model(path)
    for stack, chosen in ((whole.encoder, (0, 3)), (whole.decoder, (0, 2))):
        stack.block = nn.ModuleList([stack.block[index] for index in chosen])
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = whole(input_ids=ids, decoder_input_ids=ids, use_cache=False).logits
        for model in (
            load_model(student.reader.path),
            AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "student"),
        ):
            assert (model.config.num_layers, model.config.num_decoder_layers) == (2, 2)
            assert torch.equal(model(input_ids=ids, decoder_input_ids=ids).logits, expected)
    assert (tmp_path / "student" / "tokenizer.json").is_file()


def test_what_cannot_be_cut_is_refused(pico_t5: Path, pico_llama: Path, pico_bert: Path) -> None:
    with pytest.raises(RecipeError, match=r"\[3, 2\]"):
        shallow_anatomy(WeightSource.open(pico_t5).anatomy, (3, 3))
    for path in (pico_llama, pico_bert):
        with pytest.raises(RecipeError, match="student_layers are those of an encoder–decoder"):
            shallow_anatomy(WeightSource.open(path).anatomy, (1, 1))
