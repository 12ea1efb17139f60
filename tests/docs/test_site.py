"""The site: pages made from the code and copied from the repository, and links between them."""

import json
import re
from pathlib import Path

import edgepress
import pytest
from edgepress.cli.verb import VERBS
from edgepress.compress.pipeline.pass_names import pass_names
from edgepress.compress.recipe_files import names
from edgepress.docs.generator import copied_pages, engines, reference, trade_off, tree

ROOT = Path(edgepress.__file__).parent
FLOORS = ("files", "terminal", "runtime", "compress", "export", "devices", "benchmarks", "fit", "cli")
HEADING = re.compile(r"^#+ (.*)$", re.M)


def headings(markdown: str) -> set[str]:
    return set(HEADING.findall(re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S)))


def test_the_tree_names_every_room_and_no_other() -> None:
    found: set[str] = set()
    folders: list[str] = []
    for match in re.finditer(r"^( *)(\w+)/ ", tree.tree(), flags=re.M):
        folders = [*folders[: len(match[1]) // 2], match[2]]
        found.add("/".join(folders))
    inits = [path for floor in FLOORS for path in (ROOT / floor).rglob("__init__.py")]
    assert found == {path.parent.relative_to(ROOT).as_posix() for path in inits} | {
        "compress/recipes",
        "tests",
    }


def test_the_reference_has_every_verb_pass_recipe_and_error() -> None:
    assert set(VERBS) <= headings(reference.verbs())
    assert "recipe show" in headings(reference.verbs())
    assert set(pass_names()) <= headings(reference.passes())
    assert set(names()) <= headings(reference.recipes())
    assert {"E-INPUT", "E-RESOURCE", "E-INTERRUPTED"} <= headings(reference.error_codes())
    assert set(edgepress.__all__) - {"__version__"} <= headings(reference.python_api())
    assert json.loads(reference.schema_file())["title"] == "edgepress recipe"


def test_tables_of_the_reference_have_as_many_cells_in_every_row() -> None:
    for made in (reference.verbs, reference.passes, reference.recipes, reference.targets):
        for block in re.findall(r"(?:^\|.*\|\n)+", made(), flags=re.M):
            plain = re.sub(r"`[^`\n]*`", "", block)
            cells = {len(re.findall(r"(?<!\\)\|", line)) for line in plain.splitlines()}
            assert len(cells) == 1, block


def test_links_arrive_in_the_repository_and_on_the_site() -> None:
    markdown = "[a](../../SECURITY.md) [b](../results/index.md#evidence) [c](https://x.example) [d](#here)"
    assert copied_pages.relinked(markdown, "docs/how-to/x.md", "how-to/x.md") == (
        "[a](../project/security.md) [b](../results/index.md#evidence) [c](https://x.example) [d](#here)"
    )
    markdown = "[a](benchmarks/lab/results/kills.md) [b](docs/threats.md)"
    assert copied_pages.relinked(markdown, "SECURITY.md", "project/security.md") == (
        "[a](../results/pages/kills.md) [b](../threats.md)"
    )


def test_the_picture_is_that_of_the_measurements() -> None:
    assert trade_off.PICTURE.read_text(encoding="utf-8") == trade_off.picture()
    assert engines.PICTURE.read_text(encoding="utf-8") == engines.picture()


@pytest.mark.chain
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    """Needs the extra `docs`; `make docs` is the same with its packages installed."""
    mkdocs = pytest.importorskip("mkdocs.commands.build", reason="the extra docs is not installed")
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path))
    mkdocs.build(config)
    assert (tmp_path / "reference" / "verbs.html").is_file()
    pages = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")]
    loaded = {
        match
        for page in pages
        for match in re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?:[^"]*)"', page)
    }
    assert not loaded, "the site loads nothing from elsewhere"
