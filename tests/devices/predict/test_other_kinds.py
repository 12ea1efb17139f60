"""Predictions of encoders of images, encoder–decoders and models with states: the same sum over nodes, whose
bands are guesses; what no table times is refused.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from edgepress.devices.predict.data_sheet import predict_from_sheet
from edgepress.devices.predict.from_table import TablePrediction
from edgepress.devices.predict.prediction import Prediction
from edgepress.devices.predict.run import Operations, Run
from edgepress.devices.predict.subject import PredictedWork, Subject, bundle_subject
from edgepress.devices.predict.table_cost import NotMeasured
from edgepress.devices.target import target
from edgepress.errors import InputError
from edgepress.export.api import export_bundle

from ..kernel_table.tables import small_table

pytestmark = pytest.mark.chain
WORK = PredictedWork(16, 8, 4)
Bundles = Callable[[str], Path]


@pytest.fixture(scope="module")
def bundle(
    tmp_path_factory: pytest.TempPathFactory,
    make_vision: Callable[..., Path],
    make_tower: Callable[..., Path],
    make_encoder_decoder: Callable[..., Path],
    make_decoder: Callable[..., Path],
) -> Bundles:
    """The bundle of a pico model, made once."""
    root, known = tmp_path_factory.mktemp("kinds"), dict[str, Path]()

    def made(name: str) -> Path:
        if name not in known:
            folder = root / name / "model"
            if name in ("vit", "dinov2"):
                make_vision(folder, name)
            elif name.startswith("Siglip"):
                make_tower(folder, name)
            elif name in ("t5", "bart", "whisper"):
                make_encoder_decoder(folder, name)
            else:
                make_decoder(folder, name)
            known[name] = export_bundle(folder, output=root / name / "bundle", validate=False)
        return known[name]

    return made


def work(found: Operations) -> int:
    """Multiply-adds of products."""
    return sum(count * one.work for one, count in found.counts.items() if one.kind in ("product", "head"))


def predicted(subject: Subject, threads: int = 1) -> Prediction:
    WORK.check(subject)
    return TablePrediction(subject, small_table(), threads).predict(WORK, "edgepress profile BUNDLE")


def test_every_product_of_an_image_is_counted(bundle: Bundles) -> None:
    subject = bundle_subject(bundle("vit"))
    # 16 patches of 8 × 8 pixels and a class token; two blocks of width 64, 128 within.
    assert subject.unit == "image" and subject.length == 17
    blocks = 2 * (4 * 64 * 64 + 2 * 64 * 128)
    for images in (1, 4):
        found = subject.does(Run(17 * images, length=17))
        assert work(found) == images * (17 * blocks + 16 * 3 * 8 * 8 * 64)
        assert {one.sizes for one in found.counts if one.op == "Attention"} == {(4 * images, 17)}
        assert found.taken == {"Conv": "FusedMatMul"}


@pytest.mark.parametrize("name", ["vit", "dinov2", "SiglipVisionModel"])
def test_images_are_predicted_per_second(bundle: Bundles, name: str) -> None:
    found = predicted(bundle_subject(bundle(name)))
    rate, latency = found.value("images_per_second"), found.value("latency_ms")
    assert rate and latency and rate > 1e3 / latency / 2
    assert found.basis == "measured table, not held against measurements"
    assert any("bands are guesses" in note for note in found.notes)
    assert all(one.band == 0.5 for one in found.quantities if one.name != "disk_bytes")
    assert found.as_dict()["workload"] == {"batch": 4}


def test_an_answer_is_the_encoder_once_and_the_decoder_for_each_token(bundle: Bundles) -> None:
    subject = bundle_subject(bundle("t5"))
    assert subject.reads is not None and subject.begins == 1
    one, two = (work(subject.reads(Run(size, length=size))) for size in (16, 32))
    assert two == 2 * one > 0
    step = subject.does(Run(1, 3, length=16))
    attention = [one for one in step.counts if one.op == "GroupQueryAttention"]
    assert sorted(one.sizes for one in attention) == [(4 * 4,), (4 * 16,)]  # heads × written, heads × read
    found = predicted(subject)
    first, token, whole = (found.value(name) for name in ("ttft_ms", "tpot_ms", "e2e_ms"))
    assert first and token and whole == pytest.approx(first + 7 * token)
    assert found.value("prefill_tps") and not found.value("rtfx")
    assert any("Attention as GroupQueryAttention" in note for note in found.notes)


def test_a_sound_takes_what_it_takes_whatever_the_prompt(bundle: Bundles) -> None:
    subject = bundle_subject(bundle("whisper"))
    assert (subject.unit, subject.length, subject.seconds) == ("sound", 100, 2.0)
    assert subject.begins == 4  # the start, language, task, and no times
    found = predicted(subject)
    assert found.value("rtfx") == pytest.approx(2e3 / (found.value("e2e_ms") or 0))
    assert found.value("prefill_tps") is None
    assert found.as_dict()["workload"] == {"new_tokens": 8}
    with pytest.raises(InputError, match="does not fit"):
        PredictedWork(16, 80).check(subject)


def test_more_than_is_read_or_written_is_refused(bundle: Bundles) -> None:
    subject = bundle_subject(bundle("bart"))
    for wanted in (PredictedWork(1000, 8), PredictedWork(16, 1000), PredictedWork(16, 1)):
        with pytest.raises(InputError, match="does not fit"):
            wanted.check(subject)


@pytest.mark.parametrize("name", ["mamba", "mamba2", "jamba"])
def test_no_table_times_what_a_scan_carries(bundle: Bundles, name: str) -> None:
    subject = bundle_subject(bundle(name))
    with pytest.raises(NotMeasured, match="carries a state from token to token") as refused:
        predicted(subject)
    assert (
        "edgepress profile BUNDLE" in refused.value.fix
        and "encoders of texts and images" in refused.value.fix
    )


def test_states_that_are_summed_are_predicted(bundle: Bundles) -> None:
    found = predicted(bundle_subject(bundle("lfm2")))
    assert found.value("decode_tps") and found.basis == "measured table, not held against measurements"


def test_a_sheet_says_of_which_models_its_share_is(bundle: Bundles) -> None:
    pi = target("raspberry-pi-5")
    for name in ("t5", "mamba"):
        found = predict_from_sheet(bundle_subject(bundle(name)), pi, WORK, "profile")
        assert found.value("decode_tps") and any("of decoders that attend" in note for note in found.notes)
    images = predict_from_sheet(bundle_subject(bundle("vit")), pi, WORK, "profile")
    assert {one.name for one in images.quantities} >= {"images_per_second", "latency_ms", "disk_bytes"}
    assert images.value("images_per_second") is None
