"""The two kinds of subject give the same numbers for the same weights, whatever runs them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from edgepress.benchmarks.quality.validate import validate_bundle
from edgepress.benchmarks.records.subjects import open_subject
from edgepress.compress.api import compress_model
from edgepress.errors import BundleError, InputError, UnknownName
from edgepress.export.api import export_bundle
from edgepress.files.storage import sha256_file

IDS = np.random.default_rng(0).integers(3, 200, size=(2, 24))
TEXTS = ["the river ran under old stone bridges", "boats", "merchants counted copper coins and " * 6]


@pytest.fixture(scope="module")
def decoder_bundle(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uncompressed pico decoder as a bundle."""
    return export_bundle(pico_llama, output=tmp_path_factory.mktemp("bundles") / "decoder", validate=False)


@pytest.fixture(scope="module")
def encoder(pico_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pico encoder with files that say how it pools."""
    target = tmp_path_factory.mktemp("pooled") / "encoder"
    shutil.copytree(pico_bert, target)
    kinds = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in kinds]
    (target / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (target / "1_Pooling").mkdir()
    (target / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}', encoding="utf-8")
    return target


def test_decoder_bundle_and_checkpoint_agree(pico_llama: Path, decoder_bundle: Path) -> None:
    checkpoint, bundle = open_subject(pico_llama, threads=1), open_subject(decoder_bundle, threads=1)
    np.testing.assert_allclose(bundle.logits(IDS), checkpoint.logits(IDS), atol=2e-4)
    assert (bundle.kind, bundle.max_length) == (checkpoint.kind, checkpoint.max_length)
    assert bundle.runtime["name"] == "onnxruntime"
    assert checkpoint.runtime["name"] == "torch"


@pytest.mark.chain
def test_a_bundle_replies_as_its_checkpoint_does(decoder_bundle: Path, pico_llama: Path) -> None:
    checkpoint, bundle = open_subject(pico_llama, threads=1), open_subject(decoder_bundle, threads=1)
    prompts = ["the river", "boats ran under old stone bridges", "copper", "merchants", "coins", "old boats"]
    steps: list[str] = []
    replies = bundle.greedy(prompts, 8, lambda: steps.append("bundle"))
    assert replies == checkpoint.greedy(prompts, 8, lambda: steps.append("checkpoint"))
    # Five prompts and one, each until the longest reply is whole; the first token is not a step of a bundle.
    longest = max(map(len, replies[:5])) + len(replies[5])
    assert steps.count("checkpoint") == longest and steps.count("bundle") == longest - 2
    assert all(len(reply) == 8 or reply[-1] in bundle.tokenizer.eos_ids for reply in replies)
    assert bundle.greedy(["the river " * 400], 8) == checkpoint.greedy(["the river " * 400], 8) == []


def test_encoder_bundle_and_checkpoint_agree(encoder: Path, tmp_path: Path) -> None:
    checkpoint = open_subject(encoder, threads=1)
    bundle = open_subject(export_bundle(encoder, output=tmp_path / "bundle", validate=False), threads=1)
    np.testing.assert_allclose(bundle.embeddings(TEXTS), checkpoint.embeddings(TEXTS), atol=1e-4)
    with pytest.raises(InputError, match="not logits"):
        bundle.logits(IDS)


def test_bundle_says_what_its_manifest_says(pico_llama: Path, decoder_bundle: Path) -> None:
    described = open_subject(decoder_bundle, threads=1).describe()
    assert described.manifest_sha256 == sha256_file(decoder_bundle / "manifest.json")
    assert (described.format, described.kind) == ("onnx", "decoder")
    assert described.params == open_subject(pico_llama, threads=1).describe().params
    assert described.disk_bytes == sum(
        file.stat().st_size for file in decoder_bundle.rglob("*") if file.is_file()
    )


@pytest.mark.chain
def test_compressed_checkpoint_and_its_bundle(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    checkpoint = compress_model(
        str(pico_llama), scheme="W4A16", group_size=32, output=tmp_path / "compressed"
    )
    bundle = export_bundle(checkpoint, output=tmp_path / "bundle", validate=False)
    lines = [
        validate_bundle(subject, pico_llama, text=pico_text, windows=4, length=32, threads=1)
        for subject in (checkpoint, bundle)
    ]
    for line in lines:
        assert line.subject.scheme.startswith("W4A16-g32")
        assert len(line.subject.layers) == 21
        assert line.baseline is not None and line.baseline.scheme == "fp32"
        assert line.metrics["kl"].value > 0.001  # type: ignore[operator]
    assert lines[0].subject.manifest_sha256 == sha256_file(checkpoint / "edgepress.json")
    assert lines[0].subject.weight_bytes < lines[0].baseline.weight_bytes  # type: ignore[union-attr,operator]
    # The bundle also rounds the embedding, to eight bits.
    assert lines[1].metrics["kl"].value == pytest.approx(lines[0].metrics["kl"].value, rel=0.1)


def test_damaged_bundle_and_unknown_names(decoder_bundle: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(decoder_bundle, damaged)
    (damaged / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BundleError, match=r"does not match its manifest"):
        open_subject(damaged)
    with pytest.raises(UnknownName, match="did you mean 'minilm'"):
        open_subject("minilmm")


@pytest.mark.cuda
def test_checkpoint_on_cuda_agrees_with_cpu(pico_llama: Path, encoder: Path) -> None:
    for path, call in ((pico_llama, lambda s: s.logits(IDS)), (encoder, lambda s: s.embeddings(TEXTS))):
        there, here = (call(open_subject(path, device=device)) for device in ("cuda", "cpu"))
        np.testing.assert_allclose(there, here, atol=1e-3)


@pytest.mark.chain
def test_replies_are_greedy_whatever_the_settings_say(pico_llama: Path, tmp_path: Path) -> None:
    model = tmp_path / "m"
    shutil.copytree(pico_llama, model)
    want = open_subject(model).greedy(TEXTS[:2], 8)
    file = model / "generation_config.json"
    settings = json.loads(file.read_text()) if file.is_file() else {}
    others = {"num_beams": 3, "repetition_penalty": 9.0, "no_repeat_ngram_size": 1}
    file.write_text(json.dumps(settings | others))
    assert open_subject(model).greedy(TEXTS[:2], 8) == want
