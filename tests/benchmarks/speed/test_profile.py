"""``profile`` end to end on pico bundles: the line, its validity, the comparison, the verb."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.page.report import render_report
from edgepress.benchmarks.records import record
from edgepress.benchmarks.speed import profile
from edgepress.benchmarks.speed.profile import profile_bundle
from edgepress.benchmarks.speed.protocol import Protocol
from edgepress.cli.entry import run
from edgepress.devices.bandwidth import Bandwidth
from edgepress.errors import BundleError, InputError
from edgepress.export.api import export_bundle

pytestmark = pytest.mark.chain


FAST = Protocol(blocks=6, block_ms=1, warmup_seconds=0)
SHORT: dict[str, Any] = {"prompt_tokens": 12, "new_tokens": 4, "threads": 1}


@pytest.fixture(scope="module")
def decoder(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(pico_llama, output=tmp_path_factory.mktemp("profile") / "decoder", validate=False)


@pytest.fixture(scope="module")
def encoder(pico_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profile")
    checkpoint = Path(shutil.copytree(pico_bert, folder / "checkpoint"))
    steps = (("Transformer", ""), ("Pooling", "1_Pooling"))
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in steps]
    (checkpoint / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (checkpoint / "1_Pooling").mkdir()
    (checkpoint / "1_Pooling/config.json").write_text('{"pooling_mode_mean_tokens": true}', encoding="utf-8")
    return export_bundle(checkpoint, output=folder / "encoder", validate=False)


def set_bandwidth(monkeypatch: pytest.MonkeyPatch, bytes_per_second: float) -> None:
    found = Bandwidth(bytes_per_second, 1 << 20, 1, (bytes_per_second,))
    monkeypatch.setattr(profile, "measure_both", lambda *_, **__: (found, found))
    monkeypatch.setattr(profile, "measure_bandwidth", lambda *_, **__: found)


@pytest.fixture(autouse=True)
def fast_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that no rate exceeds, and that takes no time to measure."""
    set_bandwidth(monkeypatch, 1e15)


def test_a_decoder_beside_itself(decoder: Path, tmp_path: Path) -> None:
    file = tmp_path / "runs" / "decoder.jsonl"
    line = profile_bundle(
        decoder, baseline=decoder, protocol=FAST, record=file, command="edgepress profile", **SHORT
    )
    baseline, recorded = record.read([file])
    assert recorded.model_dump(mode="json") == line.model_dump(mode="json")
    assert baseline.compare is None and baseline.baseline is None
    assert line.baseline == baseline.subject == line.subject
    expected = "decode_tps prefill_tps ttft_ms tpot_ms itl_ms e2e_ms load_ms load_cold_ms rss_peak_bytes"
    assert set(line.metrics) == {*expected.split(), "device_bytes"}
    # Nothing is kept beside what was shipped.
    assert line.metrics["device_bytes"].value == line.subject.disk_bytes
    assert all(line.metrics[name].n == 6 for name in ("decode_tps", "load_ms", "rss_peak_bytes"))
    assert line.compare is not None
    assert (line.compare["metric"], line.compare["n_pairs"]) == ("decode_tps", 6)
    assert line.workload["prompt_tokens"] == 12
    assert line.runtime["threads"] == 1
    assert [place["provider"] for place in line.runtime["placement"]] == ["CPUExecutionProvider"]
    assert line.roofline is not None and 0 < line.roofline["fraction"] < 1
    assert {"before", "after", "between"} <= line.state.keys()
    assert sum(row["share"] for row in line.time_by_op) == pytest.approx(1)
    assert len(line.protocol["warm_ups"]) == 6
    assert all(entry["iterations"] >= 3 for entry in line.protocol["warm_ups"])


def test_several_versions_take_turns_with_one_baseline(decoder: Path, tmp_path: Path) -> None:
    file, once = tmp_path / "run.jsonl", Protocol(blocks=1, block_ms=1, warmup_seconds=0)
    line = profile_bundle(
        decoder, baseline=decoder, beside=[decoder, decoder], protocol=once, record=file, **SHORT
    )
    baseline, *versions = record.read([file])
    assert baseline.compare is None and [one.compare is None for one in versions] == [False] * 3
    assert line.id == versions[0].id


def test_the_account_of_a_decoder(decoder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run.jsonl"
    once = Protocol(blocks=1, block_ms=1, warmup_seconds=0)
    line = profile_bundle(decoder, per_op=True, protocol=once, record=run, **SHORT)
    assert line.per_op is not None
    prefill, decode = (line.per_op["phases"][name] for name in ("prefill", "decode"))
    config = json.loads((decoder / "config.json").read_text(encoding="utf-8"))
    position = 2 * 4 * config["num_key_value_heads"] * config["head_dim"] * config["num_hidden_layers"]
    # Twelve tokens are read and appended at once; then 13, 14 and 15 are read, and one appended each time.
    assert prefill["kv_bytes"] == position * 24
    assert decode["kv_bytes"] == position * 15
    stored = line.subject.bytes_per_token
    assert stored is not None and decode["weight_bytes"] == pytest.approx(stored, rel=0.02)
    assert [row["layer"] for row in decode["by_layer"] if row["layer"] != "shared"] == [
        f"model.layers.{index}" for index in range(config["num_hidden_layers"])
    ]
    assert line.per_op["bandwidth"]["bytes_per_second"] == 1e15
    page = render_report(record.read([run]))
    assert "every operator" in page and "self_attn.qkv" in page


def test_without_the_flag_there_is_no_account(decoder: Path) -> None:
    once = Protocol(blocks=1, block_ms=1, warmup_seconds=0)
    assert profile_bundle(decoder, protocol=once, **SHORT).per_op is None


def test_an_impossible_rate_is_invalid(decoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_bandwidth(monkeypatch, 1.0)
    line = profile_bundle(decoder, protocol=Protocol(blocks=1, block_ms=1, warmup_seconds=0), **SHORT)
    assert line.validity.status == "invalid"
    assert line.validity.reasons[0].startswith("impossible")
    # The numbers stay: a failed measurement is shown as failed, not hidden.
    assert line.metrics["decode_tps"].value is not None


def test_an_encoder(encoder: Path) -> None:
    line = profile_bundle(
        encoder,
        per_op=True,
        prompt_tokens=16,
        batch=3,
        threads=1,
        protocol=Protocol(blocks=1, block_ms=1, warmup_seconds=0),
    )
    assert {"sentences_per_second", "latency_ms", "load_ms", "rss_peak_bytes"} <= set(line.metrics)
    assert line.workload["kind"] == "embed"
    assert line.per_op is not None and set(line.per_op["phases"]) == {"batch", "single"}
    assert line.per_op["phases"]["single"]["by_op"][0]["missing_ms"] is not None
    assert line.roofline is None and line.compare is None
    assert line.validity.status != "valid"
    assert any("only 1 block:" in reason for reason in line.validity.reasons)


def test_what_cannot_be_measured_is_refused_before_work(decoder: Path, encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be compared"):
        profile_bundle(decoder, baseline=encoder)
    with pytest.raises(InputError, match="do not fit the context of 512"):
        profile_bundle(decoder, prompt_tokens=500, new_tokens=100)
    with pytest.raises(InputError, match="at least 2 new tokens"):
        profile_bundle(decoder, new_tokens=1)
    with pytest.raises(InputError, match="do not fit"):
        profile_bundle(encoder, prompt_tokens=100_000)
    with pytest.raises(BundleError, match="is not a bundle"):
        profile_bundle(tmp_path)


def test_a_damaged_bundle_is_refused(decoder: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(decoder, tmp_path / "damaged"))
    (damaged / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BundleError, match="does not match its manifest"):
        profile_bundle(damaged)


ARGUMENTS = "--quick --blocks 1 --prompt-tokens 8 --new-tokens 3 --threads 1".split()


@pytest.mark.usefixtures("one_short_block")
def test_the_verb_writes_one_document_and_its_run_file(
    decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["profile", str(decoder), *ARGUMENTS, "--json"]) == 0
    streams = capsys.readouterr()
    document = json.loads(streams.out)
    [line] = record.read([tmp_path / "runs/decoder.jsonl"])
    assert document["id"] == line.id
    assert "recorded in" in streams.err


@pytest.mark.usefixtures("one_short_block")
def test_the_table(decoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_to = ["--record", str(tmp_path / "r.jsonl")]
    code = run(["profile", str(decoder), *ARGUMENTS, "--per-op", "-q", *record_to])
    streams = capsys.readouterr()
    assert code == 0
    assert all(
        word in streams.out
        for word in ("decode", "peak RSS", "roofline", "time:", "suspect", "kernels", "by layer")
    )
    assert streams.err == ""


def test_another_device_is_not_this_machine(decoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", str(decoder), "--device", "raspberry-pi-5"]) == 2
    assert "profile measures, and cannot say" in capsys.readouterr().err
    assert run(["profile", str(decoder), "--device", "raspbery-pi-5"]) == 2
    err = capsys.readouterr().err
    assert "unknown device 'raspbery-pi-5'" in err and "did you mean 'raspberry-pi-5'" in err
