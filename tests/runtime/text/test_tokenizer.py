"""The tokenizer against transformers' reading of the same files, and its failures."""

import json
import shutil
from pathlib import Path

import pytest
from edgepress.errors import BundleError, InputError
from edgepress.runtime.text.tokenizer import Tokenizer
from runtime_toys.bundle import TEXTS


@pytest.fixture
def own_tokenizer(decoder_bundle: Path, tmp_path: Path) -> Path:
    """A directory with only the tokenizer's files, to be changed."""
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(decoder_bundle / name, tmp_path / name)
    return tmp_path


def _edit(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | changes))


@pytest.mark.parametrize("fixture", ["pico_llama", "pico_bert"])
def test_ids_equal_those_of_transformers(fixture: str, request: pytest.FixtureRequest) -> None:
    from transformers import AutoTokenizer

    folder = request.getfixturevalue(fixture)
    theirs, ours = AutoTokenizer.from_pretrained(folder), Tokenizer.open(folder)
    for text in (*TEXTS, "the river ran", ""):
        assert ours.encode(text) == theirs(text)["input_ids"]
        assert ours.encode(text, special=False) == theirs(text, add_special_tokens=False)["input_ids"]
        ids = ours.encode(text)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert ours.vocab_size == len(theirs)
    assert (ours.bos_id, ours.pad_id) == (theirs.bos_token_id, theirs.pad_token_id)


@pytest.mark.chain
def test_a_chat_equals_that_of_transformers(pico_llama: Path) -> None:
    from transformers import AutoTokenizer

    chat = [{"role": "user", "content": "count the ships"}, {"role": "assistant", "content": "two"}]
    theirs = AutoTokenizer.from_pretrained(pico_llama).apply_chat_template(chat, tokenize=False)
    assert Tokenizer.open(pico_llama).render_chat(chat, add_generation_prompt=False) == theirs


def test_truncation_and_padding_saved_in_the_file_are_off(encoder_bundle: Path) -> None:
    tokenizer = Tokenizer.open(encoder_bundle)
    long = tokenizer.encode("river " * 30)
    assert len(long) > 30
    assert len(tokenizer.encode("river")) < 10


def test_max_length_keeps_the_surrounding_tokens(encoder_bundle: Path) -> None:
    tokenizer = Tokenizer.open(encoder_bundle)
    long = "river stone bridges " * 30
    full = tokenizer.encode(long)
    for limit in (2, 3, 10, len(full), len(full) + 5):
        expected = full if limit >= len(full) else [*full[: limit - 1], full[-1]]
        assert tokenizer.encode(long, max_length=limit) == expected
    assert tokenizer.encode(long, special=False, max_length=4) == full[1:5]


@pytest.mark.parametrize("max_length", [None, 24, 11, 6])
def test_pairs_equal_those_of_the_library(pico_bert: Path, max_length: int | None) -> None:
    import tokenizers

    theirs = tokenizers.Tokenizer.from_file(str(pico_bert / "tokenizer.json"))
    if max_length is not None:
        theirs.enable_truncation(max_length)  # of the longer one more is cut
    pairs = [("the river ran", text) for text in TEXTS] + [(TEXTS[0] * 3, "tides"), (TEXTS[0], TEXTS[0])]
    found = Tokenizer.open(pico_bert).encode_pairs(pairs, max_length=max_length)
    for one, want in zip(found, theirs.encode_batch(pairs), strict=True):
        second = [part == 1 for part in want.sequence_ids]
        places = [place if here else (-1, -1) for place, here in zip(want.offsets, second, strict=True)]
        assert one == [want.ids, want.type_ids, *([place[end] for place in places] for end in range(2))]


def test_a_batch_equals_its_texts(decoder_bundle: Path) -> None:
    tokenizer = Tokenizer.open(decoder_bundle)
    assert tokenizer.encode_batch(TEXTS) == [tokenizer.encode(text) for text in TEXTS]


def test_eos_ids_come_from_every_place_that_names_them(own_tokenizer: Path) -> None:
    assert Tokenizer.open(own_tokenizer).eos_ids == [2]
    _edit(own_tokenizer / "config.json", eos_token_id=7)
    _edit(own_tokenizer / "generation_config.json", eos_token_id=[0, 7])
    assert Tokenizer.open(own_tokenizer).eos_ids == [0, 7, 2]


def test_templates_are_found_in_the_config_too(own_tokenizer: Path) -> None:
    (own_tokenizer / "chat_template.jinja").unlink()
    assert Tokenizer.open(own_tokenizer).chat_template is None
    _edit(own_tokenizer / "tokenizer_config.json", chat_template="plain")
    assert Tokenizer.open(own_tokenizer).chat_template == "plain"
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    _edit(own_tokenizer / "tokenizer_config.json", chat_template=named)
    assert Tokenizer.open(own_tokenizer).chat_template == "d"


def test_a_base_model_has_no_chat(own_tokenizer: Path) -> None:
    (own_tokenizer / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="no chat template"):
        Tokenizer.open(own_tokenizer).render_chat([{"role": "user", "content": "x"}])


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", "not json", '{"version": "1.0", "model": {"type": "BPE"}}']
)
def test_files_that_are_no_tokenizer(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(BundleError, match="not a tokenizer"):
        Tokenizer.open(tmp_path)


def test_a_template_without_end_is_not_read(own_tokenizer: Path) -> None:
    with (own_tokenizer / "chat_template.jinja").open("wb") as stream:
        stream.truncate((1 << 20) + 1)
    with pytest.raises(BundleError, match="too large for a template"):
        Tokenizer.open(own_tokenizer)


def test_a_missing_or_huge_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no tokenizer\.json"):
        Tokenizer.open(tmp_path)
    with (tmp_path / "tokenizer.json").open("wb") as stream:
        stream.truncate((64 << 20) + 1)
    with pytest.raises(BundleError, match="too large"):
        Tokenizer.open(tmp_path)


@pytest.mark.chain
def test_a_pattern_that_backtracks_without_end_is_a_typed_error(own_tokenizer: Path) -> None:
    content = json.loads((own_tokenizer / "tokenizer.json").read_text())
    content["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": "(a+)+$"},
        "behavior": "Isolated",
        "invert": False,
    }
    (own_tokenizer / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = Tokenizer.open(own_tokenizer)
    with pytest.raises(BundleError, match="PanicException"):
        tokenizer.encode("a" * 40 + "b")


def test_lone_surrogates_are_an_input_error(decoder_bundle: Path) -> None:
    with pytest.raises(InputError, match="surrogates"):
        Tokenizer.open(decoder_bundle).encode("a\ud800")


def test_ids_out_of_range_do_not_break_decoding(decoder_bundle: Path) -> None:
    tokenizer = Tokenizer.open(decoder_bundle)
    ids = tokenizer.encode("stone")
    assert tokenizer.decode([*ids, tokenizer.vocab_size + 5]) == "stone"
