"""Predictions of bundles: every node of a real graph is counted, and what is not known is refused or said."""

import json
from functools import partial
from pathlib import Path

import pytest
from edgepress.cli.entry import run
from edgepress.compress.api import compress_model
from edgepress.devices.kernel_table import gpu
from edgepress.devices.kernel_table import table as kept
from edgepress.devices.kernel_table.cases import families_of
from edgepress.devices.kernel_table.gpu import gpu_cases
from edgepress.devices.kernel_table.submission import submissions
from edgepress.devices.kernel_table.table import KernelTable, Key, write_table
from edgepress.devices.predict import predict as module
from edgepress.devices.predict.data_sheet import SHARES, predict_from_sheet
from edgepress.devices.predict.predict import predict
from edgepress.devices.predict.run import Run
from edgepress.devices.predict.subject import PredictedWork, Subject, bundle_subject
from edgepress.devices.predict.table_cost import NotMeasured
from edgepress.devices.target import Share, target
from edgepress.errors import InputError, UnknownName
from edgepress.export.api import export_bundle
from edgepress.runtime.kernels.library import library

from ..kernel_table.tables import plain_seconds, small_table

pytestmark = pytest.mark.chain
WORK = PredictedWork(16, 8, 4)


@pytest.fixture(scope="module")
def decoder(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder") / "bundle"
    export_bundle(pico_llama, output=folder)
    return folder


@pytest.fixture(scope="module")
def encoder(pico_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder") / "bundle"
    export_bundle(pico_bert, output=folder)
    return folder


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has a table."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    table = small_table()
    monkeypatch.setattr(module, "this_key", lambda: table.key)
    write_table(kept.tables_of("here") / "table.json", table)


def products(subject: Subject, run: Run) -> dict[int, int]:
    """Multiply-adds of the products by their rows."""
    found: dict[int, int] = {}
    for one, count in subject.does(run).counts.items():
        if one.kind in ("product", "head"):
            found[one.sizes[0]] = found.get(one.sizes[0], 0) + count * one.work
    return found


def weights_in(pico: Path, *parts: str) -> int:
    from safetensors import safe_open

    total = 0
    with safe_open(pico / "model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            if any(part in name for part in parts) and name.endswith("weight"):
                total += file.get_slice(name).get_shape()[0] * file.get_slice(name).get_shape()[1]
    return total


def test_every_product_of_a_decoder_is_counted(decoder: Path, pico_llama: Path) -> None:
    subject = bundle_subject(decoder)
    blocks = weights_in(pico_llama, "_proj")
    head = weights_in(pico_llama, "embed_tokens")
    assert sum(products(subject, Run(1, 8)).values()) == blocks + head
    rows = products(subject, Run(16, 0))
    assert set(rows) == {1, 16}, "what is after the last attention is for the last position alone"
    last = rows[1] - head
    assert rows[16] + 16 * last == 16 * blocks
    attention = [one for one in subject.does(Run(1, 8)).counts if "Attention" in one.op]
    assert all(one.kind == "step" for one in attention)
    assert subject.does(Run(1, 8)).nodes > sum(subject.does(Run(1, 8)).counts.values())


def test_every_product_of_an_encoder_is_counted(encoder: Path, pico_bert: Path) -> None:
    found = products(bundle_subject(encoder), Run(32, length=8))
    names = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
    assert found == {32: 32 * weights_in(pico_bert, *names)}


@pytest.mark.usefixtures("measured")
def test_a_table_predicts_all_quantities_with_their_check(decoder: Path, encoder: Path) -> None:
    found = predict(bundle_subject(decoder), "here", WORK, threads=1, path="BUNDLE")
    assert found.basis == "measured table" and found.threads == 1
    assert found.check == "edgepress profile BUNDLE --prompt-tokens 16 --max-new-tokens 8 --threads 1"
    names = {"decode_tps", "prefill_tps", "ttft_ms", "tpot_ms", "e2e_ms", "rss_peak_bytes", "disk_bytes"}
    assert {one.name for one in found.quantities} == names
    assert all(one.value and one.low and one.low <= one.value for one in found.quantities)
    size = sum(path.stat().st_size for path in decoder.iterdir())
    assert found.value("disk_bytes") == size
    assert found.as_dict() == predict(bundle_subject(decoder), "this", WORK, threads=1).as_dict() | {
        "check": found.check
    }
    sentences = predict(bundle_subject(encoder), "here", WORK)
    assert sentences.threads == 2 and sentences.value("latency_ms")
    assert (sentences.value("sentences_per_second") or 0) > 0


@pytest.mark.usefixtures("measured")
def test_more_context_and_more_tokens_take_longer(decoder: Path) -> None:
    subject = bundle_subject(decoder)
    short, long = (predict(subject, "here", PredictedWork(size, 8)) for size in (8, 64))
    assert (long.value("ttft_ms") or 0) > (short.value("ttft_ms") or 0)
    assert (long.value("tpot_ms") or 0) > (short.value("tpot_ms") or 0)
    assert (long.value("rss_peak_bytes") or 0) >= (short.value("rss_peak_bytes") or 0)


def test_a_sheet_predicts_from_bandwidth_alone(decoder: Path) -> None:
    subject, sheet = bundle_subject(decoder), target("raspberry-pi-5")
    found = predict(subject, "Raspberry_Pi_5", WORK)
    token = subject.does(Run(1, 20)).working_set
    assert found.basis == "data sheet" and found.threads is None
    assert found.value("decode_tps") == pytest.approx(
        SHARES["small"][0] * sheet.bandwidth.value * 1e9 / token
    )
    assert found.value("prefill_tps") is None
    server = predict(subject, "h100-sxm", WORK)
    decoding = next(one for one in server.quantities if one.name == "decode_tps")
    assert decoding.value is None and "no GPU was measured" in decoding.reason
    assert decoding.high == pytest.approx(target("h100-sxm").bandwidth.value * 1e9 / token)


def test_a_share_that_was_measured_takes_the_place_of_the_general_one(decoder: Path) -> None:
    subject, sheet = bundle_subject(decoder), target("raspberry-pi-5")
    own = sheet.model_copy(update={"share": Share(value=0.7, source="a run", confidence="high")})
    plain, better = (predict_from_sheet(subject, one, WORK, "") for one in (sheet, own))
    ratio = (better.value("decode_tps") or 0) / (plain.value("decode_tps") or 1)
    assert ratio == pytest.approx(0.7 / SHARES["small"][0])


def test_a_submitted_table_predicts_and_is_marked(
    decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = small_table().model_dump(by_alias=True, mode="json")
    words = {"schema": "edgepress.submission/1", "target": "raspberry-pi-5", "machine": "A board"}
    (tmp_path / "a.json").write_text(json.dumps({**words, "sender": "someone", "table": table}))
    monkeypatch.setattr(module, "submissions", partial(submissions, folder=tmp_path))
    found = predict(bundle_subject(decoder), "raspberry-pi-5", WORK)
    assert (found.basis, found.target, found.threads) == ("measured table", "raspberry-pi-5", 2)
    assert "measured on A board by someone (submissions/a.json)" in found.notes[0]
    power = target("raspberry-pi-5").power.value
    assert found.value("decode_j_per_token") == pytest.approx(power / (found.value("decode_tps") or 0))
    assert any("modelled, not counted" in note for note in found.notes)


def test_what_cannot_be_said_is_refused(
    decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    subject = bundle_subject(decoder)
    with pytest.raises(InputError, match="has no kernel table yet") as caught:
        predict(subject, "here", WORK)
    assert "edgepress devices measure" in caught.value.fix
    with pytest.raises(UnknownName, match="raspberry-pi-6"):
        predict(subject, "raspberry-pi-6", WORK)
    with pytest.raises(InputError, match="do not fit"):
        predict(subject, "raspberry-pi-5", PredictedWork(1 << 20, 8))
    write_table(kept.tables_of("here") / "table.json", small_table(runtime="0.1"))
    with pytest.raises(InputError, match="another state") as caught:
        predict(subject, "here", WORK)
    assert "runtime" in caught.value.why


@pytest.mark.usefixtures("measured")
def test_the_verb_keeps_predictions_apart(decoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--prompt-tokens", "16", "--max-new-tokens", "8"]
    assert run(["predict", str(decoder), "--on", "here,raspberry-pi-5", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["predictions"]
    assert [one["basis"] for one in found] == ["measured table", "data sheet"]
    assert all(one["predicted"] and one["check"].startswith("edgepress ") for one in found)
    assert run(["predict", str(decoder), *words]) == 0
    shown = capsys.readouterr().out
    assert "predicted from a measured table" in " ".join(shown.split())
    assert "measure it: edgepress profile" in " ".join(shown.split())


@pytest.mark.usefixtures("measured")
def test_a_machine_that_cannot_be_predicted_does_not_hide_the_others(
    decoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = small_table(complete=False, machine="pi", families=small_table().families[:1])
    write_table(kept.tables_of("pi") / "table.json", stopped)
    words = ["predict", str(decoder), "--on", "pi,raspberry-pi-5", "--prompt-tokens", "16"]
    assert run([*words, "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert [one["target"] for one in document["predictions"]] == ["raspberry-pi-5"]
    assert "edgepress devices measure pi" in document["errors"]["pi"]["fix"]
    assert run(words) == 2
    shown = capsys.readouterr()
    assert "on raspberry-pi-5" in " ".join(shown.out.split())
    assert "E-NOT-MEASURED" in shown.err and "go on with it: edgepress devices measure pi" in shown.err


@pytest.fixture(scope="module")
def for_cuda(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cuda")
    small = compress_model(str(pico_llama), scheme="W4A16-g32", output=folder / "small")
    return export_bundle(small, output=folder / "bundle", provider="cuda", validate=False)


def gpu_table() -> KernelTable:
    """Of a GPU whose operators reach half of every roof."""
    done = {}
    for index, case in enumerate(gpu_cases()):
        seconds = plain_seconds(case.kind.operation, case.reach)
        done[index, 1] = (seconds, seconds)
    key = Key(processor="A GPU", flags=["driver 1"], runtime="1.0", provider="cuda", kernels="none")
    one = {"fixed": small_table().fixed[:1], "bandwidth": small_table().bandwidth[:3]}
    return small_table(key=key, families=families_of(done, gpu_cases()), **one)


def test_a_gpus_table_predicts_bundles_for_it_and_no_others(
    for_cuda: Path, decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    table = gpu_table()
    monkeypatch.setattr(gpu, "gpu_key", lambda provider: table.key)
    subject = bundle_subject(for_cuda)
    with pytest.raises(InputError, match="no kernel table of cuda yet") as caught:
        predict(subject, "here", WORK, provider="cuda")
    assert "devices measure --provider cuda" in caught.value.fix
    write_table(kept.tables_of("here", "cuda") / "table.json", table)
    found = predict(subject, "here", WORK, provider="cuda")
    basis = "measured table, not held against measurements"
    assert (found.basis, found.provider, found.threads) == (basis, "cuda", None)
    assert found.check.endswith("--max-new-tokens 8 --provider cuda") and "cuda" in found.source
    rate = next(one for one in found.quantities if one.name == "decode_tps")
    assert rate.value and rate.band >= 0.5 and any("no prediction for a GPU" in note for note in found.notes)
    assert found.value("rss_peak_bytes") is None and found.as_dict()["provider"] == "cuda"
    compared = module.foretold(lambda: subject, WORK, 8, provider="cuda")
    assert compared is not None and compared.value("decode_tps") == rate.value
    with pytest.raises(InputError, match="no kernel table yet"):  # the processor has none of its own
        predict(subject, "here", WORK)
    with pytest.raises(NotMeasured):
        predict(bundle_subject(decoder), "here", WORK, provider="cuda")


def test_a_provider_that_a_machine_does_not_have_is_refused(
    decoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = bundle_subject(decoder)
    for name, provider in (("raspberry-pi-5", "cuda"), ("h100-sxm", "cpu"), ("h100-sxm", "openvino")):
        with pytest.raises(InputError, match=f"cannot be predicted with {provider}"):
            predict(subject, name, WORK, provider=provider)
    with pytest.raises(InputError, match="fuses whole graphs"):
        predict(subject, "here", WORK, provider="tensorrt")
    with pytest.raises(UnknownName, match="cudda"):
        predict(subject, "here", WORK, provider="cudda")
    words = ["--prompt-tokens", "16", "--max-new-tokens", "8", "--json"]
    cases: tuple[tuple[list[str], str], ...] = (([], "cuda"), (["--provider", "tensorrt"], "tensorrt"))
    for more, provider in cases:
        assert run(["predict", str(decoder), "--on", "h100-sxm", *more, *words]) == 0
        (found,) = json.loads(capsys.readouterr().out)["predictions"]
        assert found["provider"] == provider and f"--provider {provider}" in found["check"]
        assert found["quantities"]["decode_tps"]["value"] is None
    near = predict(subject, "core-ultra-258v", WORK, provider="openvino")
    assert near.value("decode_tps") is None


@pytest.mark.skipif(library() is None, reason="needs edgepress's own operators")
@pytest.mark.usefixtures("measured")
def test_standard_operators_are_predicted_too(pico_llama: Path, tmp_path: Path) -> None:
    export_bundle(pico_llama, output=tmp_path / "bundle", operators="standard")
    found = predict(bundle_subject(tmp_path / "bundle"), "here", WORK, threads=1)
    assert (found.value("decode_tps") or 0) > 0
