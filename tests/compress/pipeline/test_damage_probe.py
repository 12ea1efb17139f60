"""The damage of each step, against whole models in memory, on text that no pass reads."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.skeleton import Skeleton
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.pipeline.damage_probe import DamageProbe
from edgepress.compress.text.calibration import calibration_from
from edgepress.compress.text.probe_text import SHA256, TEXTS, probe_batches
from edgepress.errors import CalibrationError
from edgepress.files.storage import read_json
from edgepress.runtime.text.tokenizer import Tokenizer
from edgepress.terminal.progress import Silent

pytestmark = pytest.mark.chain


# A pass of the whole model, and a sweep of three steps: one comes twice, the last rounds activations.
RECIPE = """
passes:
  - {pass: rotate}
  - {pass: magnitude, sparsity: 0.3}
  - {pass: magnitude, sparsity: 0.4, targets: [down]}
  - {pass: w8a8, targets: [up]}
"""


@pytest.fixture(scope="module")
def made(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "r.yaml").write_text(RECIPE)
    return compress_model(str(pico_llama), recipe=str(folder / "r.yaml"), output=folder / "o")


def of_whole_models(original: Path, made: Path) -> tuple[float, float, float]:
    """Divergence and share of equal likeliest tokens on the probe text, and how many tokens it has."""
    nats = agreed = tokens = 0.0
    models = [load_model(path) for path in (original, made)]
    for batch in probe_batches(Tokenizer.open(original), 512):
        with torch.no_grad():
            before, after = (torch.log_softmax(model(batch.input_ids).logits, -1) for model in models)
        nats += float((before.exp() * (before - after)).sum())
        agreed += float((before.argmax(-1) == after.argmax(-1)).sum())
        tokens += batch.input_ids.numel()
    return nats / tokens, agreed / tokens, tokens


def test_damage_of_the_last_step_is_that_of_the_finished_model(pico_llama: Path, made: Path) -> None:
    manifest = read_json(made / "edgepress.json")
    kl, top1, tokens = of_whole_models(pico_llama, made)
    damage = [step["damage"] for step in manifest["steps"]]
    assert damage[-1]["kl"] == pytest.approx(kl, rel=1e-3)
    assert damage[-1]["top1"] == pytest.approx(top1, abs=2 / tokens)
    assert {found["tokens"] for found in damage} == {tokens} == {manifest["probe"]["tokens"]}
    assert manifest["probe"]["text_sha256"] == SHA256
    # A rotation changes nothing but by rounding; all else makes it worse.
    assert damage[0]["kl"] < 1e-6 < damage[1]["kl"] < damage[2]["kl"]
    assert damage[3]["kl"] == pytest.approx(damage[2]["kl"], rel=0.2) and damage[3] != damage[2]


@pytest.mark.parametrize("scheme", ["W4A16-g32", "W8A8"])
def test_a_sweep_of_the_original_reads_its_blocks_once(
    scheme: str, pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled: list[str] = []
    fill = Skeleton.fill
    monkeypatch.setattr(Skeleton, "fill", lambda self, name: (filled.append(name), fill(self, name))[1])
    made = compress_model(str(pico_llama), scheme=scheme, output=tmp_path / "o")
    blocks = [block.prefix for block in WeightSource.open(pico_llama).anatomy.blocks]
    assert [name for name in filled if name in blocks] == blocks
    damage = read_json(made / "edgepress.json")["steps"][0]["damage"]
    assert damage["kl"] == pytest.approx(of_whole_models(pico_llama, made)[0], rel=1e-3)


def test_a_pass_that_comes_twice_counts_the_layers_of_each_time(pico_llama: Path, made: Path) -> None:
    steps = read_json(made / "edgepress.json")["steps"]
    assert [step["pass"] for step in steps] == ["rotate", "prune", "prune", "rtn"]
    assert [step["layers"] for step in steps][1:] == [21, 3, 3]


def test_steps_are_told_apart_whatever_they_were_calibrated_with(
    pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    def tuned(name: str, samples: int) -> float:
        (tmp_path / "r.yaml").write_text(
            "passes:\n  - {pass: rtn, scheme: W8A16-g32}\n"
            "  - {pass: tune, training: {tokens: 64, batch_tokens: 64, micro_batch_tokens: 64,"
            " learning_rate: 1.0e-12}}\n"
        )
        out = compress_model(
            *(str(pico_llama),),
            recipe=str(tmp_path / "r.yaml"),
            output=tmp_path / name,
            calibration=str(pico_text),
            samples=samples,
            length=32,
        )
        first, last = (step["damage"] for step in read_json(out / "edgepress.json")["steps"])
        assert last["kl"] == pytest.approx(first["kl"], rel=1e-3) and last["tokens"] == first["tokens"]
        return float(first["kl"])

    assert tuned("few", 16) == pytest.approx(tuned("more", 32))


def test_encoders_are_told_apart_by_the_distance_of_their_states(pico_bert: Path, tmp_path: Path) -> None:
    paths = [
        compress_model(str(pico_bert), scheme=scheme, output=tmp_path / scheme)
        for scheme in ("W2A16-g32", "W8A16-g32")
    ]
    two, eight = (read_json(path / "edgepress.json")["steps"][0]["damage"]["distance"] for path in paths)
    assert 0 <= eight < two


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize("first", [None, 999_999])
def test_it_is_said_why_steps_are_not_measured(first: int | None, pico_bert: Path, tmp_path: Path) -> None:
    """Without a tokenizer, and with one that begins texts with a token which the model does not have."""
    model = tmp_path / "model"
    shutil.copytree(pico_bert, model)
    file, notes = model / "tokenizer.json", Notes()
    if first is None:
        file.unlink()
    else:
        tokenizer = json.loads(file.read_text(encoding="utf-8"))
        tokenizer["post_processor"]["special_tokens"]["[CLS]"]["ids"] = [first]
        file.write_text(json.dumps(tokenizer), encoding="utf-8")
    source = WeightSource.open(model)
    assert DamageProbe.open(source, tmp_path / "probe", torch.device("cpu"), notes) is None
    (said,) = notes.said
    assert said.startswith("steps are not measured: ")
    assert ("has no tokenizer.json" if first is None else f"token {first} ") in said


def test_text_that_steps_are_measured_on_is_not_calibrated_with(pico_llama: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(TEXTS[2].split()), encoding="utf-8")  # wrapped in another way
    with pytest.raises(CalibrationError, match="every step is measured on"):
        calibration_from(str(text), Tokenizer.open(pico_llama), kind="decoder", samples=2, length=16)
