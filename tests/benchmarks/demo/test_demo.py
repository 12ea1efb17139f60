"""The whole chain on pico models: every step, the resume, and the page at its end."""

import shutil
from pathlib import Path

import pytest
from edgepress.benchmarks.demo.demo_plan import DemoModel, DemoSize, DemoVersion
from edgepress.benchmarks.demo.run_demo import DemoResult, run_demo
from edgepress.benchmarks.page.join import join
from edgepress.benchmarks.quality import greedy_text
from edgepress.benchmarks.records import record
from edgepress.benchmarks.speed.protocol import Protocol
from edgepress.errors import InputError, OutputExists
from edgepress.files.output_lock import OutputLock
from edgepress.files.storage import write_json

pytestmark = pytest.mark.chain


SIZE = DemoSize(windows=2, length=64, sentences=8, protocol=Protocol(blocks=2, block_ms=1, warmup_seconds=0))
SECONDS = dict.fromkeys(("compress", "export", "original", "validate", "profile"), 1.0)
STEPS = 2 + 2 + 3 * 3  # two originals, two rounds of timing, three versions of three steps


@pytest.fixture(scope="module")
def sentence_encoder(pico_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pico encoder with files that say how to pool."""
    folder = tmp_path_factory.mktemp("sentence") / "encoder"
    shutil.copytree(pico_bert, folder)
    (folder / "1_Pooling").mkdir()
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds.items())
    ]
    write_json(folder / "modules.json", modules)
    return folder


@pytest.fixture(scope="module")
def models(pico_llama: Path, sentence_encoder: Path, pico_text: Path) -> list[DemoModel]:
    """A pico decoder and encoder in the demo's roles."""
    calibration = {"calibration": str(pico_text), "samples": 4, "length": 32}
    text = str(pico_text)
    eight = DemoVersion("w8a8", "to 8 bits", {}, SECONDS)
    four = DemoVersion("w4a16-gptq", "to 4 bits", calibration, SECONDS)
    return [
        DemoModel("encoder", str(sentence_encoder), "encoder", (eight,), SECONDS, text),
        DemoModel("decoder", str(pico_llama), "decoder", (eight, four), SECONDS, text),
    ]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "out"


@pytest.fixture(scope="module")
def result(models: list[DemoModel], output: Path) -> DemoResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(greedy_text, "NEW_TOKENS", 16)
        return run_demo(output, models=models, size=SIZE)


def test_each_model_is_measured_beside_its_original(result: DemoResult) -> None:
    assert result.skipped == ()
    groups = join(record.read(result.runs))
    assert [group.kind for group in groups] == ["decoder", "encoder"]
    for group, metrics in zip(
        groups, [("kl", "decode_tps"), ("cosine", "sentences_per_second")], strict=True
    ):
        assert group.further == ()
        (original,) = group.baselines
        for metric in metrics:
            for one in (original, *group.compressed):
                reading = one.reading(metric)
                assert reading is not None
                assert reading.value is not None
        lines = [row.line("latency") for row in group.compressed]
        assert all(line is not None and line.compare is not None for line in lines)
    assert [len(group.compressed) for group in groups] == [2, 1]


def test_the_page_names_the_commands(result: DemoResult, models: list[DemoModel]) -> None:
    page = result.report.read_text(encoding="utf-8")
    for verb in ("compress", "export", "validate", "profile"):
        assert f"edgepress {verb} " in page
    assert page.count(f"edgepress compress {models[1].model} --recipe w4a16-gptq") == 1


def test_the_same_call_again_skips_what_is_whole(
    result: DemoResult, models: list[DemoModel], output: Path
) -> None:
    before = [path.read_bytes() for path in result.runs]
    assert len(run_demo(output, models=models, size=SIZE).skipped) == STEPS
    assert [path.read_bytes() for path in result.runs] == before


def test_a_damaged_bundle_is_made_again(result: DemoResult, models: list[DemoModel], output: Path) -> None:
    """When what differs, which may be somebody's own work, is out of the way."""
    graph = result.bundles["encoder/w8a8"] / "model.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1] + b"?")
    with pytest.raises(OutputExists) as caught:
        run_demo(output, models=models, size=SIZE)
    assert "model.onnx (changed" in caught.value.why and graph.read_bytes() == whole[:-1] + b"?"
    graph.unlink()
    skipped = run_demo(output, models=models, size=SIZE).skipped
    assert graph.read_bytes() == whole
    # Nothing that comes before it runs again, and nothing of the other model.
    assert len(skipped) == STEPS - 1 and "encoder: export the fp32 original" in skipped


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="not a directory"):
        run_demo(path, models=[])


@pytest.mark.parametrize("name", ["report.html", "demo.json"])
@pytest.mark.parametrize("content", ["[1]", '{"mine": "years"}'])
def test_what_a_user_has_in_the_output_stays(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(OutputExists, match=f"{name} is not of"):
        run_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text(encoding="utf-8") == content


def test_two_demos_do_not_write_to_one_directory(tmp_path: Path) -> None:
    lock = OutputLock(tmp_path / ".lock")
    assert lock.acquire()
    with pytest.raises(InputError, match="another demo is running"):
        run_demo(tmp_path)
    lock.release()
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == []
