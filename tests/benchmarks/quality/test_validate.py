"""Validation end to end on pico models: the numbers, the record, the table, the gates and the verb."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from edgepress.benchmarks.quality import greedy_text, quality_table
from edgepress.benchmarks.quality.acceptance import Gate, failure
from edgepress.benchmarks.quality.greedy_text import verdict
from edgepress.benchmarks.quality.metrics import METRICS
from edgepress.benchmarks.quality.scores import Scores
from edgepress.benchmarks.quality.validate import plan_validation, validate_bundle
from edgepress.benchmarks.records import record
from edgepress.benchmarks.records.subjects import open_subject
from edgepress.cli.entry import run
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import GateFailed, InputError
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.chain


WINDOWS = {"windows": 4, "length": 24, "threads": 1}


@pytest.fixture(autouse=True)
def short_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greedy_text, "NEW_TOKENS", 16)


def noisy(source: Path, target: Path, scale: float) -> Path:
    """A copy of a checkpoint with noise on its matrices."""
    shutil.copytree(source, target)
    file = target / "model.safetensors"
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: tensor + scale * tensor.std() * torch.randn(tensor.shape, generator=generator)
        if tensor.ndim == 2
        else tensor
        for name, tensor in load_file(file).items()
    }
    save_file(tensors, file, metadata={"format": "pt"})
    return target


def with_pooling(source: Path, target: Path) -> Path:
    """A copy of an encoder that says how it pools."""
    shutil.copytree(source, target)
    modules = [
        {"type": f"sentence_transformers.models.{kind}", "path": path}
        for kind, path in (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
    ]
    (target / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (target / "1_Pooling").mkdir()
    (target / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}', encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def worse(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noisy(pico_llama, tmp_path_factory.mktemp("noise") / "worse", 0.1)


@pytest.fixture(scope="module")
def encoder(pico_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_pooling(pico_bert, tmp_path_factory.mktemp("pooled") / "encoder")


def test_decoder_numbers_equal_those_of_transformers(pico_llama: Path, worse: Path, pico_text: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    line = validate_bundle(worse, pico_llama, text=pico_text, placement="first", **WINDOWS)
    text = "\n\n".join(pico_text.read_text(encoding="utf-8").split("\n\n"))
    ids = torch.tensor(AutoTokenizer.from_pretrained(pico_llama)(text)["input_ids"][: 4 * 24]).reshape(4, 24)
    model = AutoModelForCausalLM.from_pretrained(worse, dtype=torch.float32)
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss.item()
    assert line.metrics["perplexity"].value == pytest.approx(math.exp(loss), rel=1e-4)
    assert line.workload["predictions"] == 4 * 23
    assert line.workload["kind"] == "quality"


def test_damage_grows_with_noise(pico_llama: Path, worse: Path, pico_text: Path, tmp_path: Path) -> None:
    slight = noisy(pico_llama, tmp_path / "slight", 0.01)
    small = validate_bundle(slight, pico_llama, text=pico_text, **WINDOWS)
    large = validate_bundle(worse, pico_llama, text=pico_text, **WINDOWS)
    assert 0 < small.metrics["kl"].value < large.metrics["kl"].value  # type: ignore[operator]
    assert small.metrics["top1_agreement"].value > large.metrics["top1_agreement"].value  # type: ignore[operator]
    assert small.workload == large.workload


def test_record_holds_both_lines_once(pico_llama: Path, worse: Path, pico_text: Path, tmp_path: Path) -> None:
    path = tmp_path / "runs" / "x.jsonl"
    line = validate_bundle(worse, pico_llama, text=pico_text, record=path, **WINDOWS)
    original, subject = record.read([path])
    assert subject == line
    assert original.subject == line.baseline
    assert original.workload == line.workload
    assert original.metrics["kl"].value == 0
    assert line.compare is not None
    assert line.compare["original"]["perplexity"]["value"] == original.metrics["perplexity"].value
    difference = line.metrics["perplexity"].value - original.metrics["perplexity"].value  # type: ignore[operator]
    assert line.compare["delta"]["perplexity"]["value"] == pytest.approx(difference)
    assert len(line.samples["kl"]) == 4


def test_same_input_same_numbers(pico_llama: Path, worse: Path, pico_text: Path) -> None:
    first, again = (validate_bundle(worse, pico_llama, text=pico_text, **WINDOWS) for _ in range(2))
    assert first.metrics == again.metrics
    assert first.compare == again.compare


def test_original_against_itself_is_perfect(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    line = validate_bundle(pico_llama, pico_llama, text=pico_text, record=path, **WINDOWS)
    assert (line.metrics["kl"].value, line.metrics["top1_agreement"].value) == (0, 1)
    assert len(record.read([path])) == 1


def test_subject_says_what_it_is(pico_llama: Path) -> None:
    subject = open_subject(pico_llama, threads=1)
    described = subject.describe()
    tensors = load_file(pico_llama / "model.safetensors")
    assert (described.kind, described.format, described.scheme) == ("decoder", "hf", "fp32")
    assert described.params == sum(tensor.numel() for tensor in tensors.values())
    assert described.weight_bytes == 4 * described.params
    assert described.disk_bytes == sum(file.stat().st_size for file in pico_llama.iterdir())
    with pytest.raises(InputError, match="not embeddings"):
        subject.embeddings(["x"])


def test_encoder_is_measured_on_sentences_and_pairs(encoder: Path, pico_text: Path, tmp_path: Path) -> None:
    worse = noisy(encoder, tmp_path / "worse", 0.5)
    line = validate_bundle(worse, encoder, text=pico_text, sentences=20, threads=1)
    words = {"spearman_wordsim353", "spearman_simlex999"}
    passages = {"retrieval_at_1", "reciprocal_rank", "neighbour_overlap", "spearman_sentences"}
    assert set(line.metrics) == {"cosine", *words, *passages}
    assert 0.3 < line.metrics["cosine"].value < 0.9999  # type: ignore[operator]
    assert (line.metrics["cosine"].n, line.metrics["spearman_simlex999"].n) == (20, 999)
    assert line.compare is not None
    assert line.compare["original"]["cosine"]["value"] == pytest.approx(1)
    first, second = (answer.splitlines() for answer in (line.answers[0].original, line.answers[0].compressed))
    assert len(first) == len(second) == 3 and first != second
    cosines = [float(neighbour[:4]) for neighbour in first]
    assert cosines == sorted(cosines, reverse=True) and line.answers[0].prompt.endswith("?")


def test_embeddings_do_not_depend_on_their_batch(encoder: Path) -> None:
    subject = open_subject(encoder, threads=1)
    texts = [
        "the river ran under old stone bridges",
        "boats",
        "the",
        "merchants counted copper coins and " * 9,
    ]
    together = subject.embeddings(texts)
    alone = np.concatenate([subject.embeddings([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    with pytest.raises(InputError, match="not logits"):
        subject.logits(np.zeros((1, 3), np.int64))


def test_models_that_do_not_belong_together_are_refused(
    pico_llama: Path, encoder: Path, pico_text: Path, tmp_path: Path
) -> None:
    for measure in (plan_validation, validate_bundle):
        with pytest.raises(InputError, match="'decoder' is compared with one of kind 'encoder'"):
            measure(pico_llama, encoder, text=pico_text, windows=2, length=32)
    other = tmp_path / "other"
    shutil.copytree(pico_llama, other)
    content = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["merges"] = content["model"]["merges"][:5]
    (other / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    for measure in (plan_validation, validate_bundle):
        with pytest.raises(InputError, match="different tokens"):
            measure(other, pico_llama, text=pico_text, windows=4, length=24)
        with pytest.raises(InputError, match="the models take 512"):
            measure(pico_llama, pico_llama, text=pico_text, windows=1, length=513)


def test_a_plan_refuses_a_text_of_fewer_windows_as_the_run_does(pico_llama: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("The river rose in the night, and by morning it was over the road.\n", encoding="utf-8")
    said = []
    for measure in (plan_validation, validate_bundle):
        with pytest.raises(InputError, match="16 windows of 64 need 1024") as refused:
            measure(pico_llama, pico_llama, text=short, windows=16, length=64)
        said.append(str(refused.value))
    assert said[0] == said[1]


def test_a_refusal_comes_before_weights_are_loaded(
    pico_llama: Path, pico_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    shutil.copytree(pico_llama, other)
    content = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["merges"] = content["model"]["merges"][:5]
    (other / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")

    def read(*_: object, **__: object) -> None:
        pytest.fail("a weight was loaded")

    monkeypatch.setattr(WeightSource, "stored", read)
    with pytest.raises(InputError, match="different tokens"):
        validate_bundle(other, pico_llama, text=pico_text, windows=4, length=24)


def test_a_model_that_loops_where_its_original_does_not_has_lost_its_text(
    pico_llama: Path, worse: Path, pico_text: Path
) -> None:
    line = validate_bundle(worse, pico_llama, text=pico_text, **WINDOWS)
    assert line.compare is not None
    found, loops = line.compare["text"], line.metrics["loops"].value
    assert len(line.answers) == 3 and line.answers[0].original != line.answers[0].compressed
    assert (found["loops"], found["prompts"]) == (loops, 20)
    assert found["original"] == line.compare["original"]["loops"]["value"]
    assert line.compare["delta"]["reply_nats"]["value"] > 0  # greedy replies of its own are the likeliest

    def replies(looped: int) -> np.ndarray:
        return (np.arange(20) < looped).astype(np.float64)[:, None]

    def said(mine: int, theirs: int) -> str:
        found = verdict({"loops": Scores(METRICS["loops"], replies(mine), replies(theirs))})
        assert found is not None
        return str(found["verdict"])

    strange = replies(0) + 9
    scores = {"loops": replies(0), "reply_nats": strange}
    found = verdict({name: Scores(METRICS["loops"], mine, replies(0)) for name, mine in scores.items()})
    assert found is not None and found["verdict"] == "strays"
    assert [said(20, 0), said(12, 4), said(2, 0), said(10, 9), said(0, 12)] == [
        *("loops", "loops", "keeps", "keeps", "keeps")
    ]


def test_table_shows_original_compressed_and_difference(
    pico_llama: Path, worse: Path, pico_text: Path
) -> None:
    line = validate_bundle(worse, pico_llama, text=pico_text, **WINDOWS)
    rows = {row[0]: row for row in quality_table.rows(line)}
    assert list(rows)[:4] == ["perplexity", "bits per byte", "KL divergence", "top-1 agreement"]
    assert list(rows)[4:] == [
        "replies that end in a loop",
        "repeated in replies (4-grams)",
        "distinct in replies (2-grams)",
        "replies in the original",
    ]
    assert float(rows["perplexity"][3]) == pytest.approx(line.metrics["perplexity"].value, abs=0.01)
    difference = float(rows["perplexity"][3]) - float(rows["perplexity"][2])
    assert float(rows["perplexity"][4]) == pytest.approx(difference, abs=0.011)
    assert rows["KL divergence"][2] == ""


def test_gates(pico_llama: Path, worse: Path, pico_text: Path) -> None:
    line = validate_bundle(worse, pico_llama, text=pico_text, **WINDOWS)
    kl = line.metrics["kl"].value
    assert kl is not None
    assert failure([Gate("kl", "max", kl).check(line), Gate("top1_agreement", "min", 0).check(line)]) is None
    checked = [Gate("kl", "max", kl / 2).check(line), Gate("top1_agreement", "min", 1).check(line)]
    assert isinstance(failed := failure(checked), GateFailed)
    assert "kl" in failed.what and "top1_agreement" in failed.what
    with pytest.raises(InputError, match="no cosine"):
        Gate("cosine", "min", 0.5).check(line)


def verb(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run(["validate", *map(str, arguments), "--windows", "3", "--length", "16", "--threads", "1"])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_verb_prints_a_table_and_records(
    pico_llama: Path,
    worse: Path,
    pico_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = verb(capsys, worse, "--against", pico_llama, "--text", pico_text, "--placement", "first")
    assert code == 0
    assert "KL divergence" in out and "95 % interval" in out
    assert "validating" in err
    line = record.read([tmp_path / "runs" / "worse.jsonl"])[-1]
    assert line.command.startswith(f"edgepress validate {worse} --against {pico_llama}")
    assert "--placement first" in line.command and "--field" not in line.command


def test_verb_json_is_one_document_even_when_a_gate_fails(
    pico_llama: Path, worse: Path, pico_text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = (worse, "--against", pico_llama, "--text", pico_text, "--record", tmp_path / "r.jsonl")
    code, out, _ = verb(capsys, *common, "--json", "-q", "--max-kl", "1e-9", "--min-top1", "0")
    document = json.loads(out)
    assert code == 1
    assert [gate["passed"] for gate in document["gates"]] == [False, True]
    assert document["metrics"]["kl"]["value"] > 1e-9
    code, out, _ = verb(capsys, *common, "-q", "--max-kl", "1e-9")
    assert code == 1
    assert "KL divergence" in out and "E-GATE" not in out
    code, out, _ = verb(capsys, *common, "--json", "-q", "--max-kl", "100")
    assert code == 0
    assert json.loads(out)["gates"][0]["passed"]


def test_verb_names_an_unknown_model(pico_llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = verb(capsys, pico_llama, "--against", "smolm2", "--json")
    assert code == 2
    assert "smollm2" in json.loads(out)["error"]["fix"]


def test_verb_names_the_group_that_is_harmed_and_a_gate_holds_groups(
    pico_llama: Path, worse: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["river", "stone", "cloud", "forest", "window", "garden", "winter", "bridge"]
    rows = [
        {"text": " ".join(words[(number * step) % 8] for number in range(1, 60)) + f" {step}", "group": group}
        for step in range(12)
        for group in ("one", "two")
    ]
    text = tmp_path / "grouped.jsonl"
    text.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    common = (worse, "--against", pico_llama, "--text", text, "--record", tmp_path / "r.jsonl")
    code, out, _ = verb(capsys, *common, "--slices", "tasks,professions", "-q")
    assert code == 0
    assert "profession" in out and "24 items" in out and "tests" in out
    code, out, _ = verb(capsys, *common, "--slices", "tasks", "--json", "-q", "--max-flips", "0.1%")
    document = json.loads(out)
    assert code == 1 and document["gates"][0]["metric"] == "group_flips"
    (slice_,) = document["compare"]["slices"]["slices"]
    assert {group["group"] for group in slice_["groups"]} == {"one", "two"} >= {document["gates"][0]["group"]}
    code, _, err = verb(capsys, *common, "--slices", "task")
    assert code == 2 and "did you mean" in err
