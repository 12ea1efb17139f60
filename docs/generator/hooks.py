"""MkDocs' hooks: pages that are made from the code or copied from the repository, and links between them."""

from typing import Any

from edgepress.docs.generator import copied_pages, reference, tree
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

# What stands in a page as <!-- generated: NAME -->.
GENERATED = {"tree": tree.tree, "imports": tree.imports, "evidence": copied_pages.evidence}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated and the copied pages."""
    for place, made in reference.PAGES.items():
        files.append(File.generated(config, place, content=made()))
    for place in copied_pages.COPIED:
        files.append(File.generated(config, place, content=copied_pages.page(place)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Fill in what is generated, and turn links to files of the repository into links of the site."""
    place = page.file.src_uri
    if place in copied_pages.COPIED:
        page.meta["search"] = {"boost": 0.1}  # found after the pages that explain
    if place in copied_pages.COPIED or place in reference.PAGES:
        return markdown
    for name, made in GENERATED.items():
        mark = f"<!-- generated: {name} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, made())
    return copied_pages.relinked(markdown, f"docs/{place}", place)
