"""A tokenizer of pieces in llama.cpp's form: a naive one that goes by scores alone gives the ids that the
tokenizers library gives, and what it would not is refused.
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.lab.same_bytes.pico_inputs import sentences
from edgepress.benchmarks.lab.same_bytes.pico_tokenizers import save_pieces
from edgepress.errors import InputError
from edgepress.export.api import export_bundle
from edgepress.export.formats._gguf_pieces import BYTES, SPACE, Pieces, pieces_of
from edgepress.files.storage import read_json, write_json
from edgepress.runtime.text.tokenizer import Tokenizer
from gguf import GGUFReader
from hypothesis import given
from hypothesis import strategies as st

SIZE = 420
TEXTS = st.text("the rivn oldg\n\téß日9 ▁.", max_size=40) | st.lists(
    st.sampled_from([" ", "  ", "the", "old", "river", "bridges", "1234", "naïve", "\n\n", "ran."]),
    max_size=8,
).map("".join)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "prefixed"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pieces")
    save_pieces(path, sentences(50, seed=0), SIZE, prefixed=request.param)
    return path


def by_scores(text: str, pieces: Pieces, vocabulary: dict[str, int]) -> list[int]:
    """Joins, of all neighbours that together are a piece, those with the highest score, the first of them."""
    symbols = list((" " + text if pieces.prefixed and text else text).replace(" ", SPACE))
    while True:
        joined = [one + other for one, other in pairwise(symbols)]
        known = [(-pieces.score(piece), place) for place, piece in enumerate(joined) if piece in vocabulary]
        if not known:
            break
        place = min(known)[1]
        symbols[place : place + 2] = [joined[place]]
    parts = (
        [symbol] if symbol in vocabulary else [BYTES[byte] for byte in symbol.encode()] for symbol in symbols
    )
    return [vocabulary[part] for group in parts for part in group]


@given(text=TEXTS)
def test_scores_give_the_ids_of_the_tokenizers_library(folder: Path, text: str) -> None:
    content, tokenizer = read_json(folder / "tokenizer.json"), Tokenizer.open(folder)
    pieces = pieces_of(content, tokenizer)
    assert by_scores(text, pieces, content["model"]["vocab"]) == tokenizer.encode(text, special=False)


@pytest.mark.chain
def test_a_file_has_scores_kinds_and_the_chat_template(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_decoder(tmp_path / "m", "gemma", head_dim=32, num_key_value_heads=1, vocab_size=SIZE)
    save_pieces(model, sentences(50, seed=0), SIZE, prefixed=False)
    (file,) = export_bundle(str(model), format="gguf", output=tmp_path / "g").glob("*.gguf")
    fields = {name: field.contents() for name, field in GGUFReader(file).fields.items()}
    found = {name: fields[f"tokenizer.ggml.{name}"] for name in ("model", "pre", "add_space_prefix")}
    assert found == {"model": "llama", "pre": "default", "add_space_prefix": False}
    kinds, tokens = fields["tokenizer.ggml.token_type"], fields["tokenizer.ggml.tokens"]
    assert [kinds[index] for index in (1, 3, 6, SIZE - 1)] == [3, 2, 6, 1]  # <bos>, <unk>, <0x00>, a piece
    assert (tokens[4], kinds[4]) == ("<start_of_turn>", 3)
    assert len(fields["tokenizer.ggml.scores"]) == SIZE
    assert fields["tokenizer.ggml.add_bos_token"] and not fields["tokenizer.ggml.add_eos_token"]
    assert "<start_of_turn>" in fields["tokenizer.chat_template"]


def without_a_byte(content: dict[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    vocabulary["other"] = vocabulary.pop("<0x41>")


def without_a_pair(content: dict[str, Any]) -> None:
    content["model"]["merges"].pop()


def apart(content: dict[str, Any]) -> None:
    pairs = content["model"]["merges"]
    several = [pair for pair in pairs if "".join(pair) == "".join(pairs[0])]
    pairs.append(pairs[0] if len(several) == 1 else pairs.pop(0))


def metaspace(content: dict[str, Any]) -> None:
    content["normalizer"] = None
    content["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": SPACE,
        "prepend_scheme": "first",
        "split": False,
    }


def stripping(content: dict[str, Any]) -> None:
    content["added_tokens"][1]["lstrip"] = True


def own_rule(content: dict[str, Any]) -> None:
    content["model"]["ignore_merges"] = True


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (without_a_byte, "has no token for the byte <0x41>"),
        (without_a_pair, "does not join"),
        (apart, "lists the pairs of .* apart"),
        (metaspace, "treats spaces, or characters"),
        (stripping, "looks for '<bos>' in a way of its own"),
        (own_rule, "joins pieces in a way of its own"),
    ],
)
def test_what_scores_cannot_say_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], None], why: str
) -> None:
    content = read_json(folder / "tokenizer.json")
    change(content)
    with pytest.raises(InputError, match=f"{why}.*llama.cpp would give other tokens"):
        pieces_of(content, Tokenizer.open(folder))


@pytest.mark.chain
def test_more_around_a_text_than_two_tokens_is_refused(folder: Path, tmp_path: Path) -> None:
    content = read_json(folder / "tokenizer.json")
    names = read_json(folder / "tokenizer_config.json") | {"bos_token": "<unk>"}
    write_json(tmp_path / "tokenizer.json", content)
    write_json(tmp_path / "tokenizer_config.json", names)
    with pytest.raises(InputError, match="puts more around a text"):
        pieces_of(content, Tokenizer.open(tmp_path))
