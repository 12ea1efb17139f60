"""``edgepress encode``: turn sentences or images into embeddings with an encoder bundle."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import InputError
from ...files.disk import disk_full_is_typed, make_folder
from ...files.output_paths import refuse_file
from ...files.storage import write_atomic
from ..encoder_question import EncoderQuestion, asks, bundle
from ..verb import Verb

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

# More texts than this do not fit a terminal as a matrix.
_SHOWN = 12


@click.command("encode", cls=Verb, old={"--file": "--text", "-f": "--text"})
@bundle
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the vectors as a .npy file.")
@click.option("--overwrite", is_flag=True, help="Replace the output file.")
@click.option(
    "--prompt",
    metavar="NAME",
    help='The model\'s prompt that is put in front of each text; "" for none. [default: the one it names]',
)
@asks("encode", images=True)
def command(question: EncoderQuestion, output: Path | None, overwrite: bool, prompt: str | None) -> None:
    """Embed TEXTS (or a file of them, or images) with the encoder BUNDLE.

    Without --output a few are shown with the cosine similarity of each pair.
    """
    from ...runtime.api import EmbeddingModel

    lines, terminal, file = question.lines, question.terminal, question.file
    what = "images" if question.images else "texts"
    _check(lines, output, terminal.as_json)
    if output is not None:
        read = [Path(line) for line in lines] if question.images else []
        refuse_file(output, overwrite=overwrite, inputs=[question.bundle, *([file] if file else []), *read])
    if question.images:
        if prompt is not None:
            raise InputError("a prompt is given beside images", fix="encode texts with it")
        vectors = question.images_opened().encode(lines, **question.reading(_SHOWN))
    else:
        vectors = question.opened(EmbeddingModel).encode(lines, prompt=prompt, **question.reading(_SHOWN))
    if output is not None:
        _save(output, vectors)
        found: dict[str, Any] = {"output": str(output), what: len(lines), "dimensions": vectors.shape[1]}
        terminal.document(found, f"{len(lines)} vectors of {vectors.shape[1]} numbers in {output}")
        return
    similarity = _cosine(vectors)
    found = {what: lines, "embeddings": vectors.tolist(), "similarity": similarity.tolist()}
    terminal.document(found, None if terminal.as_json else _table(lines, similarity))


def _check(lines: list[str], output: Path | None, as_json: bool) -> None:
    if output is None and not as_json and len(lines) > _SHOWN:
        raise InputError(
            f"{len(lines)} texts are too many to show",
            fix="write the vectors with --output FILE.npy, or use --json",
        )


def _save(output: Path, vectors: np.ndarray[Any, Any]) -> None:
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, vectors, allow_pickle=False)
    make_folder(output.parent)
    with disk_full_is_typed(output):
        write_atomic(output, buffer.getvalue())


def _cosine(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
    similarity: np.ndarray[Any, Any] = unit @ unit.T
    return similarity


def _table(lines: list[str], similarity: np.ndarray[Any, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("", "text", *[str(number + 1) for number in range(len(lines))], title="cosine similarity")
    for number, line in enumerate(lines):
        shown = line if len(line) <= 48 else line[:47] + "…"
        table.add_row(str(number + 1), Text(shown), *[f"{value:.3f}" for value in similarity[number]])
    return table
