"""Whatever edgepress writes, ``verify`` opens, and finds every change of it: each format of the folder, and a
compressed checkpoint.
"""

import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from edgepress.cli.program import edgepress
from edgepress.compress.api import compress_model
from edgepress.errors import BundleError, EdgepressError, InputError
from edgepress.export.api import FORMATS, export_bundle
from edgepress.files.storage import sha256_file
from edgepress.plugins import names
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.bundle.verification import verify_directory

pytestmark = [pytest.mark.chain, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

CHECKPOINT, FLIPS = "checkpoint", 500
# A ternary Llama in whole blocks of GGUF is what every format can hold.
TERNARY = {"pass": "ternary", "scales": "matrix", "tokens": 64, "batch_tokens": 64, "piece_tokens": 64}
WIDE = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1, "head_dim": 64}


@pytest.fixture(scope="module")
def checkpoint(make_decoder: Callable[..., Path], pico_text: Path, tmp_path_factory: Any) -> Path:
    """A compressed checkpoint of one block."""
    folder = tmp_path_factory.mktemp("verification")
    (folder / "r.yaml").write_text(yaml.safe_dump({"name": "r", "passes": [{**TERNARY, "group_size": 64}]}))
    made = {"recipe": str(folder / "r.yaml"), "output": folder / "o", "samples": 8, "length": 32}
    return compress_model(str(make_decoder(folder / "m", **WIDE)), calibration=str(pico_text), **made)


@pytest.fixture(scope="module", params=[CHECKPOINT, *names(FORMATS)])
def published(request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: Any) -> Path:
    """What a command wrote: the checkpoint itself, or an export of it. Read only."""
    if request.param == CHECKPOINT:
        return checkpoint
    folder = tmp_path_factory.mktemp("published")
    if request.param == "awq":  # of 4 bits alone
        checkpoint = compress_model(str(checkpoint.parent / "m"), scheme="W4A16-g64", output=folder / "four")
    output = folder / str(request.param)
    return export_bundle(checkpoint, format=request.param, output=output, validate=False)


@pytest.fixture
def output(published: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(published, tmp_path / "copy")


def verify(path: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(edgepress, ["verify", str(path), *options])
    if isinstance(result.exception, EdgepressError):  # which the entry of the program turns into this
        return result.exception.exit_code, str(result.exception.why)
    return result.exit_code, result.output


def test_verify_and_inspect_open_it(output: Path) -> None:
    code, text = verify(output, "--json")
    document = json.loads(text)
    assert (code, document["ok"], document["problems"]) == (0, True, [])
    assert document["files"] == sum(path.is_file() for path in output.rglob("*")) - 1
    shown = CliRunner().invoke(edgepress, ["inspect", str(output), "--json"], catch_exceptions=False)
    assert json.loads(shown.output)["what"] == document["kind"]
    if document["kind"] == "saved":
        with pytest.raises(BundleError, match=r"edgepress\.saved/1") as refused:
            Bundle.open(output)
        assert "another runtime" in str(refused.value.fix)


def test_every_single_bit_flip_is_found(output: Path) -> None:
    generator, published = random.Random(0), verify_directory(output)
    files = sorted(path for path in output.rglob("*") if path.is_file())
    for index in range(FLIPS):
        path = files[index % len(files)]  # small files, the manifest among them, as often as large ones
        data = path.read_bytes()
        bit = generator.randrange(8 * len(data))
        with path.open("r+b") as stream:
            stream.seek(bit // 8)
            stream.write(bytes([data[bit // 8] ^ 1 << bit % 8]))
        with suppress(EdgepressError):  # a manifest that is none any more
            found = verify_directory(output)
            name = path.relative_to(output).as_posix()
            named = [problem for problem in found.problems if problem.startswith(name)]
            assert named or found.manifest_sha256 != published.manifest_sha256
        path.write_bytes(data)
    assert verify_directory(output) == published


def added(folder: Path) -> str:
    (folder / "below").mkdir()
    (folder / "below" / "extra.py").write_text("x")
    return "below/extra.py is not in the manifest"


def removed(folder: Path) -> str:
    name = _two(folder)[0]
    (folder / name).unlink()
    return f"{name} is missing"


def renamed(folder: Path) -> str:
    name = _two(folder)[0]
    (folder / name).rename(folder / f"{name}.old")
    return f"{name}.old is not in the manifest"


def swapped(folder: Path) -> str:
    first, second = _two(folder)
    (folder / first).rename(folder / "x")
    (folder / second).rename(folder / first)
    (folder / "x").rename(folder / second)
    return f"{first} has"


def emptied(folder: Path) -> str:
    (folder / "empty").mkdir()
    return "empty is an empty directory"


def with_a_pipe(folder: Path) -> str:
    name = _two(folder)[0]
    (folder / name).unlink()
    os.mkfifo(folder / name)
    return f"{name} is a FIFO"


def linked(folder: Path) -> str:
    name = _two(folder)[0]
    (folder / name).rename(folder.parent / "outside")
    (folder / name).symlink_to(folder.parent / "outside")
    return f"{name} is a symbolic link"


def _two(folder: Path) -> tuple[str, str]:
    """Two files that the manifest lists, the tokenizer first where there is one; the second may be added."""
    manifest = next(path for name in ("manifest.json", "edgepress.json") if (path := folder / name).exists())
    listed = sorted(json.loads(manifest.read_text())["files"], key=lambda name: name != "tokenizer.json")
    if len(listed) == 1:
        (folder / "other").write_text("x")
    return (*listed, "other")[:2]


DAMAGE = [added, removed, renamed, swapped, emptied, with_a_pipe, linked]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no FIFOs")
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda function: function.__name__)
def test_damage_is_named(output: Path, damage: Callable[[Path], str]) -> None:
    expected = damage(output)
    code, text = verify(output)
    assert (code, expected in text) == (1, True), text


def test_twenty_copies_are_as_published(published: Path, tmp_path: Path) -> None:
    digest = verify_directory(published).manifest_sha256
    for index in range(20):
        copy = tmp_path / f"under another name {index}"  # and with their own dates and modes
        shutil.copytree(published, copy, copy_function=shutil.copyfile)
        assert verify(copy, "--manifest-sha256", digest, "-q") == (0, "")


@pytest.mark.parametrize("beside", [True, False])
def test_a_file_by_itself_says_what_to_verify_it_with(published: Path, tmp_path: Path, beside: bool) -> None:
    file = max((path for path in published.iterdir() if path.is_file()), key=lambda path: path.stat().st_size)
    alone = file if beside else Path(shutil.copyfile(file, tmp_path / file.name))
    with pytest.raises(InputError, match="single file") as refused:
        verify_directory(alone)
    assert sha256_file(file) in str(refused.value.why)
    assert (f"verify {published}" in str(refused.value.fix)) == beside
