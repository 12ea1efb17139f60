"""The fields of ``/proc/cpuinfo`` are those of the processor that it lists first."""

from __future__ import annotations

from pathlib import Path

from edgepress.cpuinfo import first_processor

TWO = "processor\t: 0\nmodel name\t: One: A\nflags\t\t: fpu avx2\n\nmodel name\t: Two\npower management:\n"


def test_the_first_processor_counts(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(TWO)
    assert first_processor(tmp_path / "cpuinfo") == {
        "processor": "0",
        "model name": "One: A",
        "flags": "fpu avx2",
        "power management": "",
    }


def test_no_file_says_nothing_and_neither_do_lines_without_a_name(tmp_path: Path) -> None:
    assert first_processor(tmp_path / "missing") == {}
    (tmp_path / "odd").write_bytes(b"\xff\xfe no field\n\n")
    assert first_processor(tmp_path / "odd") == {}
