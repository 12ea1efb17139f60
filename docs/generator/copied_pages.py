"""Pages of the site that are files elsewhere in the repository, and links between the two.

A page links to other files as they lie in the repository, so that its links arrive there too; on the site
they lead to the copies.
"""

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
RESULTS = "benchmarks/lab/results"
# Files of the repository, by their place on the site.
COPIED = {
    "project/changelog.md": "CHANGELOG.md",
    "project/contributing.md": "CONTRIBUTING.md",
    "project/security.md": "SECURITY.md",
    **{
        f"results/pages/{path.name}": f"{RESULTS}/{path.name}"
        for path in (ROOT / RESULTS).iterdir()
        if path.suffix in (".md", ".svg")
    },
}
_PLACES = {source: place for place, source in COPIED.items()}
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)")


def page(place: str) -> str:
    """The text of a copied file; of a page of Markdown with links that arrive on the site."""
    source = COPIED[place]
    text = (ROOT / source).read_text(encoding="utf-8")
    return relinked(text, source, place) if place.endswith(".md") else text


def relinked(markdown: str, source: str, place: str) -> str:
    """``markdown`` of the file ``source`` of the repository, with its links as seen from ``place`` on the
    site. A link to a file that is not there is kept, so that the strict build fails on it.
    """

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        there = _PLACES.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
        return posixpath.relpath(there, posixpath.dirname(place) or ".") if there else match[1]

    return _LINK.sub(link, markdown)


def evidence() -> str:
    """A list of the pages of results, as Markdown for ``results/index.md``."""
    pages = (Path(place) for place in COPIED if place.endswith(".md"))
    names = sorted(page.name for page in pages if page.parent == Path("results/pages"))
    return "\n".join(f"- [{_title(name)}](pages/{name})" for name in names)


def _title(name: str) -> str:
    with (ROOT / RESULTS / name).open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip()
