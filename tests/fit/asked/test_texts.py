"""Text in three parts: each document in one of them, neighbours mostly together; too little is refused."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from edgepress.compress.text.corpus import read_corpus
from edgepress.errors import CalibrationError
from edgepress.fit.asked.texts import Texts, split_text


def parts(texts: Texts) -> list[list[str]]:
    files = (Path(texts.calibration), texts.development, texts.held_out)
    return [read_corpus(str(file)).texts() for file in files]


@pytest.mark.parametrize("lengths", [[40] * 60, [10 * (1 + n % 17) for n in range(200)]])
def test_each_document_is_in_one_part(tmp_path: Path, lengths: list[int]) -> None:
    documents = [f"{number} " + "x" * length for number, length in enumerate(lengths)]
    (tmp_path / "text.txt").write_text("\n\n".join(documents))
    found = parts(split_text(str(tmp_path / "text.txt"), "text", tmp_path / "parts"))
    assert sorted(document for part in found for document in part) == sorted(documents)
    sizes = [sum(map(len, part)) / sum(map(len, documents)) for part in found]
    assert sizes == pytest.approx([2 / 3, 1 / 6, 1 / 6], abs=0.05)
    for part in found[1:]:
        numbers = [int(document.split()[0]) for document in part]
        assert sum(after != before + 1 for before, after in pairwise(numbers)) == 1  # two runs


def test_what_is_repeated_is_in_one_part(tmp_path: Path) -> None:
    rows = [{"text": f"{number % 30} and more words", "label": number % 2} for number in range(90)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    texts = split_text(str(tmp_path / "rows.jsonl"), "text", tmp_path / "parts")
    found = parts(texts)
    documents = [document for part in found for document in part]
    assert len(documents) == len(set(documents)) == 30 and texts.repeated == 60
    assert list(texts.documents.values()) == list(map(len, found)) and min(map(len, found)) > 0


def test_what_differs_in_spaces_around_it_is_the_same(tmp_path: Path) -> None:
    rows = [{"text": f"{number // 2} {'x' * 40}{' ' * (number % 2)}"} for number in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert split_text(str(tmp_path / "rows.jsonl"), "text", tmp_path / "parts").repeated == 20


def test_few_documents_that_are_repeated_are_too_few(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join(["one", "two"] * 20))
    with pytest.raises(CalibrationError, match="2 different documents, too few"):
        split_text(str(tmp_path / "text.txt"), "text", tmp_path / "parts")


def test_conversations_and_labels_stay(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"say {n}"}], "label": n % 2} for n in range(24)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    texts = split_text(str(tmp_path / "rows.jsonl"), "text", tmp_path / "parts")
    kept = [json.loads(line) for line in Path(texts.calibration).read_text().splitlines()]
    assert len(kept) == 16 and all(row in rows for row in kept)


def test_pairs_stay_whole(tmp_path: Path) -> None:
    rows = [{"input": f"in {n}", "output": f"out {n}"} for n in range(24)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    texts = split_text(str(file), "text", tmp_path / "parts", paired=True)
    kept = [read_corpus(str(path), paired=True) for path in (texts.calibration, texts.development)]
    for corpus in kept:
        assert [f"out {str(text).removeprefix('in ')}" for text in corpus.documents] == list(corpus.targets)
    file.write_text("\n".join(map(json.dumps, [*rows[:-1], {"text": "alone"}])))
    with pytest.raises(CalibrationError, match="1 of 24 rows"):
        split_text(str(file), "text", tmp_path / "parts", paired=True)


def test_too_few_documents(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one\n\ntwo\n\nthree")
    with pytest.raises(CalibrationError, match="3 documents, too few") as error:
        split_text(str(tmp_path / "text.txt"), "text", tmp_path / "parts")
    assert "paragraphs" in error.value.fix
