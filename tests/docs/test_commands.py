"""Every command and Python example of README and docs runs, on pico models and a few tokens.

A block of ``sh``, ``console`` or ``python`` that cannot run here says why in the line before it:
``<!-- not run: REASON -->``. Names of models and texts stand for the pico ones, and budgets are cut.
"""

import itertools
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import edgepress
import pytest
from edgepress.benchmarks.demo import demo_plan
from edgepress.benchmarks.quality import greedy_text
from edgepress.cli.entry import run

ROOT = Path(edgepress.__file__).parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r'(?P<before>[^\n]*)\n```(?P<kind>\w+)(?: title="(?P<title>[\w.-]+)")?\n(?P<text>.*?)^```$', re.S | re.M
)
NOT_RUN = re.compile(r"<!-- not run: .{10,} -->")
# What the pages call models and texts, by what is in its place here.
MODELS = {
    "smollm2": "decoder",
    "MODEL": "decoder",
    "meta-llama/Llama-3.2-1B-Instruct": "decoder",
    "minilm": "encoder",
}
TEXTS = {"TEXT", "HELD_OUT", "wikipedia", "sentences.txt"}
# Fetching needs the network, and what is faster is timed.
DROPPED = {"--download", "--require-faster"}
# Appended: the last value of an option counts.
SMALL = {
    "validate": ["--text", "TEXT", "--windows", "2", "--length", "32", "--sentences", "8"],
    "profile": ["--blocks", "1", "--quick", "--no-energy", "--prompt-tokens", "8", "--max-new-tokens", "4"],
    "generate": ["--max-new-tokens", "4"],
}
THRESHOLDS = {"--max-kl": "1e9", "--min-cosine": "-1", "--min-retrieval": "0"}
BUDGETS = {"tokens": 256, "epochs": 1, "samples": 8, "length": 32, "group_size": 32}


COMMAND = re.compile(r"^(\$ )?(edgepress|make|pip|python|openssl|eval) ", re.M)


@dataclass(frozen=True)
class Stand:
    """What stands for the models and texts of a page, and for results that it does not make itself; ``lines``
    are those that measurements appended, by verb and kind, so that each kind of measurement is made once.
    """

    models: dict[str, Path]
    text: Path
    made: dict[str, Path]
    lines: dict[tuple[object, ...], str]


@pytest.fixture(scope="module")
def stand(
    tmp_path_factory: pytest.TempPathFactory, pico_llama: Path, pico_bert: Path, pico_text: Path
) -> Stand:
    folder = tmp_path_factory.mktemp("made")
    edgepress.compress_model(pico_llama, scheme="W4A16", output=folder / "OUT")
    edgepress.export_bundle(folder / "OUT", output=folder / "BUNDLE")
    encoder = folder / "encoder"
    shutil.copytree(pico_bert, encoder)
    pooling = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
    (encoder / "modules.json").write_text(json.dumps([pooling]), encoding="utf-8")
    (encoder / "1_Pooling").mkdir()
    (encoder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}', encoding="utf-8")
    models = {"decoder": pico_llama, "encoder": encoder}
    return Stand(models, pico_text, {name: folder / name for name in ("OUT", "BUNDLE")}, {})


def blocks(page: Path) -> Iterator[tuple[str, str, str, bool]]:
    """``(kind, title, text, whether it runs)`` of the blocks of code of a page."""
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield match["kind"], match["title"] or "", match["text"], not NOT_RUN.fullmatch(match["before"])


def commands(kind: str, text: str) -> Iterator[list[str]]:
    """The command lines of a block, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        said = line.removeprefix("$ ") if kind == "console" and line.startswith("$ ") else line
        if kind == "sh" or said != line:
            words = shlex.split(said, comments=True)
            if words:
                yield words


def in_small(words: list[str], stand: Stand) -> list[str]:
    """The command line as it runs here."""
    verb = words[1]
    changed = [word for word in words[1:] if word not in DROPPED]
    for option in THRESHOLDS.keys() & set(changed):
        changed += [option, THRESHOLDS[option]]
    changed += SMALL.get(verb, [])
    if verb == "compress" and "--text" in words:
        changed += ["--samples", "8", "--length", "32"]
    changed = [str(stand.text) if word in TEXTS else word for word in changed]
    return [str(stand.models[MODELS[word]]) if word in MODELS else word for word in changed]


def run_small(words: list[str], stand: Stand, page: Path) -> int:
    """Run a command; of measurements the first of a kind, whose lines the others get."""
    if words[1] not in ("validate", "profile"):
        return run(in_small(words, stand))
    record = Path(words[words.index("--record") + 1] if "--record" in words else "runs.jsonl")
    kind = (words[1], page.stem == "encoder", "--baseline" in words, "--per-op" in words)
    if kind not in stand.lines:
        if code := run([*in_small(words, stand), "--record", str(record)]):
            return code
        stand.lines[kind] = record.read_text(encoding="utf-8")
        return 0
    record.parent.mkdir(exist_ok=True)
    with record.open("a", encoding="utf-8") as file:
        file.write(stand.lines[kind])
    return run([*in_small(words, stand), "--help"])


def provide(words: list[str], stand: Stand) -> None:
    """Copy what a command reads and its page does not make."""
    read = [word for before, word in itertools.pairwise(words) if before not in ("-o", "--output")]
    for name in stand.made.keys() & set(read):
        if not Path(name).exists():
            shutil.copytree(stand.made[name], name)


def python_in_small(text: str, stand: Stand) -> str:
    for name in sorted(MODELS.keys() | TEXTS, key=len, reverse=True):
        there = stand.text if name in TEXTS else stand.models[MODELS[name]]
        text = text.replace(f'"{name}"', repr(str(there)))
    return text


def test_no_command_is_in_a_block_of_another_kind() -> None:
    for page in PAGES:
        for fence, text in re.findall(
            r"^```([^\n]*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.S | re.M
        ):
            known = fence.partition(" ")[0] in ("sh", "console", "python", "yaml")
            assert known or not COMMAND.search(text), f"{page.name}: {text[:80]}"


@pytest.mark.chain
@pytest.mark.usefixtures("small_roofs", "one_short_block", "few_word_pairs")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_run(
    page: Path,
    stand: Stand,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(greedy_text, "NEW_TOKENS", 8)
    for kind, title, text, runs in blocks(page):
        if title:
            budgets = re.compile(rf"\b({'|'.join(BUDGETS)}): \d+")
            Path(title).write_text(budgets.sub(lambda m: f"{m[1]}: {BUDGETS[m[1]]}", text), encoding="utf-8")
        elif kind == "python" and runs:
            exec(compile(python_in_small(text, stand), str(page), "exec"), {"__name__": "docs"})
        elif kind in ("sh", "console") and runs:
            for words in commands(kind, text):
                assert words[0] == "edgepress", f"{shlex.join(words)}: mark the block <!-- not run: why -->"
                provide(words, stand)
                code = run_small(words, stand, page)
                assert code == 0, f"{shlex.join(words)}: exit code {code}\n{capfd.readouterr().err[-2000:]}"


def test_paths_below_the_demo_are_those_that_it_writes() -> None:
    made = {(model.name, version.recipe) for model in demo_plan.MODELS for version in model.versions}
    named = {
        found
        for page in PAGES
        for found in re.findall(r"runs/demo/(\w+)/([\w-]+)/bundle", page.read_text("utf-8"))
    }
    assert named and named <= made
