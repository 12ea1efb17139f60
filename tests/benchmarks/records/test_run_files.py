"""Run files grow by whole lines; files of a user's are none."""

import os
from pathlib import Path

import pytest
from edgepress.benchmarks.records import record
from edgepress.benchmarks.records.record import Measurement
from edgepress.cli.entry import run
from edgepress.errors import InputError


def test_lines_are_added_to_a_run_file_alone(tmp_path: Path, measured: list[Measurement]) -> None:
    path = tmp_path / "runs" / "a.jsonl"
    for line in measured:
        record.refuse_foreign(path)
        record.append(path, line)
    assert [line.id for line in record.read([path])] == [line.id for line in measured]
    record.refuse_foreign("/dev/null")


def test_a_line_ends_where_its_json_ends(tmp_path: Path, measured: list[Measurement]) -> None:
    path, said = tmp_path / "a.jsonl", "one\u2028line\x85of a text"
    answer = record.SampleAnswer(prompt=said, original=said, compressed=said)
    for _ in range(2):
        record.append(path, measured[0].model_copy(update={"answers": [answer]}))
    assert [line.answers for line in record.read([path])] == [[answer]] * 2


def test_a_line_that_a_kill_tore_takes_no_other_with_it(tmp_path: Path, measured: list[Measurement]) -> None:
    path = tmp_path / "a.jsonl"
    record.append(path, measured[0])
    path.write_bytes(path.read_bytes()[:-9])
    record.append(path, measured[1])
    with pytest.raises(InputError, match=r"a\.jsonl:1 is not a measurement"):
        record.read([path])
    path.write_bytes(path.read_bytes().partition(b"\n")[2])
    assert [line.id for line in record.read([path])] == [measured[1].id]


@pytest.mark.parametrize("kind", ["thesis", "json", "directory", "fifo", "link"])
@pytest.mark.parametrize("verb", [["validate", "B", "--against", "M"], ["profile", "B"]])
def test_what_is_no_run_file_is_refused_before_the_work(
    verb: list[str], kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, victim = tmp_path / "record", tmp_path / "victim"
    victim.write_text('{"mine": 1}\n' if kind == "json" else "years")
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(victim)
    else:
        path.write_bytes(victim.read_bytes())
    before = path.lstat().st_size, victim.read_text()
    assert run([*verb, "--record", str(path)]) == 2
    assert "is no run file" in capsys.readouterr().err
    assert (path.lstat().st_size, victim.read_text()) == before


def test_a_run_file_that_cannot_be_made(tmp_path: Path, measured: list[Measurement]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        record.append(tmp_path / "file" / "a.jsonl", measured[0])
    with pytest.raises(InputError, match="cannot write"):  # and before anything is measured
        record.refuse_foreign(tmp_path / "file" / "a.jsonl")
