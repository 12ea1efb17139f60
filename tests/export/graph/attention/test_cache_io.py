"""Both caches of an encoder–decoder in codes and in half precision: what is stored, what is proven, and that
answers are those of torch with keys and values rounded alike.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.benchmarks.quality.validate import validate_bundle
from edgepress.compress.api import compress_model
from edgepress.compress.model.opens_in import opens_in_transformers
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.devices.predict.run import Run
from edgepress.devices.predict.subject import bundle_subject
from edgepress.errors import BundleError, GateFailed, InputError
from edgepress.export.api import export_bundle
from edgepress.export.graph.build import WeightView
from edgepress.export.proof.distances import divergence, log_softmax
from edgepress.files.storage import read_json
from edgepress.runtime.api import open_bundle
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine.encoder_decoder import EncoderDecoder
from edgepress.runtime.engine.text_to_text import TextToTextModel
from transformers import AutoModelForSeq2SeqLM

pytestmark = pytest.mark.chain

Make = Callable[..., Path]
# By the type of the cache: bytes of a number, and what the manifest calls the scheme.
KINDS = {"int8": (1.0, "KV8-channel"), "int4": (0.5, "KV4-tensor"), "fp16": (2.0, None), "fp32": (4.0, None)}
DTYPES = {"int8": "int8", "int4": "uint8", "fp16": "float16", "fp32": "float32"}
TENSOR = {"num_bits": 4, "strategy": "tensor"}
READ, WRITTEN = [[5, 9, 17, 1], [20, 8, 6, 11, 24, 7, 19, 1]], [[0, 7, 11, 5, 13, 6], [0, 3, 3, 9, 21, 4]]


def compressed(model: Path, text: Path, output: Path, bits: int, granularity: str, first: str = "") -> Path:
    recipe = output.with_suffix(".yaml")
    steps = f"{first}  - {{pass: kv_cache, bits: {bits}, granularity: {granularity}}}\n"
    recipe.write_text(f"name: r\npasses:\n{steps}embedding: null\n")
    options: dict[str, Any] = {"samples": 8, "length": 24, "calibration": str(text)}
    return compress_model(str(model), recipe=str(recipe), output=output, **options)


@pytest.mark.parametrize(
    ("family", "kv", "operators"),
    [
        ("t5", "int8", "standard"),
        ("t5", "int4", "edgepress"),
        ("bart", "int8", "edgepress"),
        ("marian", "int4", "standard"),
        # A cache in float is in the tests of other graphs too.
        pytest.param("bart", "fp16", "standard", marks=pytest.mark.slow),
        pytest.param("t5", "fp32", "edgepress", marks=pytest.mark.slow),
    ],
)
def test_answers_are_those_of_torch_with_rounded_keys_and_values(
    family: str, kv: str, operators: str, make_encoder_decoder: Make, pico_text: Path, tmp_path: Path
) -> None:
    model = make_encoder_decoder(tmp_path / "m", family)
    coded = (4, "per-tensor") if kv == "int4" else (8, "per-channel")
    made = compressed(model, pico_text, tmp_path / "c", *coded)
    options: dict[str, Any] = {} if kv in ("int8", "int4") else {"kv": kv}  # codes by themselves
    bundle = Bundle.open(export_bundle(made, output=tmp_path / "b", operators=operators, **options))
    section, (size, scheme) = bundle.encoder_decoder, KINDS[kv]
    assert section.kv_dtype == DTYPES[kv]
    assert bundle.manifest["encoder_decoder"]["kv_scheme"] == scheme
    numbers = sum(2 * layer.kv_heads * layer.head_dim for layer in section.layers)
    assert section.kv_bytes_per_token == size * numbers
    parity = bundle.manifest["parity"]
    assert parity["status"] == "passed"
    assert ("codes" in parity) == (kv != "fp32")
    assert ("caches" in parity) == (kv in ("int8", "int4"))

    driver = EncoderDecoder.open(bundle, threads=1)
    driver.prefill(READ)
    steps = [driver.step([row[place] for row in WRITTEN]) for place in range(1, len(WRITTEN[0]))]
    assert all(value.data_type() == f"tensor({_named(kv)})" for value in driver._written.values())
    found = np.stack(steps, axis=1)
    want, far = (_logits(load_model(made, cache=codes)) for codes in (kv in ("int8", "int4"), False))
    distance, rounding = divergence(want, log_softmax(found)).mean(), divergence(want, far).mean()
    # A code that falls the other way is a part of what rounding costs; half precision rounds as finely.
    assert distance < (0.05 * rounding if rounding > 0 else 1e-6)


def _named(kv: str) -> str:
    return {"fp16": "float16", "fp32": "float"}.get(kv, DTYPES[kv])


@torch.no_grad()
def _logits(model: Any) -> np.ndarray:
    rows = [
        model(torch.tensor([read]), decoder_input_ids=torch.tensor([written])).logits[0, 1:]
        for read, written in zip(READ, WRITTEN, strict=True)
    ]
    return log_softmax(torch.stack(rows).numpy())


def test_the_checkpoint_has_scales_of_both_caches_of_the_decoder_alone(
    pico_t5: Path, pico_text: Path, tmp_path: Path
) -> None:
    first = "  - {pass: rtn, scheme: W8A16-g16}\n"
    made = compressed(pico_t5, pico_text, tmp_path / "c", 8, "per-channel", first)
    source = WeightSource.open(made)
    encoder, decoder = source.anatomy.ranges()
    for index, block in enumerate(source.anatomy.blocks):
        scales = source.block_scales(block)
        assert set(scales) == ({part.module for part in block.attentions()} if index in decoder else set())
        for part, one in zip(block.attentions() if scales else (), scales.values(), strict=True):
            assert tuple(one.key.shape) == (part.kv_heads, 1, part.head_dim)
    statuses = [
        status for status in read_json(made / "edgepress.json")["layers"] if "cache" in status["name"]
    ]
    assert len(statuses) == len(decoder) * 4
    assert {status["status"] for status in statuses} == {"ok"}
    assert all(0 < status["error"] < 1e-3 for status in statuses)
    assert len(encoder) > 0


def test_torch_s_own_cache_gives_the_same_answers(
    make_encoder_decoder: Make, pico_text: Path, tmp_path: Path
) -> None:
    """Kept from step to step, keys and values are rounded once, and read as they are without a cache."""
    for family in ("t5", "bart"):
        model = make_encoder_decoder(tmp_path / family, family)
        torch_model: Any = load_model(compressed(model, pico_text, tmp_path / f"c-{family}", 4, "per-tensor"))
        assert read_json(tmp_path / f"c-{family}" / "config.json")["edgepress_kv_cache"] == TENSOR
        read = torch.tensor(READ[1:])
        state: Any = None
        steps: list[Any] = []
        with torch.no_grad():
            states = torch_model.get_encoder()(read)
            for token in WRITTEN[1]:
                given = {"encoder_outputs": states, "decoder_input_ids": torch.tensor([[token]])}
                output = torch_model(**given, cache=state, use_cache=True)
                state = output.cache
                steps.append(output.logits[0, 0])
            whole = torch_model(read, decoder_input_ids=torch.tensor([WRITTEN[1]]), use_cache=False).logits[0]
        assert torch.allclose(torch.stack(steps), whole, atol=1e-3)
        plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / f"c-{family}").eval()
        given = {"input_ids": read, "decoder_input_ids": torch.tensor([WRITTEN[1]])}
        with torch.no_grad():  # others leave both caches in float
            expected = load_model(tmp_path / f"c-{family}", cache=False)(**given).logits
            assert torch.equal(plain(**given).logits, expected)
        assert opens_in_transformers(WeightSource.open(tmp_path / f"c-{family}")).answer == "differs"


def test_a_cache_with_wrong_scales_is_not_published(
    pico_t5: Path, pico_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = compressed(pico_t5, pico_text, tmp_path / "c", 8, "per-channel")
    original = WeightView.kv_scales

    def planted(self: WeightView, attention: Any) -> Any:
        scales = original(self, attention)
        return scales and type(scales)(scales.scheme, scales.key / 8, scales.value / 8)

    monkeypatch.setattr(WeightView, "kv_scales", planted)
    with pytest.raises(GateFailed, match="caches as they ship"):
        export_bundle(made, output=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_what_has_no_scales_or_no_such_cache_is_refused(
    pico_t5: Path, pico_text: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="int8 cache"):
        export_bundle(pico_t5, output=tmp_path / "b", kv="int8")
    made = compressed(pico_t5, pico_text, tmp_path / "c", 8, "per-channel")
    with pytest.raises(InputError, match="float32") as refused:
        export_bundle(made, output=tmp_path / "b", format="onnx_hub")
    assert "--kv fp32" in refused.value.fix
    bundle = export_bundle(made, output=tmp_path / "b", validate=False)
    manifest = read_json(bundle / "manifest.json")
    section = Bundle.open(bundle).encoder_decoder
    assert manifest["encoder_decoder"]["kv_dtype"] == "int8"
    opened = EncoderDecoder.open(Bundle.open(bundle), threads=1)
    with pytest.raises(BundleError, match="float32"):
        EncoderDecoder(
            opened.encoder, opened.session, type(section)(**vars(section) | {"kv_dtype": "float32"})
        )


def test_a_bundle_with_codes_is_validated_and_answers(pico_t5: Path, pico_text: Path, tmp_path: Path) -> None:
    made = compressed(pico_t5, pico_text, tmp_path / "c", 8, "per-channel")
    bundle = export_bundle(made, output=tmp_path / "b")
    line = validate_bundle(bundle, pico_t5, text=pico_text, sentences=2, length=24)
    assert 0 < line.metrics["kl"].value < 0.01  # type: ignore[operator]
    model = open_bundle(bundle)
    assert isinstance(model, TextToTextModel)
    texts = ["the river", "a word and another word"]
    alone = [model.generate(text, max_new_tokens=6).token_ids for text in texts]
    assert [reply.token_ids for reply in model.generate_batch(texts, max_new_tokens=6)] == alone


@pytest.mark.parametrize("bits", [8, 4])
def test_what_is_predicted_counts_the_same_attention_and_fewer_bytes(
    bits: int, pico_t5: Path, pico_text: Path, tmp_path: Path
) -> None:
    made = compressed(pico_t5, pico_text, tmp_path / "c", bits, "per-channel")
    coded = bundle_subject(export_bundle(made, output=tmp_path / "b", validate=False))
    plain = bundle_subject(export_bundle(pico_t5, output=tmp_path / "p", validate=False))
    assert coded.kv_bytes * 32 == plain.kv_bytes * bits
    counts = [
        sorted(one.sizes for one in each.does(Run(1, 3, length=16)).counts if one.op == "GroupQueryAttention")
        for each in (coded, plain)
    ]
    assert counts[0] == counts[1] != []
