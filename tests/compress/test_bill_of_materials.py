"""The bill of materials: valid CycloneDX that says what a checkpoint was made of, and what is not known."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from edgepress.compress.api import compress_model
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import sha256_file

pytestmark = pytest.mark.chain
Make = Callable[..., Path]


def bom_of(directory: Path) -> dict[str, Any]:
    """The bill of materials of an output, which its manifest lists, held against the official schema."""
    text = (directory / "bom.cdx.json").read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    files = json.loads((directory / "edgepress.json").read_text(encoding="utf-8"))["files"]
    assert files["bom.cdx.json"]["sha256"] == sha256_file(directory / "bom.cdx.json")
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def properties(component: dict[str, Any]) -> dict[str, str]:
    return {item["name"].removeprefix("edgepress:"): item["value"] for item in component["properties"]}


def test_it_says_what_a_checkpoint_was_made_of(make_decoder: Make, pico_text: Path, tmp_path: Path) -> None:
    model = make_decoder(tmp_path / "teacher")
    (model / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Teacher\n")
    out = compress_model(
        str(model), scheme="W4A16", group_size=32, calibration=str(pico_text), samples=4, length=16,
        output=tmp_path / "out",
    )  # fmt: skip
    bom, manifest = bom_of(out), json.loads((out / "edgepress.json").read_text())
    made = bom["metadata"]["component"]
    assert (made["type"], made["name"]) == ("machine-learning-model", "teacher")
    assert made["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    files = {item["name"]: item["hashes"][0]["content"] for item in made["components"]}
    others = hash_tree(out, skip=frozenset({"bom.cdx.json", "edgepress.json"}))
    assert files == {name: entry["sha256"] for name, entry in others.items()}
    assert made["modelCard"]["modelParameters"]["task"] == "text-generation"
    assert json.loads(properties(made)["recipe"]) == manifest["recipe"]
    base, text = bom["components"]
    assert base["licenses"] == made["licenses"]
    assert properties(base) == {
        "fingerprint": manifest["source"]["fingerprint"],
        "license_said_by": "README.md",
    }
    assert (text["type"], text["name"]) == ("data", pico_text.name)
    assert text["hashes"] == [{"alg": "SHA-256", "content": sha256_file(pico_text)}]
    assert "unknown" in text["licenses"][0]["license"]["name"]
    assert str(tmp_path) not in (out / "bom.cdx.json").read_text()
    tools = {item["name"]: item["version"] for item in bom["metadata"]["tools"]["components"]}
    # Built for CUDA it says so of itself, and its package does not.
    assert torch.__version__.startswith(tools["torch"]) and "edgepress" in tools


def test_it_has_no_clock_and_no_place(
    pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compress_model(str(pico_llama), scheme="W8A8", output=tmp_path / "one")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.chdir(tmp_path)
    second = compress_model(str(pico_llama), scheme="W8A8", output="two")
    assert (first / "bom.cdx.json").read_bytes() == (second / "bom.cdx.json").read_bytes()
    other = compress_model(str(pico_llama), scheme="W4A16", group_size=32, output=tmp_path / "three")
    serials = [bom_of(path)["serialNumber"] for path in (first, other)]
    assert serials[0] != serials[1] and all(serial.startswith("urn:uuid:") for serial in serials)


def test_an_unknown_licence_is_said(pico_llama: Path, tmp_path: Path) -> None:
    out = compress_model(str(pico_llama), scheme="W8A8", output=tmp_path / "out")
    assert "unknown" in bom_of(out)["metadata"]["component"]["licenses"][0]["license"]["name"]
    assert json.loads((out / "edgepress.json").read_text())["source"]["license"] is None


def test_the_licence_of_the_original_stays_through_two_compressions(
    make_decoder: Make, tmp_path: Path
) -> None:
    model = make_decoder(tmp_path / "teacher")
    shutil.copyfile(Path(__file__).parents[2] / "LICENSE", model / "LICENSE")
    (model / "NOTICE").write_text("Made by somebody.")
    first = compress_model(str(model), recipe=str(_prune(tmp_path)), output=tmp_path / "first")
    (first / "LICENSE").unlink()
    second = compress_model(str(first), scheme="W8A8", output=tmp_path / "second")
    assert (second / "NOTICE").read_text() == "Made by somebody."
    assert bom_of(second)["components"][0]["licenses"] == [{"license": {"id": "Apache-2.0"}}]


def _prune(folder: Path) -> Path:
    path = folder / "prune.yaml"
    path.write_text("name: p\npasses: [{pass: prune, score: magnitude, sparsity: 0.5}]\nembedding: null\n")
    return path


def test_the_demo_corpus_has_its_licence(pico_llama: Path, tmp_path: Path) -> None:
    out = compress_model(
        str(pico_llama), scheme="W4A16", group_size=32, calibration="wikipedia", samples=4, length=16,
        output=tmp_path / "out",
    )  # fmt: skip
    text = bom_of(out)["components"][1]
    assert (text["name"], text["licenses"]) == ("wikipedia", [{"license": {"id": "CC-BY-SA-3.0"}}])
    assert len(text["hashes"][0]["content"]) == 64


def test_a_student_that_was_given_is_named(make_decoder: Make, pico_text: Path, tmp_path: Path) -> None:
    teacher, student = (
        make_decoder(tmp_path / "teacher"),
        make_decoder(tmp_path / "student", num_hidden_layers=2),
    )
    recipe = tmp_path / "distill.yaml"
    training = "{tokens: 64, batch_tokens: 32, micro_batch_tokens: 32}"
    passes = f"[{{pass: distill, student: {student}, training: {training}}}]"
    recipe.write_text(f"name: d\npasses: {passes}\nembedding: null\n")
    sizes = {"samples": 8, "length": 16}
    out = compress_model(
        str(teacher), recipe=str(recipe), calibration=str(pico_text), output=tmp_path / "out", **sizes
    )
    read = bom_of(out)["components"][1]
    digest = json.loads((out / "edgepress.json").read_text())["reads"]["student"]
    assert (read["name"], properties(read)["fingerprint"]) == ("student", digest)
