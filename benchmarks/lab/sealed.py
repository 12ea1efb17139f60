"""The sealed text: what nobody chose a recipe, an option or a constant by, for the tables that are published.

    python -m edgepress.benchmarks.lab.sealed FILE

writes it. All other texts of the lab are development text: the held-out articles of the demo corpus have
decided options, and a study of training has learned from WikiText-2, test and validation. The sealed text is
other authors' on other matters: 293 news items of the Australian Broadcasting Corporation from 2000 and 2001
(Lee, Pincombe and Welsh, "An Empirical Evaluation of Models of Text Document Similarity", 2005), which the
package of the demo corpus carries and nothing else here reads. Its hash is committed. Passes are refused it.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...compress.text.demo_corpora import data_file
from ...errors import EdgepressError, InputError
from ...files.storage import sha256_file, write_atomic

SEALED = "sealed"
SOURCE = "lee_background.cor"
SHA256 = "5d78d6dafd953bbf65797bef09a9ffb9ec430583381be705f8fd460000f370fb"


def documents(source: Path | None = None) -> list[str]:
    """The news items, each once."""
    source = source or data_file(SOURCE)
    found = sha256_file(source)
    if found != SHA256:
        raise InputError(
            f"{source} is not the sealed text",
            why=f"its SHA-256 is {found}, not {SHA256}",
            fix="install gensim==4.4.0 again",
        )
    return list(dict.fromkeys(item.strip() for item in source.read_text(encoding="utf-8").splitlines()))


def write(target: Path) -> Path:
    """Write the news items, a paragraph each; raises as :func:`documents`."""
    write_atomic(target, ("\n\n".join(documents()) + "\n").encode())
    return target


def told(texts: Iterable[str]) -> str:
    """Which of ``texts``, as studies name them, are sealed, for the notes below a table."""
    named = list(dict.fromkeys(texts))
    development = [name for name in named if name != SEALED]
    parts = [f"development text ({', '.join(development)})"] if development else []
    parts += ["sealed text, which nothing was chosen by"] if SEALED in named else []
    return f"Measured on {' and on '.join(parts)}."


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    if len(arguments) != 1:
        print("usage: python -m edgepress.benchmarks.lab.sealed FILE", file=sys.stderr)
        return 2
    try:
        print(write(Path(arguments[0])))
    except EdgepressError as error:
        print(f"error [{error.code}]: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
