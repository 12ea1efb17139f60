"""The saved state: whatever moment a kill comes at, all processes have the state of one step."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from edgepress.compress.pipeline.processes import ALONE, Processes
from edgepress.compress.train.train_state import Saved
from edgepress.errors import TrainingError


@dataclass(frozen=True)
class Meeting(Processes):
    """One of two sharded processes; ``told`` is what the first one says."""

    told: Any = None

    def meet(self) -> None:
        pass

    def agree(self, value: Any) -> Any:
        return value if self.first else self.told


def state(step: int, value: float = 0.0) -> dict[str, Any]:
    return {"train_state": {"step": step}, "value": value}


def holders(path: Path, step: int = 0) -> tuple[Saved, Saved]:
    first, second = Meeting(2, 0, 0, True), Meeting(2, 1, 1, True, told=(2, step))
    return Saved(path, first), Saved(path, second)


def test_one_process_keeps_one_file(tmp_path: Path) -> None:
    saved = Saved(tmp_path / "s.pt", ALONE)
    assert not saved.exists()
    for step in (0, 5):
        saved.write(step, state(step, 1.5))
    assert saved.exists() and saved.read()["value"] == 1.5 and saved.read()["train_state"]["step"] == 5
    assert [path.name for path in tmp_path.iterdir()] == ["s.pt"]


def test_a_kill_before_the_first_wrote_leaves_the_step_before(tmp_path: Path) -> None:
    path = tmp_path / "s.pt"
    first, second = holders(path)
    first.write(10, state(10, 1.0))
    second.write(10, state(10, 2.0))

    class Killed(BaseException):
        pass

    @dataclass(frozen=True)
    class Dying(Meeting):
        def meet(self) -> None:
            raise Killed

    with pytest.raises(Killed):
        Saved(path, Dying(2, 1, 1, True)).write(20, state(20, 3.0))
    first, second = holders(path, step=10)
    assert first.read()["value"] == 1.0 and second.read()["value"] == 2.0
    first.write(20, state(20, 4.0))
    second.write(20, state(20, 5.0))
    assert holders(path, step=20)[1].read()["value"] == 5.0
    assert sorted(one.name for one in tmp_path.iterdir()) == ["s.pt", "s.pt.1.20"]


def test_a_state_that_changed_is_none(tmp_path: Path) -> None:
    path = tmp_path / "s.pt"
    saved = Saved(path, ALONE)
    saved.write(5, state(5, 1.5))
    written = path.read_bytes()
    for data in (*(flipped(written, place) for place in range(0, len(written), 97)), written[:-1], b""):
        path.write_bytes(data)
        assert not saved.exists()
        with pytest.raises(TrainingError, match="not as it was written") as caught:
            saved.read()
        assert "--restart" in caught.value.fix
    path.write_bytes(written)
    assert saved.exists() and saved.read()["value"] == 1.5


def test_the_state_of_another_process_that_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.pt"
    for saved in holders(path):
        saved.write(10, state(10))
    other = tmp_path / "s.pt.1.10"
    other.write_bytes(flipped(other.read_bytes(), 200))
    with pytest.raises(TrainingError, match="not as it was written"):
        holders(path, step=10)[1].read()


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_another_number_of_processes_cannot_go_on(tmp_path: Path) -> None:
    path = tmp_path / "s.pt"
    holders(path)[0].write(10, state(10))
    with pytest.raises(TrainingError, match="begun by 2 processes"):
        Saved(path, ALONE).read()
    Saved(path, ALONE).write(10, state(10))
    with pytest.raises(TrainingError, match="cannot go on with 2"):
        holders(path)[0].read()
