"""Parts become one file or the shards themselves, with the same tensors."""

import os
from functools import partial
from pathlib import Path

import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.checkpoint.reader import CheckpointReader
from edgepress.compress.model.checkpoint.shard_writer import join
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.pipeline import stage
from safetensors.torch import load_file, save_file


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    paths: list[Path] = []
    for number in range(3):
        tensors = {f"{name}.{number}": torch.full((4, 3), float(number)) for name in "ba"}
        paths.append(tmp_path / f"{number}.safetensors")
        save_file(tensors, paths[-1])
    return paths


def everything(directory: Path) -> dict[str, torch.Tensor]:
    reader = CheckpointReader.open(directory)
    return reader.read(reader.shapes)


def test_a_small_model_is_one_file_and_a_large_one_its_parts(parts: list[Path], tmp_path: Path) -> None:
    one, many = tmp_path / "one", tmp_path / "many"
    for directory, most in ((one, 6 * 48), (many, 6 * 48 - 1)):
        directory.mkdir()
        (directory / "config.json").write_text("{}")
        ticked: list[int] = []
        assert join(parts, directory, most, ticked.append) == 6 * 48 == sum(ticked)
    assert [path.name for path in one.glob("*.safetensors*")] == ["model.safetensors"]
    assert all(path.samefile(part) for path, part in zip(sorted(many.glob("*-of-*")), parts, strict=True))
    found, expected = everything(many), load_file(one / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_parts_are_copied_where_there_are_no_links(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refused)
    target = tmp_path / "copied"
    target.mkdir()
    join(parts, target, 0)
    assert [path.read_bytes() for path in sorted(target.glob("*-of-*"))] == [
        part.read_bytes() for part in parts
    ]


@pytest.mark.chain
def test_a_model_of_linked_shards_is_the_same_model(
    pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "two.yaml"
    recipe.write_text(
        "passes: [{pass: prune, score: magnitude, sparsity: 0.5}, {pass: rtn, scheme: W4A16-g32}]"
    )
    compress_model(str(pico_llama), recipe=str(recipe), output=tmp_path / "one")
    monkeypatch.setattr(stage, "join", partial(join, one_file=0))
    compress_model(str(pico_llama), recipe=str(recipe), output=tmp_path / "many")
    assert len(list((tmp_path / "many").glob("model-*-of-*.safetensors"))) > 1
    one, many = (load_model(WeightSource.open(tmp_path / name)).state_dict() for name in ("one", "many"))
    assert one.keys() == many.keys() and all(torch.equal(one[name], many[name]) for name in one)
