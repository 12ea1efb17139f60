"""Pipes, sockets, devices and directories in the place of files: refused at once, and never opened."""

import json
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from edgepress.cli.bundle_options import text_lines
from edgepress.cli.entry import run
from edgepress.compress.model.checkpoint.gguf_header import read_gguf_header
from edgepress.compress.model.models import resolve
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.recipe import load_recipe
from edgepress.compress.text.corpus import read_corpus
from edgepress.errors import EdgepressError, InputError
from edgepress.export.proof.proof_text import proof_text
from edgepress.files.storage import open_regular, read_json, read_regular, read_text, sha256_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in folders")


def _pipe(path: Path) -> Path:
    import os

    os.mkfifo(path)
    return path


def _socket(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
    return path


def _directory(path: Path) -> Path:
    path.mkdir()
    return path


def _device(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


KINDS = {"a named pipe": _pipe, "a socket": _socket, "a directory": _directory, "a device": _device}
READERS: dict[str, Callable[[Path], object]] = {
    "bytes": read_regular,
    "text": read_text,
    "JSON": read_json,
    "hash": sha256_file,
    "GGUF header": read_gguf_header,
    "recipe": lambda path: load_recipe(str(path)),
    "proof": proof_text,
    "texts": text_lines,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_no_reader_opens_it(kind: str, reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=kind):
        READERS[reader](KINDS[kind](Path("x.gguf")))


def test_a_regular_file_is_read_and_what_is_absent_says_so(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"a\r\nb")
    assert (read_regular(tmp_path / "f"), read_text(tmp_path / "f")) == (b"a\r\nb", "a\nb")
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nothing")


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        *("generation_config.json", "model.safetensors.index.json", "modules.json", "edgepress.json"),
    ],
)
def test_no_file_of_a_checkpoint_may_be_a_pipe(name: str, pico_llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(pico_llama, tmp_path / "model")
    (folder / name).unlink(missing_ok=True)
    if name.endswith("index.json"):
        (folder / "model.safetensors").unlink()
    _pipe(folder / name)
    with pytest.raises(EdgepressError, match="named pipe"):
        WeightSource.open(folder)


def test_no_shard_may_be_a_device(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_decoder(tmp_path / "model", shard="200KB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shard = folder / min(index["weight_map"].values())
    shard.unlink()
    _device(shard)
    with pytest.raises(EdgepressError, match="link that leaves"):
        WeightSource.open(folder)


@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a device"])
def test_texts_and_models(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = KINDS[kind](Path("x.txt"))
    with pytest.raises(InputError, match=kind):
        read_corpus(str(path))
    with pytest.raises(InputError, match="not a model"):
        resolve(str(path))
    assert run(["compare", str(path)]) == 2
    assert run(["report", str(path), "-o", "page.html"]) == 2
