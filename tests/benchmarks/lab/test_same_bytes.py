"""The comparison of bytes before and after a change: what it records, and what it calls a difference."""

import json
from pathlib import Path

import pytest
from edgepress.benchmarks.lab.same_bytes.case_runner import Runner
from edgepress.benchmarks.lab.same_bytes.cases import Case, demo_cases, pico_cases
from edgepress.benchmarks.lab.same_bytes.hash_comparison import compare_records
from edgepress.benchmarks.lab.same_bytes.pico_families import MODELS
from edgepress.benchmarks.lab.same_bytes.pico_models import make_subjects
from edgepress.compress.model.families import __path__ as families
from edgepress.compress.model.families._llama_rows import ROWS
from edgepress.compress.passes import __path__ as passes
from edgepress.compress.pipeline.pass_names import PASS_ALIASES

RTN = [{"pass": "rtn", "scheme": "W4A16-g32"}]


@pytest.fixture
def runner(rates_measured_once: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    make_subjects(tmp_path, ["llama"])
    return Runner(tmp_path, tmp_path / "first.json")


@pytest.mark.chain
def test_a_case_is_recorded_file_by_file_and_twice_the_same(runner: Runner, tmp_path: Path) -> None:
    cases = [
        Case("llama/rtn", "llama", RTN, exports=[{"format": "onnx", "operators": "standard"}]),
        Case("llama/wide", "llama", [{"pass": "rtn", "scheme": "W4A16-g128"}]),
    ]
    runner.run(cases)
    found = json.loads((tmp_path / "first.json").read_text())
    assert found["llama/wide"] == {"compress": "refused E-SHAPE, exit 2"}
    assert {"model.safetensors", "edgepress.json", "edgepress.json#layers", "export-0/model.onnx"} <= set(
        found["llama/rtn"]
    )
    again = Runner(tmp_path, tmp_path / "again.json")
    again.run(cases)
    assert again.known == found


def test_a_recorded_case_is_not_run_again(runner: Runner) -> None:
    runner.known["llama/rtn"] = {"model.safetensors": "as it was"}
    runner.run([Case("llama/rtn", "llama", RTN)])
    assert runner.known["llama/rtn"] == {"model.safetensors": "as it was"}


@pytest.mark.chain
def test_every_pass_and_every_family_has_a_case() -> None:
    cases = pico_cases()
    used = {str(step["pass"]) for case in cases for step in case.passes}
    used |= {PASS_ALIASES[name].name for name in used & PASS_ALIASES.keys()}
    assert plug_ins(passes) <= used
    assert plug_ins(families) | set(ROWS) <= {MODELS[case.model][0].replace("-", "_") for case in cases}
    assert {case.model for case in demo_cases()} == {"smollm2", "minilm"}
    assert len({case.name for case in cases}) == len(cases)


def plug_ins(folders: list[str]) -> set[str]:
    return {path.stem for path in Path(folders[0]).glob("[!_]*.py")}


MANIFEST = {
    "edgepress.json": "0" * 64,
    "edgepress.json#recipe": "0" * 64,
    "edgepress.json#steps": "0" * 64,
    "edgepress.json#steps without names": "0" * 64,
    "model.safetensors": "0" * 64,
}
REWORDED = dict.fromkeys(("edgepress.json", "edgepress.json#recipe", "edgepress.json#steps"), "1" * 64)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        (REWORDED, 0),
        (REWORDED | {"model.safetensors": "1" * 64}, 1),
        (REWORDED | {"edgepress.json#steps without names": "1" * 64}, 1),
        ({"edgepress.json": "1" * 64}, 1),
    ],
)
def test_other_words_for_a_recipe_are_no_difference(
    changes: dict[str, str], code: int, tmp_path: Path
) -> None:
    paths = [tmp_path / "before.json", tmp_path / "after.json"]
    for path, case in zip(paths, (MANIFEST, MANIFEST | changes), strict=True):
        path.write_text(json.dumps({"llama/w8a8": case}))
    assert compare_records(paths[:1], paths[1:]) == code


@pytest.mark.parametrize(("name", "code"), [("constants/hqq", 0), ("llama/hqq", 1)])
def test_options_that_became_constants_may_be_refused(name: str, code: int, tmp_path: Path) -> None:
    paths = [tmp_path / "before.json", tmp_path / "after.json"]
    for path, case in zip(paths, (MANIFEST, {"compress": "refused E-RECIPE, exit 2"}), strict=True):
        path.write_text(json.dumps({name: case}))
    assert compare_records(paths[:1], paths[1:]) == code


@pytest.mark.parametrize(
    ("after", "code", "shown"),
    [
        ({"a/x": {"w": "0" * 64}}, 0, "1 cases, 1 values: 0 cases differ"),
        ({"a/x": {"w": "1" * 64}}, 1, "w differs"),
        ({"a/x": {"compress": "refused E-SHAPE, exit 2"}}, 1, "w is gone"),
        ({"a/x": {"w": "0" * 64}, "a/y": {}}, 1, "only after"),
    ],
)
def test_what_differs_is_shown(
    after: dict[str, dict[str, str]],
    code: int,
    shown: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, record in {"before": {"a/x": {"w": "0" * 64}}, "after": after}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    page = tmp_path / "page.md"
    assert compare_records([tmp_path / "before.json"], [tmp_path / "after.json"], page) == code
    assert shown in capsys.readouterr().out
    assert page.read_text().startswith("# The same bytes")
