"""Which licence a model's own files state: what they say, and texts that are known word for word."""

import json
from pathlib import Path

import pytest
from edgepress.compress.model.license import License, license_of, named

APACHE = (Path(__file__).parents[3] / "LICENSE").read_text(encoding="utf-8")
MIT = """MIT License

Copyright (c) 2020 Somebody Or Other

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES
OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
CLAUSE = "\nThe grant of rights will not include, and the licence does not grant to you, the right to sell.\n"


@pytest.mark.parametrize(
    ("front", "expected"),
    [
        ("license: apache-2.0", "Apache-2.0"),
        ("license: 'mit'", "MIT"),
        ("license: llama3.2", "llama3.2"),
        ("license: other\nlicense_name: qwen-research", "qwen-research"),
        ("license: other", "other"),
        ("tags: [license]", None),
        ("license: [x](http://example.org) <script>", None),
        ("license: !!python/object:os.system []", None),
    ],
)
def test_the_card_says_it(tmp_path: Path, front: str, expected: str | None) -> None:
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\nlicense: none of the front matter\n")
    assert license_of(tmp_path) == (None if expected is None else License(expected, "README.md"))


def test_a_card_without_front_matter_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Model\nlicense: mit\n")
    assert license_of(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (APACHE, "Apache-2.0"),
        (APACHE.replace("\n", "\r\n"), "Apache-2.0"),
        (MIT, "MIT"),
        (MIT.replace("without restriction", "with restrictions"), None),
        (MIT + CLAUSE, None),
        (APACHE + CLAUSE, None),
        ("Commons Clause" + 5 * CLAUSE + APACHE, None),
        ("All rights reserved.", None),
        ("", None),
    ],
    ids="apache crlf mit changed mit+clause apache+clause clause+apache reserved empty".split(),
)
def test_a_text_is_known_word_for_word(tmp_path: Path, text: str, expected: str | None) -> None:
    (tmp_path / "LICENSE.txt").write_text(text, newline="")
    assert license_of(tmp_path) == (None if expected is None else License(expected, "LICENSE.txt"))


def test_of_two_texts_neither_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "LICENSE-MIT").write_text(MIT)
    (tmp_path / "LICENSE-APACHE").write_text(APACHE)
    assert license_of(tmp_path) is None


def test_a_compressed_checkpoint_keeps_what_its_original_said(tmp_path: Path) -> None:
    source = {"license": {"name": "mit", "said_by": "README.md"}}
    (tmp_path / "edgepress.json").write_text(json.dumps({"source": source}))
    assert license_of(tmp_path) == License("MIT", "README.md")


@pytest.mark.parametrize(
    "manifest",
    ["[]", "null", '{"source": []}', '{"source": {"license": {"name": [1]}}}', '{"source": {"license": {}}}'],
)
def test_a_strange_manifest_says_nothing(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "edgepress.json").write_text(manifest)
    assert license_of(tmp_path) is None


def test_a_name_is_short_and_plain() -> None:
    assert named("apache-2.0", "x") == License("Apache-2.0", "x")
    for name in (None, 1, "", "a b", "x" * 65, "a\nb", "](javascript:"):
        assert named(name, "x") is None
