"""Every study of the lab runs to its end on pico models, and every row of it is a valid recipe."""

import time
from pathlib import Path

import pytest
from edgepress.benchmarks.lab.peers.workspace import peers
from edgepress.benchmarks.lab.run_study import Wanted, run_study
from edgepress.benchmarks.lab.study.child import Cost
from edgepress.benchmarks.lab.study.page import write_table
from edgepress.benchmarks.lab.study.pico import smallest
from edgepress.benchmarks.lab.study.schema import Study, load_study, names, parse
from edgepress.benchmarks.lab.study.sources import Sources
from edgepress.benchmarks.quality import greedy_text
from edgepress.cli.program import edgepress
from edgepress.compress.recipe import load_recipe
from edgepress.compress.recipe import parse as parse_recipe
from edgepress.errors import InputError, UnknownName
from edgepress.runtime.kernels.library import library

pytestmark = pytest.mark.chain

# Of each kind of table one: of decoders and encoders, of bundles and checkpoints, with peers, with profiles.
# The others take minutes and are among the slow tests; their rows are read below, and their columns written.
SOON = ("kernels", "peers-trainers")


def in_this_process(arguments: list[str], threads: int) -> Cost:
    """The command line without a process of its own, which would import torch each time."""
    started = time.process_time()
    edgepress.main(arguments, standalone_mode=False)
    return Cost(0, time.process_time() - started, 0)


@pytest.fixture
def sources(
    pico_llama: Path,
    pooled_bert: Path,
    pico_text: Path,
    rates_measured_once: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Sources:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(greedy_text, "PROMPTS", greedy_text.PROMPTS[:5])
    monkeypatch.setattr(greedy_text, "NEW_TOKENS", 16)
    models = {"smollm2": str(pico_llama), "minilm": str(pooled_bert)}
    texts = dict.fromkeys(("wikipedia", "wikitext", "wikitext-valid"), pico_text)
    reviews = [
        f"{index}\t{index % 2 - 0.5}\t{text}"
        for index, text in enumerate(pico_text.read_text().split("\n\n"))
    ]
    texts["snippets"] = tmp_path / "snippets.txt"
    texts["snippets"].write_text("\n".join(reviews))
    return Sources(tmp_path / "sources", models, texts, pico=True, call=in_this_process)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SOON else pytest.mark.slow) for name in names()]
)
def test_every_study_runs_to_its_end(name: str, sources: Sources, tmp_path: Path) -> None:
    study = smallest(load_study(name))
    if library() is None and any(
        "--for edgepress" in row.export for table in study.tables for row in table.rows
    ):
        pytest.skip("the library of operators was not built here")
    page = run_study(study, sources, tmp_path / "work", tmp_path, Wanted(untimed=True))
    text = page.read_text()
    assert page.name == f"{name}.md" and text.startswith(f"# {study.title}\n")
    for table in study.tables:
        section = text.split(f"\n## {table.title}\n")[1].split("\n## ")[0]
        lines = [line for line in section.splitlines() if line.startswith("|")]
        assert len(lines) == 2 + len(table.rows)
        assert "- Command:" in section and "- Machine:" in section and "- Date:" in section


@pytest.mark.parametrize("name", names())
def test_every_row_is_a_recipe(name: str) -> None:
    for table in load_study(name).tables:
        for row in table.rows:
            if row.passes:
                recipe = parse_recipe({"name": row.name, "passes": row.passes, **table.recipe}, row.name)
                assert [step for step, _ in recipe.steps] == [step["pass"] for step in row.passes]
            elif row.recipe:
                assert load_recipe(row.recipe).steps
            elif row.peer is not None:
                tools = peers(row.peer.kind)
                assert row.peer.variant in tools[row.peer.tool].VARIANTS


ONE = {"title": "One", "tables": [{"name": "t", "title": "T", "subject": "smollm2", "columns": ["label"]}]}
TEXT = {"windows": 1, "metrics": ["kl"]}


def study_of(*rows: dict[str, object], **table: object) -> Study:
    """A study of one table."""
    (first,) = ONE["tables"]
    return parse({**ONE, "tables": [{**first, "held_out": [TEXT], "rows": list(rows), **table}]}, "one")  # type: ignore[dict-item]


def test_a_matrix_makes_a_row_of_every_combination() -> None:
    method = {"plain": [{"pass": "gptq"}], "tuned": [{"pass": "gptq"}, {"pass": "tune"}]}
    row = {"name": "w{bits}-{method}", "for": {"bits": [4, 3], "method": method}, "label": "{bits} bits"}
    made = study_of(
        {**row, "passes": ["{method}", {"pass": "rtn", "scheme": "W{bits}A16-g64", "n": "{bits}"}]}
    )
    rows = made.tables[0].rows
    assert [one.name for one in rows] == ["w4-plain", "w4-tuned", "w3-plain", "w3-tuned"]
    assert rows[3].label == "3 bits" and [step["pass"] for step in rows[3].passes] == ["gptq", "tune", "rtn"]
    assert rows[2].passes[-1] == {"pass": "rtn", "scheme": "W3A16-g64", "n": 3}


def test_a_misspelt_key_has_a_suggestion() -> None:
    with pytest.raises(InputError, match=r"unknown key 'tables.0.rows.0.labell'.*\n.*did you mean 'label'"):
        study_of({"name": "a", "labell": "A"})
    with pytest.raises(UnknownName, match="did you mean 'ternary'"):
        load_study("ternery")
    with pytest.raises(InputError, match="two rows are called 'a'"):
        study_of({"name": "a"}, {"name": "a"})
    with pytest.raises(UnknownName, match="unknown row"):
        study_of({"name": "a"}, timing={"baseline": ["b"]})


def test_columns_of_sizes_of_what_training_removed_and_of_another_row_s_kl(
    sources: Sources, tmp_path: Path
) -> None:
    shape = {"batch_tokens": 64, "micro_batch_tokens": 64, "measurements": 1, "epochs": 1}
    four, three = ({"pass": "rtn", "scheme": f"W{bits}A16-g32"} for bits in (4, 3))
    rows: list[dict[str, object]] = [
        {"name": "original"},
        {"name": "w4", "passes": [four]},
        {"name": "w3", "passes": [three]},
        {"name": "tuned", "passes": [three, {"pass": "tune", "training": shape}]},
        {"name": "fewer", "passes": [{"pass": "layers", "keep": 0.7, "repair": "none"}]},
    ]
    sizes = ["bits", "checkpoint_mb", "blocks_mb", "blocks_left", "layers", "of_original"]
    table = {
        "held_out": [{"windows": 4, "length": 32, "metrics": ["kl"]}],
        "calibration": {"text": "wikipedia", "samples": 8, "length": 32},
        "columns": ["label", *sizes, "removed", "times:w4", "cpu_s"],
        "curves": True,
    }
    study = study_of(*rows, **table)
    text = run_study(study, sources, tmp_path / "work", tmp_path, Wanted(untimed=True)).read_text()
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    _, original, w4, w3, tuned, fewer = ([cell.strip() for cell in line] for line in lines)
    assert float(original[1]) == 32 > float(w4[1]) > 4 > float(w3[1]) > 3
    assert all(float(one[column]) < float(original[column]) for one in (w4, w3) for column in (2, 3, 6))
    assert fewer[4].endswith("(asked 70%)") and (original[5][0], fewer[5][0]) == ("3", "2")
    assert w3[7].endswith("%") and tuned[7].endswith("%") and w4[8] == "–"
    assert "[" in w3[8] and "held-out token by training tokens" in text


def test_a_row_that_is_there_is_not_made_again(sources: Sources, tmp_path: Path) -> None:
    row = {"name": "w8", "passes": [{"pass": "rtn", "scheme": "W8A16-g32"}]}
    held_out = [{**TEXT, "length": 32}, {**TEXT, "length": 32, "text": "not-given", "label": "other"}]
    calls: list[str] = []

    def counted(arguments: list[str], threads: int) -> Cost:
        calls.append(arguments[0])
        return in_this_process(arguments, threads)

    sources.call = counted
    table = {"held_out": held_out, "columns": ["label", "bits", "quality", "cpu_s"], "validated": "bundle"}
    study = study_of({"name": "original"}, row, **table)
    for _ in range(2):
        page = run_study(study, sources, tmp_path / "work", tmp_path, Wanted(untimed=True))
    assert sorted(calls) == ["compress", "export", "export", "validate", "validate"]
    cells = page.read_text().split("| rtn ")[1].splitlines()[0].split(" | ")
    assert float(cells[2]) > 0 and cells[3] == "–"  # without the text that was not given
    changed = study_of(
        {"name": "original"}, {**row, "passes": [{"pass": "rtn", "scheme": "W4A16-g32"}]}, **table
    )
    with pytest.raises(InputError, match="another recipe"):
        run_study(changed, sources, tmp_path / "work", tmp_path, Wanted(untimed=True))


def test_rows_are_timed_beside_their_baseline_and_targets_judged(sources: Sources, tmp_path: Path) -> None:
    work = {
        "baseline": ["original"],
        "rounds": 6,
        "processes": 0,
        "prompts": [8],
        "new_tokens": 2,
        "pairs": True,
    }
    targets = [{"row": "w*", "metric": "perplexity", "over": "original", "at_most": 100}]
    table = {
        "held_out": [{"windows": 1, "length": 32, "metrics": ["perplexity"]}],
        "timing": work,
    }
    row = {"name": "w8", "passes": [{"pass": "rtn", "scheme": "W8A16-g32"}]}
    study = study_of({"name": "original"}, row, columns=["label", "speed"], targets=targets, **table)
    text = run_study(study, sources, tmp_path / "work", tmp_path, Wanted(disturbed=True)).read_text()
    assert "| passes | prefill 8 × original [95 %] | decode 8 × original [95 %] |" in text
    assert "(target at most 100: met)" in text


def test_what_people_say_of_a_section_outlives_the_program_that_writes_it(tmp_path: Path) -> None:
    page, notes = tmp_path / "page.md", tmp_path / "notes" / "page.md"
    notes.parent.mkdir()
    notes.write_text("## A\n\n- It was late.\n- And warm.\n\n## Of another page\n\n- No.\n")
    for title in ("A", "B", "A"):
        write_table(page, title, "command", ["x"], [["1"]], ["from the program"], page="Page")
    text = page.read_text()
    assert text.count("- from the program\n- It was late.\n- And warm.\n- Command: ") == 1
    assert "No." not in text and "from the program" in text[text.index("## B") :]


def test_a_section_takes_the_place_of_its_own_and_no_other(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for title, cell in (("A", "1"), ("B", "2"), ("A", "3")):
        write_table(page, title, "command", ["x"], [[cell]], [], page="Page")
    text = page.read_text()
    assert text.startswith("# Page\n\n## A\n") and text.count("## ") == 2
    assert "| 1 |" not in text and text.index("| 3 |") < text.index("## B\n") < text.index("| 2 |")
