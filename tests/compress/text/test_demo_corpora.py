"""Wikipedia text: markup is gone, prose is whole, and the two splits share nothing."""

import bz2
import importlib.util
import io
import re
import sys
from pathlib import Path

import pytest
from edgepress.compress.text import demo_corpora
from edgepress.errors import InputError, MissingDependency, UnknownName
from hypothesis import given, settings
from hypothesis import strategies as st

PROSE = (
    "A sentence is taken for prose when it is long enough, "
    + "and so this one goes on and on, " * 3
    + "to here."
)


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("'''Bold''' and ''italic''", "Bold and italic"),
        ("[[Target|label]] and [[plain]]s", "label and plains"),
        ("[[File:a.jpg|thumb|A [[nested|link]] in a caption]]after", "after"),
        ("[[Category:Things]]x", "x"),
        ("text<ref name='a'>note with [[link]]</ref> goes<ref name=b /> on", "text goes on"),
        ("kept {{cite|a={{nested|b}}}}too", "kept too"),
        ("{| class=x\n| cell\n{| inner |}\n|}after", "after"),
        ("it is {{convert|5|km|mi}} long", "it is 5 km long"),
        ("{{lang|el|λόγος}}", "λόγος"),
        ("[http://example.org the label]", "the label"),
        ("a<!-- hidden\nover lines -->b", "ab"),
        ("a &mdash; b&nbsp;c <br/>d<sup>2</sup>", "a — b\u00a0c d2"),
        ("body\n== See also ==\n* [[Other]]", "body\n"),
    ],
)
def test_markup_becomes_text(markup: str, text: str) -> None:
    assert demo_corpora.plain_text(markup) == text


def test_paragraphs_are_prose_only() -> None:
    prose = [f"* {PROSE} ({{{{IPA|x}}}}) It ends.", f"'''{PROSE}''' More."]
    markup = "\n".join(["== Heading ==", "short line", prose[0], "{|", f"| {PROSE}", "|}", "", prose[1]])
    assert demo_corpora.paragraphs(markup) == [f"{PROSE} It ends.", f"{PROSE} More."]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="{}[]|<>!='/ref-\n ab:", max_size=80))
def test_any_markup_terminates_and_leaves_no_closed_template(markup: str) -> None:
    assert not re.search(r"\{\{[^{}]*\}\}", demo_corpora.plain_text(markup).replace("'", ""))


def dump(*pages: str) -> bytes:
    namespace = "http://www.mediawiki.org/xml/export-0.10/"
    return f'<mediawiki xmlns="{namespace}">{"".join(pages)}</mediawiki>'.encode()


def page(title: str, text: str, ns: int = 0, extra: str = "") -> str:
    return f"<page><title>{title}</title><ns>{ns}</ns>{extra}<revision><text>{text}</text></revision></page>"


def test_dump_drops_redirects_other_namespaces_and_empty_articles() -> None:
    data = dump(
        page("Kept", f"{PROSE} One.\nshort\n{PROSE} Two."),
        page("Gone", f"{PROSE} Three.", extra='<redirect title="Kept"/>'),
        page("Talk", f"{PROSE} Four.", ns=1),
        page("Stub", "short"),
    )
    assert list(demo_corpora.read_dump(io.BytesIO(data))) == [("Kept", f"{PROSE} One.\n\n{PROSE} Two.")]


def test_splits_share_no_article_and_no_paragraph() -> None:
    calibration, held_out = demo_corpora.articles("calibration"), demo_corpora.articles("held-out")
    assert len(calibration) + len(held_out) > 95
    assert len(calibration) > 1.8 * len(held_out) > 50
    assert demo_corpora.articles("held-out") == held_out
    first = {paragraph for article in calibration for paragraph in article.split("\n\n")}
    second = {paragraph for article in held_out for paragraph in article.split("\n\n")}
    assert not first & second
    assert sum(map(len, calibration + held_out)) > 2_000_000


def test_no_markup_is_left_in_the_articles() -> None:
    text = "\n".join(demo_corpora.articles("held-out"))
    for mark in ("{{", "}}", "[[", "]]", "<ref", "'''", "&nbsp;", "thumb|"):
        assert mark not in text


def test_gensim_is_found_but_not_imported() -> None:
    demo_corpora.articles("held-out")
    demo_corpora.pairs("simlex999")
    assert "gensim" not in sys.modules


def test_broken_dump_is_a_typed_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "dump.bz2"
    broken.write_bytes(bz2.compress(b"<mediawiki><page>"))
    monkeypatch.setattr(demo_corpora, "data_file", lambda _: broken)
    with pytest.raises(InputError, match=r"dump\.bz2"):
        demo_corpora.articles("held-out")
    broken.write_bytes(b"not compressed")
    with pytest.raises(InputError, match=r"dump\.bz2"):
        demo_corpora.articles("held-out")


def test_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_corpora, "find_spec", lambda _: None)
    with pytest.raises(MissingDependency) as caught:
        demo_corpora.data_file("wordsim353.tsv")
    assert "pip install --no-deps gensim==4.4.0" in caught.value.fix
    monkeypatch.setattr(demo_corpora, "find_spec", importlib.util.find_spec)
    with pytest.raises(MissingDependency, match=r"nothing\.tsv"):
        demo_corpora.data_file("nothing.tsv")


def test_word_pairs() -> None:
    wordsim, simlex = demo_corpora.pairs("wordsim353"), demo_corpora.pairs("simlex999")
    assert (len(wordsim), len(simlex)) == (353, 999)
    assert wordsim[0] == ("love", "sex", 6.77)
    assert simlex[1] == ("smart", "intelligent", 9.2)
    assert all(0 <= rating <= 10 for _, _, rating in wordsim + simlex)
    with pytest.raises(UnknownName, match="wordsim"):
        demo_corpora.pairs("wordsim")


def test_bad_pair_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("# head\na\tb\t1.0\nbroken line\n", encoding="utf-8")
    monkeypatch.setattr(demo_corpora, "data_file", lambda _: path)
    with pytest.raises(InputError, match=r"pairs\.tsv:3"):
        demo_corpora.pairs("simlex999")
