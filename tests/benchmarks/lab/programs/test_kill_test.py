"""The kill check's own parts: moments that are spread as it says, and scenes that it must not accept."""

import shutil
from pathlib import Path

import pytest
from edgepress.benchmarks.lab.programs.kill_test import SPANS, Kill, Moment, Victim, kill_moments, row_of
from edgepress.compress.api import compress_model
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import write_json

pytestmark = pytest.mark.chain


TIMES = {"": 10.0, "work": 4.0, "result": 0.4}


def test_moments_cover_each_span_evenly_and_are_seeded() -> None:
    runs = kill_moments(TIMES, seed=3)
    for part, count in SPANS.items():
        firsts = sorted(moments[0].seconds for moments in runs if moments[0].part == part)
        assert [int(second / TIMES[part] * count) for second in firsts] == list(range(count))
    assert sorted({len(moments) for moments in runs}) == [1, 3]
    assert runs == kill_moments(TIMES, seed=3) != kill_moments(TIMES, seed=4)


@pytest.fixture(scope="module")
def published(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compress_model(str(pico_llama), scheme="W8A8", output=tmp_path_factory.mktemp("whole") / "out")


def victim_of(published: Path, folder: Path) -> Victim:
    shutil.copytree(published, folder / "out")
    return Victim(Path("model"), folder / "out", hash_tree(published))


def test_an_output_that_is_not_whole_ends_the_check(published: Path, tmp_path: Path) -> None:
    victim = victim_of(published, tmp_path)
    victim.check_whole_or_absent()
    (victim.output / "config.json").unlink()
    with pytest.raises(SystemExit, match="published incomplete"):
        victim.check_whole_or_absent()


def test_verify_is_not_enough_the_bytes_must_be_the_same(published: Path, tmp_path: Path) -> None:
    victim = victim_of(published, tmp_path)
    write_json(victim.output / "edgepress.json", {"schema": "edgepress.checkpoint/1", "files": {}})
    for path in list(victim.output.iterdir()):
        if path.name != "edgepress.json":
            path.unlink()
    with pytest.raises(SystemExit, match="verify accepts it: True"):
        victim.check_whole_or_absent()


def test_leftovers_and_differences_are_in_the_row(published: Path, tmp_path: Path) -> None:
    victim = victim_of(published, tmp_path)
    kills = [Kill(1.5, 0, "start"), Kill(3, 2, "block 3")]
    assert row_of(1, victim, kills) == ["1", "1.50, 3.00", "0, 2", "start, block 3", "yes", "none"]
    (tmp_path / ".out.lock").touch()
    (victim.output / "config.json").write_text("{}", encoding="utf-8")
    assert row_of(1, victim, kills)[-2:] == ["no", ".out.lock"]


def test_a_command_that_fails_by_itself_is_no_kill(pico_llama: Path, tmp_path: Path) -> None:
    victim = Victim(pico_llama / "nothing", tmp_path / "out", {})
    with pytest.raises(SystemExit, match="exit code 2"):
        victim.kill_at(Moment("", 60))
