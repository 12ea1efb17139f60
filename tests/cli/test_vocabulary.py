"""One vocabulary in every verb: options say what they are, old spellings work, shells complete names."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import edgepress
import pytest
from edgepress.cli.entry import run
from edgepress.cli.help_sections import EXAMPLES, SECTIONS
from edgepress.cli.program import edgepress as program
from edgepress.cli.verb import ENVIRONMENT, FIRST_STEPS, VERBS, Verb

DOCS = (Path(edgepress.__file__).parent / "docs" / "reference" / "command-line.md").read_text(
    encoding="utf-8"
)


def verbs() -> Iterator[tuple[str, click.Command]]:
    """Every verb that does something, by its full name."""
    for name in VERBS:
        command = program.get_command(click.Context(program), name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{name} {sub}", inner) for sub, inner in command.commands.items())
        else:
            yield name, command


ALL = dict(verbs())


@pytest.mark.parametrize("name", ALL)
def test_every_option_says_what_it_is(name: str) -> None:
    options = [param for param in ALL[name].params if isinstance(param, click.Option)]
    assert [option.opts for option in options if not option.help] == []
    spelt = {word for option in options for word in option.opts}
    assert {"--json", "-q", "--quiet", "-v", "--verbose"} <= spelt
    assert spelt.isdisjoint({"--calibration", "--corpus", "--file", "--new-tokens", "--batch"})


@pytest.mark.parametrize("name", ALL)
def test_every_option_stands_once_in_help_of_80_columns(name: str) -> None:
    context = ALL[name].make_context(name.split()[-1], [], resilient_parsing=True)
    shown = ALL[name].get_help(context)
    assert max(map(len, shown.splitlines())) <= 80
    options = [one for one in ALL[name].get_params(context) if isinstance(one, click.Option)]
    listed = [record[0] for one in options if (record := one.get_help_record(context))]
    words = [spelt.replace("INTEGER RANGE", "N") for spelt in listed]
    assert [word for word in words if shown.count(f"\n  {word}") != 1] == []


@pytest.mark.parametrize("verb", SECTIONS)
def test_sections_name_options_that_there_are(verb: str) -> None:
    spelt = {word for option in ALL[verb].params for word in option.opts}
    named = [word for names in SECTIONS[verb].values() for word in names]
    assert set(named) <= spelt and len(named) == len(set(named))


EVERY_EXAMPLE = [*FIRST_STEPS, *(line for lines in EXAMPLES.values() for line in lines)]


@pytest.mark.parametrize("line", EVERY_EXAMPLE)
def test_examples_are_commands(line: str) -> None:
    program_name, verb, *arguments = shlex.split(line)
    assert program_name == "edgepress"
    if verb not in ALL:
        verb, arguments = f"{verb} {arguments[0]}", arguments[1:]
    ALL[verb].make_context(verb, arguments)


@pytest.mark.parametrize("verb", [name for name in VERBS if name not in ("doctor", "demo")])
def test_help_has_examples_once(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert [line for line in EXAMPLES[verb] if shown.count(f"\n  {line}\n") != 1] == []


@pytest.mark.parametrize("verb", ["recipe", "devices"])
def test_help_of_a_group_says_what_its_commands_do_in_whole_sentences(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "..." not in shown.partition("Commands:")[2] and max(map(len, shown.splitlines())) <= 80


OLD = {
    "compress --calibration x": ["m", "--calibration", "x"],
    "validate --corpus x": ["m", "--against", "m", "--corpus=x"],
    "profile --new-tokens 3": ["b", "--new-tokens", "3"],
    "profile --batch 3": ["b", "--batch=3"],
    "profile --device this": ["b", "--device", "this"],
    "encode --file x": ["b", "--file", "x"],
    "classify -f x": ["b", "-f", "x"],
}


@pytest.mark.parametrize("case", OLD)
def test_old_spellings_work_and_are_not_shown(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, spelling, value = case.split()
    command = ALL[name]
    assert isinstance(command, Verb)
    context = command.make_context(name, list(OLD[case]))
    assert value in map(str, context.params.values())
    assert f"  {spelling} " not in command.get_help(context)
    assert run([name, "--help"]) == 0 and capsys.readouterr().out


def test_what_stands_behind_the_end_of_options_is_left_alone() -> None:
    context = ALL["encode"].make_context("encode", ["b", "--", "--file"])
    assert context.params["texts"] == ("--file",)


COMPLETED = {
    "edgepress compress sm": ["smollm2"],
    "edgepress compress x --scheme w4": ["W4A16", "W4A16_ASYM"],
    "edgepress compress x -r bal": ["balanced"],
    "edgepress compress x --text wiki": ["wikipedia"],
    "edgepress recipe passes gp": ["gptq"],
    "edgepress recipe show fa": ["fast"],
    "edgepress devices show h100": ["h100-sxm"],
    "edgepress validate b --against mini": ["minilm"],
    "edgepress profile b --on he": ["here"],
    "edgepress prof": ["profile"],
}


@pytest.mark.parametrize("line", COMPLETED)
def test_a_shell_completes_names(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # directories are completed too
    monkeypatch.setenv("_EDGEPRESS_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    with pytest.raises(SystemExit):
        run([])
    assert capsys.readouterr().out.split() == [f"plain,{name}" for name in COMPLETED[line]]


def test_the_environment_stands_in_help_and_docs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for names in ENVIRONMENT:
        assert names in shown
        assert all(f"`{name}`" in DOCS for name in names.split(", "))
    assert "_EDGEPRESS_COMPLETE=bash_source" in shown and "_EDGEPRESS_COMPLETE=bash_source" in DOCS


def test_verbose_says_where_an_error_arose(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "nothing", "-v"]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown and shown.count("error [") == 1
    assert run(["verify", "nothing"]) == 2
    assert "Traceback" not in capsys.readouterr().err
