"""A resumed run goes on with its own work and with no other's: all that decides its bytes is in its key."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from edgepress.compress import job as jobs
from edgepress.compress.api import compress_model
from edgepress.compress.job import CalibrationChoice, Job
from edgepress.compress.model.checkpoint.reader import CheckpointReader
from edgepress.compress.text.calibration import Calibration, calibration_from
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json
from edgepress.runtime.text.tokenizer import Tokenizer
from edgepress.terminal.progress import Silent, Tick

Watched = Callable[..., AbstractContextManager[list[float]]]
# Two stages, since the passes read other samples: the first leaves a checkpoint.
RECIPE = """
passes:
  - {{pass: gptq, scheme: {scheme}, samples: 2, targets: [q]}}
  - {{pass: gptq, scheme: W4A16-g16, targets: [k]}}
calibration: {{samples: 4, length: 16, seed: {seed}}}
"""


def recipe(folder: Path, scheme: str = "W4A16-g16", seed: int = 0) -> str:
    path = folder / f"{scheme}-{seed}.yaml"
    path.write_text(RECIPE.format(scheme=scheme, seed=seed))
    return str(path)


def job(model: Path, recipe: str, text: Path, **choice: Any) -> Job:
    return Job(str(model), recipe, None, None, CalibrationChoice(str(text), **choice), Silent())


def test_the_key_has_all_that_decides_the_bytes(
    pico_llama: Path, pico_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = job(pico_llama, recipe(tmp_path), pico_text)
    text, other_text = first.calibration(), job(pico_llama, recipe(tmp_path), pico_text, seed=1).calibration()
    key = first.key("model", text, "cpu", {})
    assert key == job(pico_llama, recipe(tmp_path), pico_text).key("model", text, "cpu", {})
    others = [
        first.key("another model", text, "cpu", {}),
        first.key("model", other_text, "cpu", {}),
        first.key("model", text, "cuda", {}),
        first.key("model", text, "cpu", {"corpus": "another"}),
        job(pico_llama, recipe(tmp_path, "W8A16-g16"), pico_text).key("model", text, "cpu", {}),
    ]
    monkeypatch.setattr(jobs, "__version__", "0")
    others.append(first.key("model", text, "cpu", {}))
    assert len({key, *others}) == 7


@pytest.mark.parametrize("given", ["option", "recipe"])
def test_the_seed_that_is_given_draws_the_text(
    pico_llama: Path, pico_text: Path, tmp_path: Path, given: str
) -> None:
    def drawn(seed: int) -> Calibration:
        by_recipe = seed if given == "recipe" else 5
        by_option = seed if given == "option" else None
        found: Calibration = job(
            pico_llama, recipe(tmp_path, seed=by_recipe), pico_text, seed=by_option
        ).calibration()
        return found

    for seed in (0, 7):
        expected = calibration_from(
            str(pico_text),
            Tokenizer.open(pico_llama),
            kind="decoder",
            samples=4,
            length=16,
            seed=seed,
            batch_size=128,
        )
        assert drawn(seed).sha256 == expected.sha256
    assert drawn(0).sha256 != drawn(7).sha256


@pytest.mark.chain
@pytest.mark.parametrize("other", ["recipe", "seed"])
def test_what_another_run_left_is_not_taken(
    pico_llama: Path, pico_text: Path, tmp_path: Path, watched: Watched, other: str
) -> None:
    options: dict[str, Any] = {"calibration": str(pico_text), "output": tmp_path / "o"}
    own = recipe(tmp_path)
    another = recipe(tmp_path, "W8A16-g16") if other == "recipe" else recipe(tmp_path, seed=1)
    whole = compress_model(str(pico_llama), recipe=own, **{**options, "output": tmp_path / "whole"})
    with watched("compressing blocks", kill_at=6):  # in the second stage, after its first block
        compress_model(str(pico_llama), recipe=another, **options)
    assert (tmp_path / ".o.partial" / "work" / "checkpoint-0").is_dir()
    assert hash_tree(compress_model(str(pico_llama), recipe=own, **options)) == hash_tree(whole)


@pytest.mark.chain
@pytest.mark.parametrize("damaged", ["model.safetensors", "config.json", "stage.json", "a new file"])
def test_a_checkpoint_between_stages_that_changed_is_made_again(
    pico_llama: Path, pico_text: Path, tmp_path: Path, watched: Watched, damaged: str
) -> None:
    options: dict[str, Any] = {"calibration": str(pico_text), "recipe": recipe(tmp_path)}
    whole = compress_model(str(pico_llama), output=tmp_path / "whole", **options)
    with watched("compressing blocks", kill_at=6):
        compress_model(str(pico_llama), output=tmp_path / "o", **options)
    file = tmp_path / ".o.partial" / "work" / "checkpoint-0" / damaged
    data = bytearray(file.read_bytes() if file.exists() else b"xx")
    data[-2] ^= 1
    file.write_bytes(data)
    with watched("compressing blocks") as done:
        out = compress_model(str(pico_llama), output=tmp_path / "o", **options)
    assert sum(done[:4]) == 3  # the first stage again
    assert hash_tree(out) == hash_tree(whole)


@pytest.mark.chain
def test_a_resumed_run_hashes_a_model_again_only_where_it_looks_changed(
    make_decoder: Callable[..., Path], tmp_path: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, hashed = make_decoder(tmp_path / "m"), []
    fingerprint = CheckpointReader.fingerprint

    def counted(reader: CheckpointReader, tick: Tick) -> str:
        hashed.append(reader.path)
        return fingerprint(reader, tick)

    monkeypatch.setattr(CheckpointReader, "fingerprint", counted)

    def run() -> None:
        compress_model(str(model), scheme="W4A16-g32", output=tmp_path / "o")

    for expected in (1, 1):
        with watched("compressing blocks", 2):
            run()
        assert len(hashed) == expected
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1  # in the sample, under the old time
    before = weights.stat()
    weights.write_bytes(data)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    run()
    assert len(hashed) == 2
    manifest = read_json(tmp_path / "o" / "edgepress.json")
    assert manifest["source"]["fingerprint"] == fingerprint(CheckpointReader.open(model))
