"""Encoder–decoders as bundles: their answers are transformers', alone and side by side, and what does not fit
is refused.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from edgepress.benchmarks.quality.validate import validate_bundle
from edgepress.benchmarks.records.subjects import open_subject
from edgepress.cli.program import edgepress
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.errors import BundleError, CheckpointError, GateFailed, InputError
from edgepress.export.api import export_bundle
from edgepress.export.graph.build import WeightView
from edgepress.export.graph.encoder_decoder_nodes import sines
from edgepress.export.graph.forms.providers import CPU
from edgepress.export.graph.graph_writer import Opset
from edgepress.export.graph.whole_graph import build_graph
from edgepress.export.opening import open_job
from edgepress.export.proof.encoder_decoder_proof import prove_encoder_decoder
from edgepress.files.storage import read_json, sha256_file, write_json
from edgepress.runtime.api import TextModel, open_bundle
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.bundle.verification import verify_directory
from edgepress.runtime.engine.text_to_text import TextToTextModel
from edgepress.terminal.progress import Silent

from ...conftest import sentences

pytestmark = pytest.mark.chain

Make = Callable[..., Path]
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("t5", {}),
    ("t5", {"feed_forward_proj": "gated-gelu", "own_head": True, "relative_attention_max_distance": 20}),
    ("mt5", {"feed_forward_proj": "gated-silu"}),
    ("bart", {"activation_function": "relu", "scale_embedding": False}),
    ("marian", {"activation_function": "swish"}),
]
LENGTHS = (1, 5, 40, 150)
NEW = 16


def texts() -> list[str]:
    words = " ".join(sentences(3, seed=5)).split()
    return [" ".join(words[start : start + length - 1]) or "river" for start, length in enumerate(LENGTHS)]


def answered(model: Any, ids: list[int], **options: Any) -> tuple[int, ...]:
    """What transformers' ``model`` answers to one text, whose every choice is clear."""
    found = model.generate(torch.tensor([ids]), max_new_tokens=NEW, do_sample=False, num_beams=1, **options)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), decoder_input_ids=found[:, :-1]).logits[0]
    second, first = logits.sort().values[:, -2:].T
    assert float((first - second).min()) > 1e-4  # no order of sums makes another choice
    return tuple(found[0, 1:].tolist())


# Each form with one kind of operators, by turns; with the other it is slow.
@pytest.mark.parametrize(
    ("family", "changes", "operators"),
    [
        pytest.param(
            *form,
            operators,
            marks=() if (place + number) % 2 == 0 else pytest.mark.slow,
            id=f"{operators}-{place}",
        )
        for number, operators in enumerate(("standard", "edgepress"))
        for place, form in enumerate(FORMS)
    ],
)
def test_answers_are_those_of_transformers_alone_and_side_by_side(
    family: str, changes: dict[str, Any], operators: str, make_encoder_decoder: Make, tmp_path: Path
) -> None:
    path = make_encoder_decoder(tmp_path / "m", family, **changes)
    bundle = export_bundle(path, output=tmp_path / "b", operators=operators)
    model = open_bundle(bundle)
    assert isinstance(model, TextToTextModel)
    given, torch_model = texts(), load_model(path)
    want = [answered(torch_model, model.input_ids(text)) for text in given]
    assert [reply.token_ids for reply in model.generate_batch(given, max_new_tokens=NEW)] == want
    assert [model.generate(text, max_new_tokens=NEW).token_ids for text in given] == want
    parity = read_json(bundle / "manifest.json")["parity"]
    assert parity["status"] == "passed"
    assert parity["float"]["cases"] == 6
    assert parity["greedy"]["tokens"] > 0
    assert not verify_directory(bundle).problems


@pytest.mark.parametrize(
    ("family", "scheme", "operators"),
    [
        ("t5", "W4A16-g32", "standard"),
        ("t5", "W3A16-g16", "edgepress"),
        ("mt5", "W8A8", "edgepress"),
        ("bart", "W8A8", "standard"),
        ("bart", "W4A16-g32", "edgepress"),
        ("marian", "W3A16-g16", "standard"),
    ],
)
def test_codes_are_proven_and_answer_as_what_they_stand_for(
    family: str, scheme: str, operators: str, make_encoder_decoder: Make, tmp_path: Path
) -> None:
    path = make_encoder_decoder(tmp_path / "m", family)
    made = compress_model(str(path), scheme=scheme, output=tmp_path / "c")
    bundle = export_bundle(made, output=tmp_path / "b", operators=operators)
    parity = read_json(bundle / "manifest.json")["parity"]
    assert parity["quantized"]["kl_mean"] < 0.01
    assert parity["codes"]["max_abs_difference"] < 1e-4
    model, torch_model = open_bundle(bundle), load_model(made, embedding=True)
    assert isinstance(model, TextToTextModel)
    rows = [model.input_ids(text) for text in texts()]
    written = np.asarray([[0, 7, 11, 5], [0, 3, 3, 9], [0, 20, 6, 8], [0, 4, 9, 12]])
    logits = model.model.prefill(rows)
    for column in written[:, 1:].T:
        logits = model.model.step(column.tolist())
    with torch.no_grad():
        for row, ids, found in zip(rows, written, logits, strict=True):
            want = torch_model(torch.tensor([row]), decoder_input_ids=torch.tensor(ids[None])).logits[0, -1]
            assert float(np.abs(found - want.numpy()).max()) < 0.25  # inputs of products are rounded to int8


def test_what_is_forced_and_what_is_never_written(make_encoder_decoder: Make, tmp_path: Path) -> None:
    path = make_encoder_decoder(tmp_path / "m", "marian")
    plain = load_model(path)
    often = max(set(first := answered(plain, [5, 9, 1])), key=first.count)
    settings = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    settings |= {"forced_bos_token_id": 12, "bad_words_ids": [[often], [3, 4]]}
    write_json(path / "generation_config.json", settings)
    model = open_bundle(export_bundle(path, output=tmp_path / "b"))
    assert isinstance(model, TextToTextModel)
    section = model.model.section
    assert (section.first_token_id, section.suppressed_ids) == (12, [often])
    found = model.model.prefill([[5, 9, 1]]).argmax(-1).tolist()
    while len(found) < NEW:
        found.append(int(model.model.step(found[-1:]).argmax()))
    want = plain.generate(  # type: ignore[operator]
        torch.tensor([[5, 9, 1]]),
        max_new_tokens=NEW,
        do_sample=False,
        forced_bos_token_id=12,
        bad_words_ids=[[often]],
    )
    assert found[: want.shape[1] - 1] == want[0, 1:].tolist()
    assert found[0] == 12
    assert often not in found


@pytest.fixture(scope="module")
def bundle(pico_t5: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of the tied T5, in float."""
    return export_bundle(pico_t5, output=tmp_path_factory.mktemp("bundles") / "t5")


def test_a_command_reads_an_input_and_writes(bundle: Path, pico_llama: Path, tmp_path: Path) -> None:
    def ran(*words: str, given: str | None = None) -> Any:
        return CliRunner().invoke(edgepress, ["generate", *words], input=given)

    words = (str(bundle), "--max-new-tokens", "6", "--json")
    found = ran(*words, "--input", "the river")
    assert found.exit_code == 0, found.output
    result = json.loads(found.stdout)
    model = TextToTextModel(Bundle.open(bundle))
    assert result["token_ids"] == list(model.generate("the river", max_new_tokens=6).token_ids)
    assert result["prompt_tokens"] == len(model.input_ids("the river"))
    assert json.loads(ran(*words, "--input", "-", given="the river").stdout)["text"] == result["text"]
    assert ran(*words).exit_code == 2
    assert ran(*words, "--input", "a", "--prompt", "b").exit_code == 2
    assert ran(*words, "--input", "a", "--chat").exit_code == 2
    refused = ran(str(bundle), "--prompt", "a")
    assert refused.exit_code != 0
    assert isinstance(refused.exception, InputError)
    assert '--input "…"' in str(refused.exception.fix)
    decoder = export_bundle(pico_llama, output=tmp_path / "llama", validate=False)
    refused = ran(str(decoder), "--input", "a")
    assert refused.exit_code != 0
    assert isinstance(refused.exception, InputError)
    assert "--prompt" in str(refused.exception.fix)


def test_inputs_beyond_the_limits_are_refused(bundle: Path) -> None:
    model = TextToTextModel(Bundle.open(bundle))
    with pytest.raises(InputError, match="empty"):
        model.generate("")
    with pytest.raises(InputError, match="do not fit"):
        model.model.prefill([[3] * 513])
    with pytest.raises(InputError, match="do not fit"):
        model.generate("the river", max_new_tokens=513)
    with pytest.raises(InputError, match="vocabulary"):
        model.model.prefill([[99_999]])
    with pytest.raises(InputError, match="no texts"):
        model.model.prefill([])
    model.model.prefill([[3, 1]])
    with pytest.raises(InputError, match="2 rows"):
        model.model.step([1, 2])


def test_the_bundle_is_measured_as_its_checkpoint_is(bundle: Path, pico_t5: Path, pico_text: Path) -> None:
    ours, theirs = open_subject(bundle), open_subject(pico_t5)
    ids = np.asarray([[4, 9, 17, 6], [5, 5, 8, 20]])
    assert np.allclose(ours.logits(ids), theirs.logits(ids), atol=1e-4)
    assert (ours.kind, ours.max_length) == (theirs.kind, theirs.max_length)
    prompts = ["the river", "a word and another word"]
    lengths = [[len(reply) for reply in model.greedy(prompts, 6)] for model in (ours, theirs)]
    assert lengths[0] == lengths[1]
    line = validate_bundle(bundle, pico_t5, text=pico_text, sentences=2, length=24)
    assert line.metrics["kl"].value == pytest.approx(0, abs=1e-5)
    assert line.subject.kind == "decoder"


def test_other_uses_of_the_bundle_are_refused(bundle: Path) -> None:
    with pytest.raises(InputError, match="encoder–decoder"):
        TextModel(Bundle.open(bundle))
    with pytest.raises(InputError, match="encoder–decoder"):
        _ = Bundle.open(bundle).encoder


@pytest.mark.parametrize("format", ["awq", "gptq", "bitnet"])
def test_other_formats_are_refused(format: str, pico_t5: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="encoder–decoder"):
        export_bundle(pico_t5, output=tmp_path / "o", format=format)
    assert not (tmp_path / "o").exists()


def test_caches_and_providers_that_there_are_none_of(pico_t5: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be exported with an int8 cache"):
        export_bundle(pico_t5, output=tmp_path / "o", kv="int8")
    with pytest.raises(InputError, match="for the CPU only"):
        export_bundle(pico_t5, output=tmp_path / "o", provider="openvino")


def test_no_start_is_refused_before_anything_is_written(make_encoder_decoder: Make, tmp_path: Path) -> None:
    path = make_encoder_decoder(tmp_path / "m", decoder_start_token_id=None)
    with pytest.raises(CheckpointError, match="begin with"):
        export_bundle(path, output=tmp_path / "o")
    assert not (tmp_path / "o").exists()


def _forged(bundle: Path, folder: Path, change: Callable[[dict[str, Any], Path], None]) -> Path:
    """A copy that was changed, with hashes that are right."""
    shutil.copytree(bundle, folder)
    manifest = read_json(folder / "manifest.json")
    change(manifest, folder)
    for name in ("model.onnx", "encoder.onnx"):
        file = folder / name
        if file.exists():
            manifest["files"][name] = {"sha256": sha256_file(file), "bytes": file.stat().st_size}
    write_json(folder / "manifest.json", manifest)
    return folder


def _swap(_: dict[str, Any], folder: Path) -> None:
    (folder / "model.onnx").rename(folder / "x")
    (folder / "encoder.onnx").rename(folder / "model.onnx")
    (folder / "x").rename(folder / "encoder.onnx")


def _without_encoder(manifest: dict[str, Any], _: Path) -> None:
    del manifest["graph"]["encoder"]


def _narrow(manifest: dict[str, Any], _: Path) -> None:
    manifest["encoder_decoder"]["layers"][0]["heads"] = 2
    manifest["encoder_decoder"]["layers"][0]["kv_heads"] = 2


def _start_outside(manifest: dict[str, Any], _: Path) -> None:
    manifest["encoder_decoder"]["start_token_id"] = 1 << 20


@pytest.mark.parametrize("change", [_swap, _without_encoder, _narrow, _start_outside])
def test_graphs_that_are_not_those_of_the_manifest(
    change: Callable[[dict[str, Any], Path], None], bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(BundleError):
        open_bundle(_forged(bundle, tmp_path / "b", change))


def test_an_encoder_that_changed_is_no_longer_the_published_one(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "b")
    with (tmp_path / "b" / "encoder.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"encoder\.onnx"):
        open_bundle(tmp_path / "b")


def test_graphs_of_another_model_fail_the_proof(
    bundle: Path, make_encoder_decoder: Make, tmp_path: Path
) -> None:
    other = make_encoder_decoder(tmp_path / "m", layer_norm_epsilon=0.1)
    job = open_job(other, tmp_path / "o", None, None, CPU, Silent())
    graphs, opset = (bundle / "model.onnx", bundle / "encoder.onnx"), Opset(23, 11)
    views = [build_graph(WeightView(job.source), opset, None, CPU, stack) for stack in ("decoder", "encoder")]
    parts, section = (views[0].parts, views[1].parts), Bundle.open(bundle).encoder_decoder
    with (
        Silent().task("", 1) as task,
        pytest.raises(GateFailed, match=r"difference of encoder\.block\.0 with"),
    ):
        prove_encoder_decoder(job, graphs, parts, section, opset, task)


def test_sines_are_those_of_transformers() -> None:
    from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

    table = MarianSinusoidalPositionalEmbedding(40, 32).create_weight()
    assert np.allclose(sines(40, 32), table.numpy(), atol=1e-6)
