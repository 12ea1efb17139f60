"""Pooling: the files decide, padding never counts, and what is unknown is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.model.pooling import Pooling, pooling_of
from edgepress.errors import CheckpointError

PREFIX = "sentence_transformers.models."


def save(folder: Path, stages: list[str], modes: dict[str, Any] | None = None) -> Path:
    modules = [
        {"type": PREFIX + stage, "path": f"{n}_{stage}" if n else ""} for n, stage in enumerate(stages)
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    if modes is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("key", "mode"),
    [
        ("pooling_mode_mean_tokens", "mean"),
        ("pooling_mode_cls_token", "cls"),
        ("pooling_mode_lasttoken", "last"),
    ],
)
def test_files_decide(tmp_path: Path, key: str, mode: str) -> None:
    save(tmp_path, ["Transformer", "Pooling", "Normalize"], {key: True, "pooling_mode_max_tokens": False})
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 77}', encoding="utf-8")
    assert pooling_of(tmp_path) == Pooling(mode, True, 77)  # type: ignore[arg-type]


@pytest.mark.parametrize(("named", "mode"), [("mean", "mean"), ("cls", "cls"), ("lasttoken", "last")])
def test_newer_files_name_the_mode(tmp_path: Path, named: str, mode: str) -> None:
    save(tmp_path, ["Transformer", "Pooling"], {"pooling_mode": named})
    assert pooling_of(tmp_path) == Pooling(mode, False, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", [{"pooling_mode_cls_token": True}, {"pooling_mode": "cls"}])
def test_prompts_may_be_left_out_of_it(tmp_path: Path, mode: dict[str, Any]) -> None:
    save(tmp_path, ["Transformer", "Pooling"], {**mode, "include_prompt": False})
    assert not pooling_of(tmp_path).include_prompt


@pytest.mark.parametrize("content", ["[]", "3", '{"pooling_mode": ["mean"]}', '{"pooling_mode": "max"}'])
def test_nonsense_is_a_typed_error(tmp_path: Path, content: str) -> None:
    save(tmp_path, ["Transformer", "Pooling"], {})
    (tmp_path / "1_Pooling" / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError):
        pooling_of(tmp_path)


def test_no_files_no_pooling(tmp_path: Path) -> None:
    assert pooling_of(tmp_path) == Pooling(None, False, None)
    with pytest.raises(CheckpointError, match="no sentence embeddings"):
        pooling_of(tmp_path).apply(torch.ones(1, 2, 3), torch.ones(1, 2))


def test_unknown_modes_and_stages_are_refused(tmp_path: Path) -> None:
    save(tmp_path, ["Transformer", "Pooling"], {"pooling_mode_max_tokens": True})
    with pytest.raises(CheckpointError, match="pooling_mode_max_tokens"):
        pooling_of(tmp_path)
    save(tmp_path, ["Transformer", "Dense"])
    with pytest.raises(CheckpointError, match="'Dense'"):
        pooling_of(tmp_path)
    (tmp_path / "modules.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="not a list"):
        pooling_of(tmp_path)


def test_padding_does_not_count() -> None:
    hidden = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    mean = Pooling("mean", False, None).apply(hidden, mask)
    torch.testing.assert_close(mean, torch.stack([hidden[0, :3].mean(0), hidden[1].mean(0)]))
    torch.testing.assert_close(Pooling("cls", False, None).apply(hidden, mask), hidden[:, 0])
    unit = Pooling("mean", True, None).apply(hidden, mask)
    torch.testing.assert_close(unit, mean / mean.norm(dim=1, keepdim=True))
