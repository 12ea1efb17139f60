"""Text sources: what is read, in which order, and what is refused with which words."""

import json
from pathlib import Path

import pytest
from edgepress.compress.text import corpus
from edgepress.compress.text.corpus import read_corpus, texts_from
from edgepress.errors import CalibrationError, InputError, UnknownName

pytestmark = pytest.mark.chain


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def rows(*values: object) -> str:
    return "\n".join(json.dumps(value) for value in values)


CHAT = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]


def test_prose_is_split_at_blank_lines(tmp_path: Path) -> None:
    source = write(tmp_path / "a.txt", "\ufeffone\nstill one\n\ntwo\n   \n\n\nthree\n")
    assert texts_from(source) == ["one\nstill one", "two", "three"]


def test_jsonl_rows_with_a_field_or_messages(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", rows({"body": "one\u2028line"}, {"messages": CHAT}) + "\n\n")
    assert read_corpus(source, field="body").documents == ("one\u2028line", tuple(CHAT))
    assert texts_from(source, field="body") == ["one\u2028line", "Hello?\n\nHello."]


def test_directory_reads_its_texts_by_name(tmp_path: Path) -> None:
    write(tmp_path / "b.txt", "second")
    write(tmp_path / "a.jsonl", rows({"text": "first"}))
    (tmp_path / "c").mkdir()
    write(tmp_path / "c" / "d.txt", "third")
    write(tmp_path / "image.png", b"\x89PNG")
    assert texts_from(str(tmp_path)) == ["first", "second", "third"]


def test_demo_corpus_has_splits() -> None:
    assert texts_from("wikipedia", split="held-out") != texts_from("wikipedia", split="calibration")


def test_distinct_keeps_the_first_of_each(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", rows(*({"text": text} for text in ("b", "a", "b", "", "c", "a"))))
    found = read_corpus(source)
    assert found.distinct() == ["b", "a", "c"]
    assert (found.duplicates, found.empty) == (2, 1)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"good text \xe9 bad", r"a\.txt is not UTF-8: byte 0xe9 at offset 10"),
        ("a.txt", b"\xef\xbb\xbf\xff", "offset 3"),
        ("a.txt", " \n\n \n", r"holds no text"),
        ("a.jsonl", rows({"text": ""}, {"text": "  "}), r"holds no text \(2 empty"),
        ("a.txt", "same\n\nsame\n\nsame", "3 documents that are all the same"),
        ("a.jsonl", rows({"text": "x"}) + "\n{broken", r"a\.jsonl:2 is not JSON"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl:1 is not JSON"),
        ("a.jsonl", rows({"text": "x"}, ["y"]), r"a\.jsonl:2 is not a JSON object but a list"),
        ("a.jsonl", rows({"title": "x", "body": "y"}), r"(?s)no field 'text'.*'title', 'body'"),
        ("a.jsonl", rows({"text": 5}), "neither text nor a list of messages"),
        ("a.jsonl", rows({"messages": [{"role": "user"}]}), "neither text nor a list of messages"),
    ],
)
def test_faults_are_named(tmp_path: Path, name: str, content: str | bytes, words: str) -> None:
    with pytest.raises(CalibrationError, match=words):
        read_corpus(write(tmp_path / name, content))


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'wikipedia'"):
        read_corpus("wikipedai")
    with pytest.raises(InputError, match="no text at"):
        read_corpus("missing/file.txt")
    with pytest.raises(CalibrationError, match=r"no \.txt or \.jsonl"):
        read_corpus(str(tmp_path))


def test_too_much_text_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "a.txt", "x" * 2000)
    monkeypatch.setattr(corpus, "LIMIT", 1999)
    with pytest.raises(CalibrationError, match="excerpt"):
        read_corpus(source)
