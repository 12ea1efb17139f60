"""What does not fit the machine is refused before anything is loaded, and what would fit is named."""

import re
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import OutOfResource
from edgepress.runtime.session import needs
from edgepress.runtime.session.needs import time_range
from edgepress.terminal.progress import Silent


class Notes(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


@contextmanager
def refused(out: Path, match: str, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """The work inside is refused, and no weight is read for it."""

    def read(*_: object) -> None:
        pytest.fail("a weight was read")

    monkeypatch.setattr(WeightSource, "tensor", read)
    with pytest.raises(OutOfResource, match=match) as found:
        yield found
    assert found.value.exit_code == 6 and not out.exists()


@pytest.mark.parametrize("by", ["option", "machine", "control group", "address space"])
def test_a_pass_that_does_not_fit_is_refused_and_what_would_fit_is_named(
    by: str,
    make_decoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    recipe: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_decoder(tmp_path / "m", hidden_size=128, intermediate_size=2048, num_hidden_layers=8)
    steps = recipe(tmp_path, {"pass": "rtn", "scheme": "W4A16-g32"}, {"pass": "tune"})
    chosen = {"recipe": steps, "calibration": str(pico_text), "samples": 4, "length": 32}
    small = plan_model(str(model), recipe="w4a16-rtn").peak_memory
    large = plan_model(str(model), **chosen).peak_memory  # type: ignore[arg-type]
    assert large > small + (40 << 20)  # also where this process is large itself
    middle = (small + large) // 2
    if by == "machine":
        held = needs.resident()
        monkeypatch.setattr(needs, "free_memory", lambda: middle - held)
        monkeypatch.setattr(needs, "resident", lambda: held)
    if by == "control group":
        monkeypatch.setattr(needs, "memory_limit", lambda: middle)
    if by == "address space":
        monkeypatch.setattr(needs, "address_space_limit", lambda: middle)
    most = middle / 1e9 if by == "option" else None
    with refused(
        tmp_path / "o", r"pass tune needs \d+\.\d+ GB of memory, \d+\.\d+ GB are", monkeypatch
    ) as found:
        compress_model(str(model), output=tmp_path / "o", max_memory=most, **chosen)  # type: ignore[arg-type]
    sizes = [float(size) for size in re.findall(r"\((\S+) GB\)", found.value.fix)]
    assert len(sizes) == 4 and max(sizes) <= middle / 1e9 + 0.01
    monkeypatch.undo()
    with refused(tmp_path / "o", "are there", monkeypatch) as found:
        compress_model(str(model), output=tmp_path / "o", max_memory=0.01, **chosen)  # type: ignore[arg-type]
    assert "no packaged recipe fits" in found.value.fix


@pytest.mark.parametrize(
    ("needed", "there", "text"),
    [
        (3_850_000_000, 3_000_000_000, "3.85 GB of memory, 3.00 GB are there"),
        (1_503_100_000, 1_500_000_000, "1,504 MB of memory, 1,500 MB are there"),
        (12_400_000_001, 12_400_000_000, "12,401 MB of memory, 12,400 MB are there"),
    ],
)
def test_what_lacks_never_reads_as_if_it_fitted(needed: int, there: int, text: str) -> None:
    assert needs.lacking(needed, there) == text


@pytest.mark.chain
def test_a_run_begins_with_its_plan(pico_llama: Path, tmp_path: Path) -> None:
    notes = Notes()
    compress_model(str(pico_llama), scheme="W4A16-g32", output=tmp_path / "o", progress=notes)
    first = notes.texts[0]
    assert re.match(r"plan: \d\.\d\d GB of memory \(.* GB are there\), .* seconds$", first)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1, "1 to 2 seconds"),
        (40, "20 to 80 seconds"),
        (200, "2 to 7 minutes"),
        (6000, "1 to 3 hours"),
        (198_000, "1 to 5 days"),
    ],
)
def test_times_are_ranges_as_a_person_says_them(seconds: float, text: str) -> None:
    assert time_range(seconds) == text


def test_whole_weights_that_do_not_fit_are_refused_with_what_takes_less(
    make_decoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    recipe: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_decoder(tmp_path / "m", hidden_size=128, intermediate_size=2048, num_hidden_layers=8)
    text: dict[str, Any] = {"calibration": str(pico_text), "samples": 4, "length": 32}
    kinds = ("all", "lora", "norms")
    for kind in kinds:
        (tmp_path / kind).mkdir()
    learned = {kind: recipe(tmp_path / kind, {"pass": "distill", "train": kind}) for kind in kinds}
    needs = {kind: plan_model(str(model), recipe=path, **text).peak_memory for kind, path in learned.items()}
    assert needs["all"] > needs["lora"] > needs["norms"]
    most = (needs["all"] + needs["lora"]) / 2e9
    with refused(tmp_path / "o", "pass distill needs", monkeypatch) as found:
        compress_model(str(model), recipe=learned["all"], output=tmp_path / "o", max_memory=most, **text)
    assert "train: lora" in found.value.fix and "--use_fsdp" in found.value.fix
    # Also where the disk lacks room too, of which less is needed by what takes less memory.
    monkeypatch.setattr("edgepress.files.disk.free_disk", lambda path: 0)
    qat = recipe(tmp_path, {"pass": "qat", "scheme": "W4A16-g32"})
    with refused(tmp_path / "o", "pass qat needs", monkeypatch) as found:
        compress_model(str(model), recipe=qat, output=tmp_path / "o", max_memory=most, **text)
    assert "tune (scales, norms)" in found.value.fix and "--use_fsdp" in found.value.fix


def test_learning_from_one_sequence_at_a_time_is_planned_and_advised(
    make_decoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    recipe: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_decoder(tmp_path / "m", hidden_size=128, intermediate_size=2048)
    text: dict[str, Any] = {"calibration": str(pico_text), "samples": 24, "length": 32}
    step = {"pass": "autoround", "scheme": "W4A16-g32"}
    paths = [recipe(tmp_path, step)]
    (tmp_path / "alone").mkdir()
    paths.append(recipe(tmp_path / "alone", step | {"low_memory": True}))
    together, alone = (plan_model(str(model), recipe=path, **text).peak_memory for path in paths)
    # Of 24 sequences the activations of one wait, each token's four floats for 4 × 128 and 3 × 2048 channels;
    # one forward pass of all, which takes a quarter of that, is then the larger.
    waiting = 24 * 32 * 4 * 4 * (4 * 128 + 3 * 2048)
    assert 0.7 * waiting < together - alone < waiting
    with refused(tmp_path / "o", "pass autoround needs", monkeypatch) as found:
        most = (together + alone) / 2e9
        compress_model(str(model), recipe=paths[0], output=tmp_path / "o", max_memory=most, **text)
    assert "low_memory: true" in found.value.fix
