"""What is shown: lines and bars with an ETA on stderr, one document on stdout, nothing under ``quiet``."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from edgepress.terminal import progress as terminal_module
from edgepress.terminal.bars import Bars, bar_line
from edgepress.terminal.progress import Lines, Silent, Terminal, print_pieces, shown
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, Group
from rich.text import Text


class Clock:
    """A clock that goes only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(terminal_module, "time", made)
    return made


def shown_by(capture: Callable[[], object]) -> list[str]:
    """The lines that ``capture`` writes to stderr."""
    written, real = io.StringIO(), sys.stderr
    sys.stderr = written
    try:
        capture()
    finally:
        sys.stderr = real
    return written.getvalue().splitlines()


@pytest.mark.chain
@given(amounts=st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_at_most_one_line_a_tenth(amounts: list[float]) -> None:
    def work() -> None:
        with Lines(interval=1e9).task("quantizing", sum(amounts)) as task:
            for amount in amounts:
                task.advance(amount)

    lines = shown_by(work)
    shares = [int(found.group(1)) for line in lines if (found := re.search(r": (\d+) %", line))]
    assert len(lines) == len(shares) <= 10
    assert shares == sorted(shares)


def test_every_tenth_is_shown_once(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Lines().task("windows", 200) as task:
        for _ in range(200):
            clock.now += 0.0625
            task.advance()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" after")[0] for line in lines] == [f"windows: {10 * n} %" for n in range(1, 11)]


def test_of_work_that_takes_no_second_the_end_is_shown(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Lines().task("hashing", 20) as task:
        for _ in range(20):
            task.advance()
    assert capsys.readouterr().err.splitlines() == ["hashing: 100 % after 0 s"]


def test_eta_is_what_the_rate_so_far_says(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Lines().task("blocks", 8) as task:
        clock.now += 6
        task.advance(2, "model.layers.1")
        clock.now += 18
        task.advance(6)
    assert capsys.readouterr().err.splitlines() == [
        "blocks: 25 % after 6 s, ETA 18 s  model.layers.1",
        "blocks: 100 % after 24 s",
    ]


def test_long_times_are_minutes_and_hours(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Lines().task("blocks", 40) as task:
        for seconds in (130, 590, 7200):
            clock.now += seconds
            task.advance(4)
    assert capsys.readouterr().err.splitlines() == [
        "blocks: 10 % after 2 min, ETA 20 min",
        "blocks: 20 % after 12 min, ETA 48 min",
        "blocks: 30 % after 2.2 h, ETA 5.1 h",
    ]


def test_slow_work_speaks_at_the_interval(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(interval=30).task("slow", 1000) as task:
        for _ in range(7):
            clock.now += 10
            task.advance()
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["slow: 0 % after 30 s", "slow: 1 % after 60 s"]


def test_work_of_no_size_and_work_beyond_its_size(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Lines().task("nothing", 0):
        pass
    with Lines().task("more", 2) as task:
        clock.now += 3
        task.advance(3)
    assert capsys.readouterr().err.splitlines() == ["more: 150 % after 3 s"]


def test_a_long_line_is_broken_between_words_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "  " + "word " * 30 + "\n" + "/a/path" * 20
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("TERM", raising=False)
    for out, width in ((Tty(), 40), (io.StringIO(), 200)):
        monkeypatch.setattr(sys, "stdout", out)
        Terminal().document(None, text)
        *words, path = out.getvalue().splitlines()
        assert path == "/a/path" * 20
        assert all(line.startswith("  word") and len(line) <= width for line in words)
        assert " ".join(words).split() == ["word"] * 30
        assert (len(words) > 1) == out.isatty()


def test_notes_are_broken_between_words_and_commands_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    command = "go on with: edgepress compress a-model --scheme W4A16 -o a-folder"
    monkeypatch.setenv("COLUMNS", "40")
    for err in (Tty(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", err)
        Terminal().say("word " * 30 + "\n" + command)
        *words, last = err.getvalue().splitlines()
        assert last == command and (len(words) > 1) == err.isatty()
        assert " ".join(words).split() == ["word"] * 30


def test_commands_of_a_result_are_copied_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    command = "measure it: edgepress profile a-bundle --prompt-tokens 128 --max-new-tokens 128"
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("TERM", raising=False)
    rendered = Group("word " * 30, Text(command, no_wrap=True, overflow="ignore"))
    for result in ("word " * 30 + "\n" + command, rendered):
        monkeypatch.setattr(sys, "stdout", out := Tty())
        Terminal().document(None, result)
        *words, last = out.getvalue().rstrip("\n").splitlines()
        assert last.rstrip() == command and len(words) > 1
        assert all(len(line.rstrip()) <= 40 for line in words)


def test_silent_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Silent().task("work", 1) as task:
        task.advance(1, "detail")
    Silent().note("note")
    assert capsys.readouterr() == ("", "")


def test_bars_show_label_share_and_markup_as_it_is() -> None:
    written = io.StringIO()
    bars = Bars(Console(file=written, force_terminal=True, width=120, color_system=None))
    with bars.task("[b]hashing[/b]", 4) as task:
        task.advance(3, "[red]part[/red]")
    bars.note("see [docs]")
    bars.close()
    shown = written.getvalue()
    for text in ("[b]hashing[/b]", "75 %", "ETA", "[red]part[/red]", "see [docs]"):
        assert text in shown


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_fits_where_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TTY_COMPATIBLE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(Terminal().progress, Lines)
    monkeypatch.setattr(sys, "stderr", Tty())
    for as_json in (False, True):
        terminal = Terminal(as_json=as_json)
        assert isinstance(terminal.progress, Bars) and terminal.progress is terminal.progress
        terminal.close()
    assert isinstance(Terminal(quiet=True).progress, Silent)


LABEL, DETAIL = "compressing blocks", "model.layers.17 worst error 0.011"


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 120])
@pytest.mark.parametrize("label", [LABEL, "SmolLM2 to W4A16, group 64, GPTQ: compress", "größe 大大大"])
def test_percent_and_time_left_are_never_cut(label: str, width: int) -> None:
    for share, left, expected in ((0.5, 75, " 50 % "), (0.041, None, "  4 % "), (1, 0, "100 % ")):
        line = bar_line(label, share, 3700, left, DETAIL, width)
        clock = {75: "1:15", None: "-:--", 0: "0:00"}[left]
        assert expected in f" {line}" and f"ETA {clock}" in line
        assert cell_len(line) <= width
    assert cell_len(label) > width - 17 or label in line


def test_the_detail_goes_first_then_the_bar() -> None:
    wide, narrow, tight = (bar_line(LABEL, 0.5, 5, 75, DETAIL, width) for width in (100, 60, 40))
    assert DETAIL in wide and wide.startswith(LABEL)
    assert DETAIL not in narrow and "━" in narrow and "0:05 ETA 1:15" in narrow
    assert tight == f"{LABEL}  50 % 0:05 ETA 1:15"


def test_a_detail_is_never_cut_within_a_number() -> None:
    shown = {bar_line("rtn", 0.5, 5, 75, "model.layers.29", width)[35:] for width in range(60, 90)}
    assert "layers.…" in "".join(shown) and not any(line.endswith("layers.2…") for line in shown)


def test_a_clock_ticks_while_nothing_is_counted() -> None:
    written = io.StringIO()
    bars = Bars(Console(file=written, force_terminal=True, width=40, color_system=None))
    with bars.task("one", 1) as task:
        task.advance()
    bars.close()
    assert "working 0:00" in written.getvalue() and "one ━" in written.getvalue()


def test_from_python_progress_is_shown_where_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Lines()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    for choice, kind in ((None, Silent), (True, Lines), (False, Silent), (asked, Lines)):
        with shown(choice) as progress:
            assert isinstance(progress, kind)
    monkeypatch.setattr(sys, "stderr", Tty())
    for choice, kind in ((None, Bars), (True, Bars), (False, Silent)):
        with shown(choice) as progress:
            assert isinstance(progress, kind)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setitem(sys.modules, "ipykernel", sys)  # a notebook
    with shown(None) as progress:
        assert isinstance(progress, Lines)


@pytest.mark.chain
def test_ctrl_c_from_python_is_short(pico_llama: Path, tmp_path: Path) -> None:
    script = f"""
import signal, sys
import edgepress
from edgepress.compress.pipeline import sweep
def interrupted(*arguments): signal.raise_signal(signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sweep.Sweep._sweep_block = interrupted
edgepress.compress_model({str(pico_llama)!r}, scheme="W4A16", output={str(tmp_path / "out")!r})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.endswith("KeyboardInterrupt: compress_model was interrupted\n")
    assert len(done.stderr.splitlines()) <= 8


def test_document_is_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"b": [1, 2.5], "a": "größer [b]"}
    Terminal(as_json=True).document(value, "text for a person")
    shown = capsys.readouterr()
    assert json.loads(shown.out) == value and shown.out.isascii()
    assert shown.err == ""


def test_a_list_of_numbers_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"rows": [[1, -2.5e-07], [3]], "text": "[\n1,\n2\n]", "mixed": [1, "2"], "none": []}
    Terminal(as_json=True).document(value)
    shown = capsys.readouterr().out
    assert json.loads(shown) == value
    assert "    [1, -2.5e-07],\n    [3]\n" in shown and '    1,\n    "2"' in shown


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_document_refuses_what_is_not_json(number: float, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Terminal(as_json=True).document({"loss": number})
    assert capsys.readouterr().out == ""


def test_document_for_a_person_is_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    long = " ".join(["a line that is longer than any terminal"] * 8)  # rich < 14.3 drops a last blank
    Terminal().document({"x": 1}, f"[b]{long}\nsecond")
    Terminal().document({"x": 1})
    assert capsys.readouterr().out == f"[b]{long}\nsecond\n"


def test_say_goes_to_stderr_unless_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(as_json=True).say("note")
    Terminal(quiet=True).say("never shown")
    assert capsys.readouterr() == ("", "note\n")


@pytest.mark.chain
def test_notes_that_nobody_reads_do_not_end_the_work() -> None:
    """``edgepress … 2>&1 | head -1``: the reader of stderr leaves, the work goes on."""
    script = (
        "from edgepress.terminal.progress import Lines, Terminal\n"
        "with Lines().task('work', 10) as task:\n"
        "    for _ in range(10): task.advance()\n"
        "Terminal().say('said')\n"
        "Lines().note('noted')\n"
        "print('done')"
    )
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=writer, text=True
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stdout) == (0, "done\n")


HOSTILE = "[red]\x1b]0;owned\x1b[2J \u202egpj :bomb:"
INERT = r"[red]\x1b]0;owned\x1b[2J \u202egpj :bomb:"


def test_a_hostile_name_is_inert_wherever_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    table = Table("name")
    table.add_row(HOSTILE)
    terminal = Terminal()
    terminal.document({}, table)
    terminal.document({}, HOSTILE)
    terminal.say(HOSTILE)
    Lines().note(HOSTILE)
    shown = capsys.readouterr()
    assert shown.out.count(INERT) == shown.err.count(INERT) == 2
    assert not any(one in shown.out + shown.err for one in "\x1b\x07\u202e")


def test_bars_show_a_hostile_name_inert() -> None:
    written = io.StringIO()
    bars = Bars(Console(file=written, force_terminal=True, width=200, color_system=None))
    with bars.task(HOSTILE, 1) as task:
        task.advance(1, HOSTILE)
    bars.note(HOSTILE)
    bars.close()
    assert "\x1b]0;owned" not in written.getvalue() and "\x1b[2J" not in written.getvalue()
    assert written.getvalue().count(r"\x1b]0;owned") >= 2


class Screen(io.StringIO):
    """Stands for a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


PIECES = ["plain \x1b[31m", "👩\u200d🚀\tx\n", "\x9b2J"]


def test_a_model_s_text_does_not_drive_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    print_pieces(PIECES)
    assert screen.getvalue() == "plain \\x1b[31m👩\u200d🚀\tx\n\\x9b2J\n"


def test_a_model_s_text_reaches_a_pipe_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_pieces(PIECES)
    assert capsys.readouterr().out == "".join(PIECES) + "\n"
