"""Which processor is least like a machine's own, and what the page keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import check


@pytest.mark.parametrize(
    ("flags", "processor"),
    [
        ("avx2 avx512f avx512_vnni amx_int8", "Haswell"),
        ("avx2 avx_vnni", "Haswell"),
        ("avx2 fma", "Nehalem"),
        ("sse4_2 popcnt", "Haswell"),
    ],
)
def test_the_one_least_like_this(flags: str, processor: str) -> None:
    assert check.least_like(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t:\n") == processor


def test_a_row_replaces_that_of_its_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("| a | b |\n|---|---|\n| Haswell, emulated, all | then |\n| Zen 3 | then |\n\nBelow.\n")
    monkeypatch.setattr(check, "PAGE", page)
    counts = {"tests": 1205.0, "failures": 1.0, "errors": 1.0, "skipped": 3.0, "seconds": 90.0}
    for processor in ("Haswell", "Nehalem"):
        check.write(check.row(processor, "all", counts))
    lines = page.read_text().splitlines()
    assert [one.split(" | ")[0] for one in lines[2:]] == [
        *("| Zen 3", "| Haswell, emulated, all", "| Nehalem, emulated, all", "", "Below.")
    ]
    assert lines[3].endswith("| 1,200 | 2 | 3 | 1.5 |")


def test_every_file_that_is_named_is_there() -> None:
    for name in check.WHOLE + check.QUICK:
        assert check.files_of((name,)) and (check.ROOT / name).exists()
