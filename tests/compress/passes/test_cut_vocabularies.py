"""The pass ``vocabulary`` on encoder–decoders and on models that hear: every form of table and head."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.text.calibration_audio import spoken
from edgepress.errors import CheckpointError
from edgepress.export.api import export_bundle
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json, write_json
from edgepress.runtime.api import open_bundle
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine.speech_to_text import SpeechToTextModel
from edgepress.runtime.engine.text_to_text import TextToTextModel
from edgepress.runtime.text.tokenizer import Tokenizer
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer

from ...conftest import SPOKEN, WORDS, spoken_settings
from ..conftest import Watched

pytestmark = pytest.mark.chain

READ, WRITTEN = "the river ran under old stone bridges", "a word and another"
NEW = 12


def save_t5_tokenizer(folder: Path) -> int:
    """As T5's own: Unigram, with tokens for what is left out behind all words; returns its size."""
    from transformers import T5Tokenizer

    words = sorted(set(WORDS) | {*READ.split(), *WRITTEN.split()})
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), (".", -3.0)]
    pieces += [(letter, -5.0 - index / 64) for index, letter in enumerate(sorted(set("".join(words))))]
    pieces += [(f"▁{word}", -3.0 - index / 64) for index, word in enumerate(words)]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=4)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def pairs(folder: Path) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text(json.dumps({"text": READ, "target": WRITTEN}) + "\n", encoding="utf-8")
    return path


def cut(model: Path, corpus: Path, folder: Path, *before: dict[str, object], **options: object) -> Path:
    recipe = folder / "r.yaml"
    passes = [*before, {"pass": "vocabulary", "corpus": str(corpus), **options}]
    recipe.write_text(yaml.safe_dump({"passes": passes, "embedding": None}), encoding="utf-8")
    return compress_model(str(model), recipe=str(recipe), output=folder / "cut")


def kept_ids(old: Path, new: Path) -> list[int]:
    """Of each new id the old one."""
    names = AutoTokenizer.from_pretrained(new).convert_ids_to_tokens(range(Tokenizer.open(new).vocab_size))
    found: list[int] = AutoTokenizer.from_pretrained(old).convert_tokens_to_ids(names)
    return found


def given(kept: list[int], start: int, *, renumber: bool) -> dict[str, Tensor]:
    """Texts of unequal length and answers to them, of tokens that stay, in old ids or in new ones."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(3, 9, dtype=torch.int64)
    mask[1, 5:], mask[2, 1:] = 0, 0
    read, written = (torch.randint(3, len(kept), shape, generator=generator) for shape in ((3, 9), (3, 7)))
    written[:, 0] = kept.index(start)
    if not renumber:
        read, written = torch.tensor(kept)[read], torch.tensor(kept)[written]
    return {"input_ids": read, "attention_mask": mask, "decoder_input_ids": written}


FORMS: list[tuple[str, dict[str, Any]]] = [
    ("t5", {}),
    ("mt5", {"own_head": True, "feed_forward_proj": "gated-gelu"}),
    ("bart", {}),
    ("marian", {"bad_words_ids": [[4], [7], [5, 6]], "forced_bos_token_id": 9}),
]


@pytest.mark.parametrize(("family", "changes"), FORMS)
def test_what_stays_gives_the_same_logits_and_answers(
    family: str, changes: dict[str, Any], make_encoder_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    size = save_t5_tokenizer(tmp_path / "t")
    # As published: more rows than the tokenizer has tokens.
    original = make_encoder_decoder(tmp_path / "m", family, vocab_size=size + 6, **changes)
    save_t5_tokenizer(original)
    made = cut(original, pairs(tmp_path), tmp_path)
    kept, before, after = kept_ids(original, made), load_model(original), load_model(made)
    assert size > len(kept) == WeightSource.open(made).anatomy.vocab_size == len(set(kept))
    old, new = Tokenizer.open(original), Tokenizer.open(made)
    for text in (READ, WRITTEN, f"{READ} <extra_id_0> {WRITTEN}"):
        assert [kept[one] for one in new.encode(text)] == old.encode(text)
        assert AutoTokenizer.from_pretrained(made)(text).input_ids == new.encode(text)
    with torch.no_grad():
        want = before(**given(kept, 0, renumber=False)).logits[..., kept]
        found = after(**given(kept, 0, renumber=True)).logits
    torch.testing.assert_close(found, want, rtol=0, atol=1e-6)
    model = open_bundle(export_bundle(made, output=tmp_path / "b"))
    assert isinstance(model, TextToTextModel)
    rows = [READ, WRITTEN, "river"]
    answers = [
        after.generate(torch.tensor([new.encode(row)]), max_new_tokens=NEW, do_sample=False, num_beams=1)
        for row in rows
    ]
    replies = model.generate_batch(rows, max_new_tokens=NEW)
    assert [list(reply.token_ids) for reply in replies] == [answer[0, 1:].tolist() for answer in answers]


def test_settings_follow_the_ids(make_encoder_decoder: Callable[..., Path], tmp_path: Path) -> None:
    size = save_t5_tokenizer(tmp_path / "t")
    original = make_encoder_decoder(tmp_path / "m", "marian", vocab_size=size, bad_words_ids=[[0], [3, 4]])
    save_t5_tokenizer(original)
    unused = Tokenizer.open(original).encode(next(word for word in WORDS if word not in READ + WRITTEN))[0]
    config = read_json(original / "config.json")
    config["bad_words_ids"] = [[0], [unused], [3, unused], [size - 1]]
    write_json(original / "config.json", config)
    (original / "source.spm").write_bytes(b"other forms of the vocabulary")
    named = read_json(original / "tokenizer_config.json") | {"tokenizer_class": "MarianTokenizer"}
    write_json(original / "tokenizer_config.json", named)
    assert "source.spm" in WeightSource.open(original).reader.companions()  # any other pass keeps it
    made = cut(original, pairs(tmp_path), tmp_path)
    settings, rows = read_json(made / "config.json"), Tokenizer.open(made).vocab_size
    assert settings["bad_words_ids"] == [[0], [rows - 1]]
    assert settings["vocab_size"] == settings["decoder_vocab_size"] == rows
    assert not (made / "source.spm").exists()
    # MarianTokenizer reads the SentencePiece files alone, which are of the whole vocabulary.
    assert AutoTokenizer.from_pretrained(made)(READ).input_ids == Tokenizer.open(made).encode(READ)
    assert load_file(made / "model.safetensors")["final_logits_bias"].shape == (1, rows)


def test_a_row_without_a_token_that_the_settings_name(
    make_encoder_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    size = save_t5_tokenizer(tmp_path / "t")
    original = make_encoder_decoder(tmp_path / "m", vocab_size=size + 2, decoder_start_token_id=size + 1)
    save_t5_tokenizer(original)
    with pytest.raises(CheckpointError, match=f"name token {size + 1}"):
        cut(original, pairs(tmp_path), tmp_path)


def test_after_a_rounding_both_graphs_read_what_is_left(
    make_encoder_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    size = save_t5_tokenizer(tmp_path / "t")
    original = make_encoder_decoder(tmp_path / "m", "mt5", vocab_size=size, own_head=True)
    save_t5_tokenizer(original)
    made = cut(original, pairs(tmp_path), tmp_path, {"pass": "rtn", "scheme": "W4A16-g32"})
    bundle = Bundle.open(export_bundle(made, output=tmp_path / "b"))
    assert bundle.encoder_decoder.vocab_size == WeightSource.open(made).anatomy.vocab_size < size
    assert bundle.manifest["parity"]["status"] == "passed"


@pytest.mark.parametrize(("label", "done"), [("compressing blocks", [4, 1]), ("counting tokens", [])])
def test_a_killed_cut_goes_on_and_ends_with_the_same_bytes(
    label: str,
    done: list[int],
    make_encoder_decoder: Callable[..., Path],
    watched: Watched,
    tmp_path: Path,
) -> None:
    size = save_t5_tokenizer(tmp_path / "t")
    original = make_encoder_decoder(tmp_path / "m", "mt5", vocab_size=size, own_head=True)
    save_t5_tokenizer(original)
    corpus, folders = pairs(tmp_path), [tmp_path / "whole", tmp_path / "killed"]
    for folder in folders:
        folder.mkdir()
    before = {"pass": "rtn", "scheme": "W4A16-g32"}
    whole = cut(original, corpus, folders[0], before)
    with watched(label, kill_at=5 if done else 1):
        cut(original, corpus, folders[1], before)
    with watched("compressing blocks") as amounts:
        again = cut(original, corpus, folders[1], before)
    assert amounts == done  # blocks that were rounded are not rounded again
    assert hash_tree(again) == hash_tree(whole)


def test_words_behind_a_space_are_what_a_model_that_hears_writes() -> None:
    assert spoken("river\n") == " river"
    assert spoken(" <|de|> river") == "<|de|> river"


def test_what_was_said_stays_and_languages_keep_their_tokens(
    make_whisper: Callable[..., Path], pico_sounds: Path, tmp_path: Path
) -> None:
    size = Tokenizer.open(make_whisper(tmp_path / "same")).vocab_size
    original, said = make_whisper(tmp_path / "m", vocab_size=size + 5), tmp_path / "said"
    said.mkdir()
    (said / "00.txt").write_text(f"<|de|><|transcribe|><|notimestamps|> {READ}", encoding="utf-8")
    made = cut(original, said, tmp_path)
    # Times follow the words, and may have no names.
    kept = [*kept_ids(original, made), *range(size, size + 5)]
    assert WeightSource.open(made).anatomy.vocab_size == len(kept)
    assert len(kept) - 5 < Tokenizer.open(original).vocab_size
    settings, before = read_json(made / "generation_config.json"), spoken_settings()
    for key in ("lang_to_id", "task_to_id"):
        assert {name: kept[one] for name, one in settings[key].items()} == before[key]
    forced = [[place, None if one is None else kept[one]] for place, one in settings["forced_decoder_ids"]]
    assert forced == before["forced_decoder_ids"]
    assert [kept[one] for one in settings["suppress_tokens"]] == [
        one for one in before["suppress_tokens"] if one in kept
    ]
    read, generator = torch.randn(2, 16, 200), torch.Generator().manual_seed(0)
    written = torch.randint(0, len(kept), (2, 6), generator=generator)
    with torch.no_grad():
        want = load_model(original)(input_features=read, decoder_input_ids=torch.tensor(kept)[written])
        found = load_model(made)(input_features=read, decoder_input_ids=written)
    torch.testing.assert_close(found.logits, want.logits[..., kept], rtol=0, atol=1e-6)
    model = open_bundle(export_bundle(made, output=tmp_path / "b"))
    assert isinstance(model, SpeechToTextModel)
    sound = min(pico_sounds.glob("*.wav"))
    reply = model.generate(sound, language="de", max_new_tokens=NEW)
    assert SPOKEN[0] not in reply.text
    whole = open_bundle(export_bundle(original, output=tmp_path / "whole"))
    assert isinstance(whole, SpeechToTextModel)
    places = model.model.section.prompt, whole.model.section.prompt
    assert [[kept[one] for one in place] for place in places[0]] == places[1]
