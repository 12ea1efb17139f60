"""Weight files: each is opened once, few at a time, and closed with the last that reads them."""

import gc
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.checkpoint.reader import CheckpointReader
from edgepress.compress.model.checkpoint.shards import INDEX, SINGLE, ShardFiles, locate
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.export.api import export_bundle
from edgepress.files.storage import read_json, write_json
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.chain


_COUNTING: list[tuple[str, Counter[str]]] = []


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _COUNTING and isinstance(arguments[0], str | os.PathLike):
        folder, counter = _COUNTING[-1]
        path = os.path.realpath(arguments[0])
        if path.startswith(folder + os.sep):
            counter[os.path.relpath(path, folder)] += 1


sys.addaudithook(_hook)  # there is no way to take one away: it looks at the last of the list, if any


@contextmanager
def opens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts how often each file below ``folder`` is opened, by Python or by safetensors' own code."""
    import safetensors.torch

    counter: Counter[str] = Counter()
    theirs = safetensors.torch.safe_open

    def counted(path: str | os.PathLike[str], *rest: object, **options: object) -> object:
        _hook("open", (path,))
        return theirs(path, *rest, **options)

    _COUNTING.append((os.path.realpath(folder), counter))
    try:
        with monkeypatch.context() as patch:
            patch.setattr(safetensors.torch, "safe_open", counted)
            patch.setattr(safetensors, "safe_open", counted)
            yield counter
    finally:
        _COUNTING.pop()


def held(folder: Path) -> int:
    """Descriptors of this process below ``folder`` when nothing unreachable is left."""
    gc.collect()
    return descriptors(folder)


def descriptors(folder: Path) -> int:
    return sum(file.path.startswith(os.path.realpath(folder)) for file in psutil.Process().open_files())


@pytest.fixture
def sharded(make_decoder: Callable[..., Path], tmp_path: Path) -> Path:
    return make_decoder(tmp_path / "sharded", shard="200KB")


def test_every_shard_is_opened_once_and_closed_with_the_reader(
    sharded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opens(sharded, monkeypatch) as counter:
        reader = CheckpointReader.open(sharded)
        for name in [*reader.shapes, *reversed(reader.shapes)]:
            reader.read([name])
        reader.fingerprint()
    shards = {path.name for path in sharded.glob("*.safetensors")}
    assert len(shards) > 2 and {name: counter[name] for name in shards} == dict.fromkeys(shards, 1)
    if sys.platform != "win32":
        assert held(sharded) == len(shards)
    reader.close()
    assert held(sharded) == 0
    assert reader.read(reader.shapes).keys() == reader.shapes.keys()
    del reader
    assert held(sharded) == 0


def test_shards_may_lie_in_folders_below_the_index(sharded: Path) -> None:
    expected = CheckpointReader.open(sharded)
    wanted = {name: expected.read([name])[name].clone() for name in expected.shapes}
    expected.close()
    content = read_json(sharded / INDEX)
    for number, shard in enumerate(sorted(sharded.glob("*.safetensors"))):
        (folder := sharded / "parts" / str(number)).mkdir(parents=True)
        shard.rename(folder / shard.name)
        moved = {name for name, file in content["weight_map"].items() if file == shard.name}
        content["weight_map"] |= dict.fromkeys(moved, f"parts/{number}/{shard.name}")
    write_json(sharded / INDEX, content)
    reader = CheckpointReader.open(sharded)
    assert reader.shapes.keys() == wanted.keys()
    assert all(torch.equal(reader.read([name])[name], tensor) for name, tensor in wanted.items())


@pytest.mark.parametrize("most", [0, 2])
def test_few_files_are_open_at_a_time(most: int, sharded: Path) -> None:
    files = ShardFiles(held=most)
    located = locate(sharded, files)
    assert held(sharded) == most
    for name, location in reversed(located.items()):
        found = torch.empty(location.entry.end - location.entry.start, dtype=torch.uint8)
        assert files.read_into(found.numpy().data, location.path, location.entry.start) == len(found)
        assert bytes(found) == load_file(location.path)[name].view(torch.uint8).numpy().tobytes()
        assert descriptors(sharded) <= max(most, 1)


def test_an_index_that_lies_leaves_nothing_open(sharded: Path) -> None:
    last = sorted(sharded.glob("*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[:-1])
    with pytest.raises(Exception, match=last.name):
        CheckpointReader.open(sharded)
    assert held(sharded) == 0


def test_threads_share_a_descriptor(pico_llama: Path) -> None:
    reader, expected = CheckpointReader.open(pico_llama), load_file(pico_llama / SINGLE)
    wrong: list[str] = []

    def read() -> None:
        for _ in range(5):
            wrong.extend(
                name for name in expected if not torch.equal(reader.read([name])[name], expected[name])
            )

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_compression_and_an_export_open_weights_a_few_times(
    pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opens(pico_llama, monkeypatch) as counter:
        compress_model(str(pico_llama), scheme="W8A8", output=tmp_path / "small")
    assert counter[SINGLE] == 1
    with opens(tmp_path / "small", monkeypatch) as counter:
        export_bundle(tmp_path / "small", output=tmp_path / "bundle")
    assert counter[SINGLE] == 1


def test_a_model_and_its_source_share_the_file(pico_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opens(pico_llama, monkeypatch) as counter:
        source = WeightSource.open(pico_llama)
        for _ in range(2):
            load_model(source)
    assert counter[SINGLE] == 1


def test_notes_of_several_files_do_not_depend_on_the_order_of_a_set(tmp_path: Path) -> None:
    paths = {tmp_path / f"{number:02d}.safetensors" for number in range(12)}
    for number, path in enumerate(sorted(paths)):
        notes = {f"up to {last}": path.stem for last in range(number, 12)}
        save_file({f"w{number}": torch.zeros(1)}, path, metadata=notes)
    assert ShardFiles().metadata(paths) == {f"up to {last}": f"{last:02d}" for last in range(12)}
