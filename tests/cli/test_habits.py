"""What users of other tools type by habit is understood."""

from pathlib import Path

import pytest
from edgepress.cli.completion import ModelName
from edgepress.cli.entry import run
from edgepress.devices.transports.ssh import require_address


@pytest.mark.parametrize(
    "given",
    [
        "https://huggingface.co/org/name",
        "http://hf.co/org/name/",
        "https://www.huggingface.co/org/name/tree/main?x=1",
        "org/name",
    ],
)
def test_the_page_of_a_model_is_its_id(given: str) -> None:
    assert ModelName().convert(given, None, None) == "org/name"


def test_other_pages_stay(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        ModelName().convert("https://huggingface.co/datasets", None, None)
        == "https://huggingface.co/datasets"
    )
    assert run(["inspect", "https://huggingface.co/org/name"]) == 2
    assert "https" not in capsys.readouterr().err


@pytest.mark.chain
def test_a_prompt_needs_no_option(decoder_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for words in (["river", "stone"], ["--prompt", "river stone"], ["-p", "river stone"]):
        assert run(["generate", str(decoder_bundle), *words, "--max-new-tokens", "4"]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] == shown[2] != ""
    assert run(["generate", str(decoder_bundle), "river", "--prompt", "stone"]) == 2


def test_an_address_may_have_a_port() -> None:
    assert require_address("pi@board:2222") == "ssh://pi@board:2222"
    assert require_address("pi@board") == "pi@board"
