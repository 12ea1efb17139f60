"""The verbs ``generate``, ``encode`` and ``verify`` through the command line's own entry."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from edgepress.cli.entry import run
from edgepress.files.hashed_tree import hash_tree
from edgepress.runtime.api import TextModel
from runtime_toys.bundle import edit_manifest
from runtime_toys.encoder import section


@pytest.mark.chain
def test_generate_streams_text_and_says_how_fast(
    decoder_bundle: Path, text_model: TextModel, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--max-new-tokens", "8", "--temperature", "1", "--seed", "3", "--threads", "1"]
    assert run(["generate", str(decoder_bundle), "--prompt", "coins", *options]) == 0
    shown = capsys.readouterr()
    expected = text_model.generate("coins", max_new_tokens=8, temperature=1.0, seed=3)
    assert shown.out == expected.text + "\n"
    assert "first token after" in shown.err


def test_generate_as_json(decoder_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["generate", str(decoder_bundle), "-p", "coins", "--no-chat", "--max-new-tokens", "4"]
    assert run([*arguments, "--temperature", "1", "--seed", "1", "--json", "-q"]) == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert document["new_tokens"] == len(document["token_ids"]) <= 4
    assert shown.err == ""


@pytest.mark.chain
def test_generate_reads_stdin(
    decoder_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.read", lambda: "coins", raising=False)
    assert run(["generate", str(decoder_bundle), "-p", "-", "--max-new-tokens", "2", "--json"]) == 0
    from_stdin = json.loads(capsys.readouterr().out)
    assert run(["generate", str(decoder_bundle), "-p", "coins", "--max-new-tokens", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["token_ids"] == from_stdin["token_ids"]


def test_each_verb_names_the_other(
    decoder_bundle: Path, encoder_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["generate", str(encoder_bundle), "--prompt", "x"]) == 2
    assert "edgepress encode" in capsys.readouterr().err
    assert run(["encode", str(decoder_bundle), "x"]) == 2
    assert "edgepress generate" in capsys.readouterr().err


def test_encode_shows_similarities(encoder_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["encode", str(encoder_bundle), "river", "stone [b]", "river"]) == 0
    shown = capsys.readouterr().out
    assert "1.000" in shown
    assert "stone [b]" in shown


def test_encode_as_json(encoder_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["encode", str(encoder_bundle), "river", "stone", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    vectors = np.array(document["embeddings"])
    assert document["texts"] == ["river", "stone"]
    assert np.allclose(document["similarity"], vectors @ vectors.T, atol=1e-5)


def test_encode_puts_a_prompt_in_front(
    encoder_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "b"
    shutil.copytree(encoder_bundle, bundle)
    edit_manifest(bundle, encoder=section(prompts={"query": "river "}, default_prompt=None))

    def vectors(*arguments: str) -> list[list[float]]:
        assert run(["encode", str(bundle), *arguments, "--json"]) == 0
        found: list[list[float]] = json.loads(capsys.readouterr().out)["embeddings"]
        return found

    assert vectors("stone", "--prompt", "query") == vectors("river stone")
    assert vectors("stone") == vectors("stone", "--prompt", "") != vectors("river stone")
    assert run(["encode", str(bundle), "stone", "--prompt", "passage"]) == 2
    shown = capsys.readouterr().err
    assert "unknown prompt 'passage'" in shown and "query" in shown
    assert run(["encode", str(bundle), "--image", "x.png", "--prompt", "query"]) == 2
    assert run(["inspect", str(bundle)]) == 0
    assert "prompts: query" in capsys.readouterr().out


def test_encode_writes_a_file_once(
    encoder_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("river\n\nstone bridges\n" * 20, encoding="utf-8")
    output = tmp_path / "new" / "vectors.npy"
    arguments = [
        "encode",
        str(encoder_bundle),
        "--file",
        str(tmp_path / "texts.txt"),
        "--output",
        str(output),
    ]
    assert run([*arguments, "-q"]) == 0
    assert np.load(output, allow_pickle=False).shape == (40, 16)
    assert run(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run([*arguments, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["texts"] == 40


@pytest.mark.parametrize("name", ["texts.txt", "link.npy", "bundle/model.onnx", "bundle/new.npy"])
def test_encode_replaces_nothing_that_it_reads(
    encoder_bundle: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("river", encoding="utf-8")
    (tmp_path / "link.npy").symlink_to(texts)
    (tmp_path / "bundle").symlink_to(encoder_bundle)
    before = hash_tree(encoder_bundle)
    read = ["encode", str(encoder_bundle), "--file", str(texts)]
    assert run([*read, "--output", str(tmp_path / name), "--overwrite"]) == 2
    assert "[E-" in capsys.readouterr().err
    assert texts.read_text() == "river" and hash_tree(encoder_bundle) == before


@pytest.mark.parametrize("arguments", [[], ["--file", "/nonexistent"], ["river"] * 13])
def test_encode_wants_something_it_can_show(encoder_bundle: Path, arguments: list[str]) -> None:
    assert run(["encode", str(encoder_bundle), *arguments]) == 2


def test_verify(own_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(own_bundle), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"]
    digest = document["manifest_sha256"]
    assert run(["verify", str(own_bundle), "--manifest-sha256", digest.upper(), "-q"]) == 0
    assert run(["verify", str(own_bundle), "--manifest-sha256", "0" * 64]) == 1
    assert digest in capsys.readouterr().err
    (own_bundle / "extra").write_text("x")
    (own_bundle / "tokenizer.json").unlink()
    assert run(["verify", str(own_bundle)]) == 1
    shown = capsys.readouterr().err
    assert "extra is not in the manifest" in shown
    assert "tokenizer.json is missing" in shown
