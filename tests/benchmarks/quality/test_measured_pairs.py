"""Encoder–decoders under validation, on pairs of texts and on inputs alone, beside plain transformers."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.benchmarks.quality import measured_pairs
from edgepress.benchmarks.quality.acceptance import Gate
from edgepress.benchmarks.quality.measured_pairs import OF_ORIGINAL, chosen_pairs
from edgepress.benchmarks.quality.validate import plan_validation, validate_bundle
from edgepress.benchmarks.records.conditions import describe
from edgepress.benchmarks.records.record import Measurement
from edgepress.benchmarks.records.subjects import open_subject
from edgepress.cli.entry import run
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.text.corpus import read_corpus
from edgepress.errors import CalibrationError, InputError
from edgepress.export.api import export_bundle
from edgepress.runtime.text.greedy_loops import ends_in_loop
from edgepress.runtime.text.tokenizer import Tokenizer
from transformers import AutoModelForSeq2SeqLM

from ...conftest import WORDS

pytestmark = pytest.mark.chain

FAMILIES = ("t5", "bart")


@pytest.fixture(autouse=True)
def short_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_pairs, "NEW_TOKENS", 16)


def text(generator: np.random.Generator, longest: int) -> str:
    return " ".join(generator.choice(WORDS, generator.integers(1, longest)))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine pairs of unequal lengths."""
    generator = np.random.default_rng(5)
    rows = [{"input": f"{text(generator, 40)} {n}", "output": text(generator, 30)} for n in range(9)]
    return write(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", rows)


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


@pytest.fixture(scope="module", params=FAMILIES)
def models(
    request: pytest.FixtureRequest,
    make_encoder_decoder: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A model, what 3 bits leave of it, and that as a bundle."""
    root = tmp_path_factory.mktemp(request.param)
    make_encoder_decoder(root / "model", request.param)
    compress_model(str(root / "model"), scheme="W3A16", group_size=16, output=root / "out")
    export_bundle(root / "out", output=root / "bundle", validate=False)
    return root


def plain(path: Path) -> Any:
    """transformers' module, which loads what is not compressed by itself."""
    packed = (path / "edgepress.json").is_file()
    return load_model(path) if packed else AutoModelForSeq2SeqLM.from_pretrained(path).eval()


def log_probs(model: Any, read: str, written: str, tokenizer: Tokenizer) -> np.ndarray:
    """``[tokens, vocab]`` of all of ``written``."""
    labels = torch.tensor([tokenizer.encode(written)])
    with torch.no_grad():
        found = model(
            input_ids=torch.tensor([tokenizer.encode(read)]),
            decoder_input_ids=torch.cat([torch.tensor([[0]]), labels[:, :-1]], 1),
        )
    return np.asarray(found.logits[0].double().log_softmax(-1))


def by_hand(mine: Path, theirs: Path, rows: Sequence[tuple[str, str]]) -> dict[str, float]:
    """KL, top-1 agreement and perplexity over the tokens of all outputs."""
    tokenizer = Tokenizer.open(theirs)
    models = [plain(path) for path in (mine, theirs)]
    kl, same, nats = [], [], []
    for read, written in rows:
        ours, own = (log_probs(model, read, written, tokenizer) for model in models)
        kl += list((np.exp(own) * (own - ours)).sum(-1))
        same += list(ours.argmax(-1) == own.argmax(-1))
        nats += [-float(ours[place, token]) for place, token in enumerate(tokenizer.encode(written))]
    return {
        "kl": float(np.mean(kl)),
        "top1_agreement": float(np.mean(same)),
        "perplexity": float(np.exp(np.mean(nats))),
    }


def values(line: Measurement) -> dict[str, float | None]:
    return {name: line.metrics[name].value for name in ("kl", "top1_agreement", "perplexity")}


def rows_of(file: Path) -> list[tuple[str, str]]:
    return [(row["input"], row["output"]) for row in map(json.loads, file.read_text().splitlines())]


def test_outputs_are_compared_token_by_token(models: Path, pairs: Path, tmp_path: Path) -> None:
    record = tmp_path / "runs.jsonl"
    line = validate_bundle(models / "out", models / "model", text=pairs, record=record)
    want = by_hand(models / "out", models / "model", rows_of(pairs))
    assert values(line) == pytest.approx(want, rel=1e-4)
    tokenizer = Tokenizer.open(models / "model")
    tokens = sum(len(tokenizer.encode(written)) for _, written in rows_of(pairs))
    assert (line.workload["pairs"], line.workload["predictions"]) == (9, tokens)
    assert line.workload["outputs"] == "given" and line.metrics["same_replies"].n == 9
    assert line.protocol["interval"].startswith("percentile bootstrap over pairs")
    assert len(record.read_text().splitlines()) == 2
    own = line.compare["original"]["perplexity"]["value"]  # type: ignore[index]
    assert own == pytest.approx(by_hand(models / "model", models / "model", rows_of(pairs))["perplexity"])
    bundle = validate_bundle(models / "bundle", models / "model", text=pairs)
    assert values(bundle) == pytest.approx(values(line), rel=0.05)  # its table is rounded, too
    assert bundle.workload == line.workload


def replies_of(path: Path, inputs: Sequence[str]) -> list[list[int]]:
    """What transformers writes of each, alone and greedily, to the end with it."""
    model, tokenizer, found = plain(path), Tokenizer.open(path), []
    for one in inputs:
        ids = torch.tensor([tokenizer.encode(one)])
        row = model.generate(ids, max_new_tokens=16, do_sample=False)[0, 1:].tolist()
        found.append(row[: row.index(1) + 1] if 1 in row else row)
    return found


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six inputs, one of them with a blank line in it, and nothing of what is to be written."""
    generator = np.random.default_rng(6)
    rows = [{"text": f"{text(generator, 12)}\n\n{text(generator, 12)} {n}"} for n in range(6)]
    return write(tmp_path_factory.mktemp("inputs") / "inputs.jsonl", rows)


def test_without_outputs_the_original_writes_them(models: Path, inputs: Path) -> None:
    line = validate_bundle(models / "out", models / "model", text=inputs)
    assert line.workload["outputs"] == OF_ORIGINAL and line.workload["pairs"] == 6
    assert "perplexity" not in line.metrics and "bits_per_byte" not in line.metrics
    assert "6 inputs of inputs.jsonl, outputs are the original's greedy replies" in describe(line)
    given = [json.loads(row)["text"] for row in inputs.read_text().splitlines()]
    theirs, mine = (replies_of(models / name, given) for name in ("model", "out"))
    assert line.workload["predictions"] == sum(map(len, theirs))
    tokenizer = Tokenizer.open(models / "model")
    written = [[tokenizer.decode(ids) for ids in found] for found in (theirs, mine)]
    same = np.mean([one == other for one, other in zip(*written, strict=True)])
    assert line.metrics["same_replies"].value == pytest.approx(same)
    assert line.metrics["loops"].value == pytest.approx(np.mean([ends_in_loop(ids) for ids in mine]))
    ours, own = plain(models / "out"), plain(models / "model")
    divergence: list[float] = []
    for read, ids in zip(given, theirs, strict=True):
        fed = {"input_ids": torch.tensor([tokenizer.encode(read)])}
        fed["decoder_input_ids"] = torch.tensor([[0, *ids[:-1]]])
        with torch.no_grad():
            a, b = (model(**fed).logits[0].double().log_softmax(-1) for model in (ours, own))
        divergence += (b.exp() * (b - a)).sum(-1).tolist()
    assert line.metrics["kl"].value == pytest.approx(np.mean(divergence), rel=1e-4)
    with pytest.raises(InputError, match="no perplexity to hold") as found:
        Gate("perplexity", "max", 9).check(line)
    assert '"output"' in found.value.fix


@pytest.fixture(scope="module")
def rounded(pico_t5: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rounded") / "out"
    return compress_model(str(pico_t5), scheme="W3A16", group_size=16, output=out)


def test_the_verb_measures_and_gates(
    rounded: Path,
    pico_t5: Path,
    pairs: Path,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # where the run file goes
    words = ["validate", str(rounded), "--against", str(pico_t5), "--sentences", "4"]
    gates = ["--max-kl", "9", "--min-top1", "0", "--max-perplexity", "99"]
    assert run([*words, "--text", str(pairs), *gates, "--json"]) == 0
    assert [gate["passed"] for gate in json.loads(capsys.readouterr().out)["gates"]] == [True] * 3
    assert run([*words, "--text", str(pairs), "--max-kl", "0"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "4 pairs of pairs.jsonl" in shown and "same replies %" in shown
    assert run([*words, "--text", str(inputs), "--dry-run"]) == 0
    assert "does not say what is to be written" in " ".join(capsys.readouterr().err.split())


def test_a_model_is_itself(pico_t5: Path, pairs: Path) -> None:
    line = validate_bundle(pico_t5, pico_t5, text=pairs, length=8, sentences=5)
    assert (line.metrics["kl"].value, line.metrics["same_replies"].value) == (0, 1)
    tokenizer = Tokenizer.open(pico_t5)
    sizes = [[len(tokenizer.encode(one)) for one in row] for row in rows_of(pairs)[::2]]
    assert line.workload["cut_inputs"] == sum(size > 8 for size, _ in sizes)
    assert line.workload["cut_outputs"] == sum(size > 8 for _, size in sizes)
    assert line.workload["predictions"] == sum(min(size, 8) for _, size in sizes)
    assert line.compare["text"]["prompts"] == 5  # type: ignore[index]


def test_groups_of_pairs_and_tokens_of_outputs_are_sliced(
    rounded: Path, pico_t5: Path, pairs: Path, tmp_path: Path
) -> None:
    named = [
        {"input": read, "output": put, "group": "ab"[n % 2]} for n, (read, put) in enumerate(rows_of(pairs))
    ]
    file = write(tmp_path / "grouped.jsonl", named)
    line = validate_bundle(rounded, pico_t5, text=file, slices=["positions", "tasks"])
    positions, tasks = line.compare["slices"]["slices"]  # type: ignore[index]
    assert 0 < positions["items"] <= line.workload["predictions"]
    for group in tasks["groups"]:
        want = by_hand(rounded, pico_t5, rows_of(pairs)["ab".index(group["group"]) :: 2])
        assert group["kl_per_token"] == pytest.approx(want["kl"], rel=1e-3)
        assert group["flips"] == pytest.approx(1 - want["top1_agreement"])


def test_a_cut_vocabulary_is_compared_by_bytes(
    pico_t5: Path, pairs: Path, inputs: Path, tmp_path: Path
) -> None:
    few = write(tmp_path / "few.jsonl", [{"text": read, "target": put} for read, put in rows_of(pairs)[:2]])
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"passes: [{{pass: vocabulary, corpus: {few}}}]\nembedding: null\n")
    cut = compress_model(str(pico_t5), recipe=str(recipe), output=tmp_path / "cut")
    line = validate_bundle(cut, pico_t5, text=few, sentences=2)
    assert set(line.metrics) >= {"bits_per_byte", "same_replies", "loops"}
    assert "kl" not in line.metrics and "reply_nats" not in line.metrics
    alone = validate_bundle(cut, pico_t5, text=inputs, sentences=2)
    assert "bits_per_byte" not in alone.metrics and alone.metrics["same_replies"].n == 2
    with pytest.raises(InputError, match="other tokens"):
        validate_bundle(cut, pico_t5, text=inputs, sentences=2, replies=False)


def test_replies_are_greedy_whatever_the_settings_say(
    make_encoder_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_encoder_decoder(tmp_path / "m", "bart")
    inputs = [Tokenizer.open(model).encode(one) for one in ("the river", "a word and another word")]
    answering = open_subject(model).answering
    assert answering is not None
    want = answering.answers(inputs, 12)
    file = model / "generation_config.json"
    settings = json.loads(file.read_text()) if file.is_file() else {}
    beams = {"num_beams": 3, "no_repeat_ngram_size": 1, "min_length": 9, "repetition_penalty": 5.0}
    file.write_text(json.dumps(settings | beams))
    again = open_subject(model).answering
    assert again is not None and again.answers(inputs, 12) == want
    never = sorted({ids[0] for ids in want})
    forced = {"forced_bos_token_id": 7, "suppress_tokens": [want[0][1]]}
    file.write_text(json.dumps(settings | forced))
    assert never and open_subject(model).answering is not None
    found = open_subject(model).answering.answers(inputs, 12)  # type: ignore[union-attr]
    assert {ids[0] for ids in found} == {7}
    assert not any(want[0][1] in ids[1:] for ids in found)
    export_bundle(model, output=tmp_path / "b", validate=False)
    assert open_subject(tmp_path / "b").answering.answers(inputs, 12) == found  # type: ignore[union-attr]


def test_rows_say_input_and_output_in_several_words(tmp_path: Path) -> None:
    for names in (("input", "output"), ("text", "target"), ("text", "output"), ("messages", "target")):
        values = [[{"role": "user", "content": one}] if names[0] == "messages" else one for one in ("a", "b")]
        rows = [dict(zip(names, (value, "c"), strict=True)) for value in values]
        corpus = read_corpus(str(write(tmp_path / "p.jsonl", rows)), paired=True)
        found = chosen_pairs(corpus, count=9, placement="spread")
        assert (found.inputs, found.outputs) == (["a", "b"], ["c", "c"])
    rows = [{"body": "a", "output": "c"}, {"body": "b", "output": "d"}]
    corpus = read_corpus(str(write(tmp_path / "p.jsonl", rows)), field="body", paired=True)
    assert chosen_pairs(corpus, count=1, placement="first").outputs == ["c"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('{"input": "a", "output": 3}', "p.jsonl:2: the field 'output' is not what a model is to write"),
        ('{"input": "a", "output": " "}', "p.jsonl:2: the field 'output'"),
        ('{"text": "a", "target": ["b"]}', "p.jsonl:2: the field 'target'"),
        ('{"input": "a", "output": "b"', "p.jsonl:2 is not JSON"),
        ('["a", "b"]', "p.jsonl:2 is not a JSON object"),
        ('{"input": 5, "output": "b"}', "p.jsonl:2: the field 'input' is neither text nor"),
        ('{"question": "a", "output": "b"}', "p.jsonl:2 has no field 'text'"),
        ('{"input": "a"}', "1 of 2 rows of .* have no target"),
    ],
)
def test_broken_rows_are_named(row: str, words: str, pico_t5: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", [{"input": "the river", "output": "the sea"}, row])
    with pytest.raises(CalibrationError, match=words):
        plan_validation(pico_t5, pico_t5, text=file)


def test_what_cannot_be_compared_is_said(pico_t5: Path, pico_llama: Path, pairs: Path) -> None:
    with pytest.raises(InputError, match="encoder–decoder"):
        validate_bundle(pico_llama, pico_t5, text=pairs)
    with pytest.raises(InputError, match="at least 1 input"):
        plan_validation(pico_t5, pico_t5, text=pairs, sentences=0)
    few, many = (plan_validation(pico_t5, pico_t5, text=pairs, sentences=n).seconds for n in (1, 9))
    assert few < many
