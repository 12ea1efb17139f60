"""Bundles with quantized and half-precision caches: what they say, what is refused, and how they run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from edgepress.cli.program import edgepress
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.errors import GateFailed, InputError
from edgepress.export.api import export_bundle
from edgepress.export.graph.build import WeightView
from edgepress.export.proof.distances import divergence, log_softmax
from edgepress.files.hashed_tree import hash_tree
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine import batch_decoder
from edgepress.runtime.engine.batch_decoder import BatchDecoder
from edgepress.runtime.engine.decoder import Decoder
from edgepress.runtime.kernels.library import library

pytestmark = pytest.mark.chain


IDS = np.random.default_rng(8).integers(0, 300, 100).tolist()


@pytest.fixture(scope="module")
def checkpoints(
    pico_llama: Path, pico_text: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Path]:
    """The pico Llama with 4-bit weights and a cache of 8 or 4 bits."""
    folder = tmp_path_factory.mktemp("kv")
    made = {}
    for bits, granularity in ((8, "per-channel"), (4, "per-tensor")):
        recipe = folder / f"{bits}.yaml"
        cache = f"{{pass: kv_cache, bits: {bits}, granularity: {granularity}}}"
        recipe.write_text(f"name: r\npasses:\n  - {{pass: rtn, scheme: W4A16-g32}}\n  - {cache}\n")
        made[bits] = compress_model(
            str(pico_llama),
            recipe=str(recipe),
            output=folder / str(bits),
            calibration=str(pico_text),
            samples=12,
            length=32,
        )
    return made


@pytest.fixture(scope="module")
def bundles(checkpoints: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Their bundles by the type of the cache, with standard operators; proven. Read only."""
    return _exported(checkpoints, tmp_path_factory.mktemp("bundles"), "standard")


@pytest.fixture(scope="module")
def own_bundles(checkpoints: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same with edgepress's own operators."""
    if library() is None:
        pytest.skip("the library of operators was not built here")
    return _exported(checkpoints, tmp_path_factory.mktemp("own"), "edgepress")


def _exported(checkpoints: dict[int, Path], folder: Path, operators: str) -> dict[str, Path]:
    options: dict[str, Any] = {"operators": operators}
    return {
        "int8": export_bundle(checkpoints[8], output=folder / "int8", **options),
        "int4": export_bundle(checkpoints[4], output=folder / "int4", kv="int4", **options),
        "fp16": export_bundle(checkpoints[8], output=folder / "fp16", kv="fp16", **options),
        "fp32": export_bundle(checkpoints[8], output=folder / "fp32", kv="fp32", **options),
    }


@pytest.mark.parametrize(
    ("kv", "dtype", "per_token", "scheme", "label"),
    [
        ("int8", "int8", 192, "KV8-channel", "W4A16-g32 rtn + KV8-channel"),
        ("int4", "uint8", 96, "KV4-tensor", "W4A16-g32 rtn + KV4-tensor"),
        ("fp16", "float16", 384, None, "W4A16-g32 rtn + KV16"),
        ("fp32", "float32", 768, None, "W4A16-g32 rtn"),
    ],
)
def test_the_manifest_states_the_cache(
    bundles: dict[str, Path], kv: str, dtype: str, per_token: int, scheme: str | None, label: str
) -> None:
    bundle = Bundle.open(bundles[kv])
    section = bundle.manifest["decoder"]
    assert (section["kv_dtype"], section["kv_bytes_per_token"]) == (dtype, per_token)
    assert (section["kv_scheme"], bundle.scheme) == (scheme, label)
    assert bundle.decoder.kv_bytes_per_token == per_token
    parity = bundle.manifest["parity"]
    assert parity["status"] == "passed"
    assert {"float", "quantized", "codes", "greedy"} <= set(parity)


def test_a_graph_with_wrong_scales_is_not_published(
    checkpoints: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = WeightView.kv_scales

    def planted(self: WeightView, attention: Any) -> Any:
        scales = original(self, attention)
        return scales and type(scales)(scales.scheme, scales.key / 8, scales.value / 8)

    monkeypatch.setattr(WeightView, "kv_scales", planted)
    with pytest.raises(GateFailed, match=r"distance of model.layers.0 as it ships"):
        export_bundle(checkpoints[8], output=tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kv", ["int8", "int4"])
def test_a_cache_without_scales_is_refused(
    pico_llama: Path, checkpoints: dict[int, Path], kv: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="scales") as refused:
        export_bundle(pico_llama, output=tmp_path / "b", kv=kv)
    assert "pass: kv_cache" in refused.value.fix
    other = checkpoints[4 if kv == "int8" else 8]
    with pytest.raises(InputError, match=r"KV[48]"):
        export_bundle(other, output=tmp_path / "b", kv=kv)
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_has_no_cache(pico_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="encoder"):
        export_bundle(pico_bert, output=tmp_path / "b", kv="fp16")


def test_a_plain_checkpoint_takes_half_precision(pico_llama: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(export_bundle(pico_llama, output=tmp_path / "b", kv="fp16"))
    assert bundle.scheme == "fp32 + KV16"
    assert bundle.manifest["parity"]["quantized"]["kl_mean"] < 1e-4


def test_the_command_line(checkpoints: dict[int, Path], tmp_path: Path) -> None:
    command = [
        "export",
        str(checkpoints[8]),
        "--kv",
        "fp16",
        "--no-validate",
        "-o",
        str(tmp_path / "b"),
        "--json",
    ]
    result = CliRunner().invoke(edgepress, command)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["scheme"] == "W4A16-g32 rtn + KV16"
    assert "--kv fp16" in (tmp_path / "b" / "README.md").read_text()
    assert CliRunner().invoke(edgepress, ["export", "x", "--kv", "int3", "-o", "y"]).exit_code == 2


def test_the_same_command_gives_the_same_bytes(
    bundles: dict[str, Path], checkpoints: dict[int, Path], tmp_path: Path
) -> None:
    again = export_bundle(checkpoints[8], output=tmp_path / "int8", operators="standard")
    assert hash_tree(again) == hash_tree(bundles["int8"])


@pytest.mark.parametrize("kv", ["int8", "int4", "fp16", "fp32"])
def test_steps_chunks_and_growth_agree_with_one_pass(
    bundles: dict[str, Path], kv: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels round activations to 8 bits, so that the same tokens in other pieces differ a little."""
    monkeypatch.setattr("edgepress.runtime.engine.decoder.PREFILL_CHUNK", 13)
    monkeypatch.setattr("edgepress.runtime.engine.decoder.CAPACITY_STEP", 8)
    decoder = Decoder.open(Bundle.open(bundles[kv]), threads=1)
    want = log_softmax(decoder.logits(np.array([IDS]))[0])
    found = [decoder.prefill(IDS[:40]).copy()]
    found += [decoder.step(token).copy() for token in IDS[40:70]]
    found += [decoder.extend(IDS[70:]).copy()]
    positions = [*range(39, 70), 99]
    # Rounding inputs to 8 bits costs 3e-4, a 4-bit cache up to 3e-2; two roundings lie twice as far apart.
    kl = divergence(want[positions], log_softmax(np.array(found)))
    assert float(kl.mean()) < (5e-2 if kv == "int4" else 5e-3)
    other = decoder.prefill(IDS[50:90]).copy()  # a new sequence in the same buffers
    again = Decoder.open(Bundle.open(bundles[kv]), threads=1)
    assert np.array_equal(other, again.prefill(IDS[50:90]))


@pytest.mark.parametrize("kv", ["int8", "int4", "fp16", "fp32"])
def test_own_operators_answer_alike_in_any_pieces(
    own_bundles: dict[str, Path], kv: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgepress.runtime.engine.decoder.PREFILL_CHUNK", 13)
    monkeypatch.setattr("edgepress.runtime.engine.decoder.CAPACITY_STEP", 16)
    decoder = Decoder.open(Bundle.open(own_bundles[kv]), threads=1)
    want = decoder.logits(np.array([IDS]))[0]
    found = [decoder.prefill(IDS[:40]).copy()]
    found += [decoder.step(token).copy() for token in IDS[40:70]]  # the buffers grow twice on the way
    found += [decoder.extend(IDS[70:]).copy()]
    assert np.array_equal(want[[*range(39, 70), 99]], np.array(found))


@pytest.mark.parametrize("bits", [8, 4])
def test_batches_and_conversations_against_torch(
    bits: int,
    pico_llama: Path,
    pico_text: Path,
    torch_logits: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Float weights, so that only flipped codes can tell the two apart; rows of 1, 7 and 128 tokens."""
    monkeypatch.setattr(batch_decoder, "PREFILL_CHUNK", 50)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"passes:\n  - {{pass: kv_cache, bits: {bits}}}\nembedding: null\n")
    options: dict[str, Any] = {"calibration": str(pico_text), "samples": 8, "length": 32}
    checkpoint = compress_model(str(pico_llama), recipe=str(recipe), output=tmp_path / "c", **options)
    bundle = Bundle.open(export_bundle(checkpoint, output=tmp_path / "b", validate=False))
    single, model, unrounded = Decoder.open(bundle, threads=1), load_model(checkpoint), load_model(pico_llama)
    batch = BatchDecoder(single.session, single.section)
    rows = [IDS[:1], IDS[10:17], (IDS * 2)[:128]]

    def check(found: np.ndarray) -> None:
        want, far = (
            log_softmax(np.stack([torch_logits(each, np.array([row]))[0, -1] for row in rows]))
            for each in (model, unrounded)
        )
        # Of what rounding the cache costs: a code that falls the other way has 12 times the variance of a
        # rounding, and a position reads 192 codes or more, so that one of them is 6 % at most.
        assert divergence(want, log_softmax(found)).mean() < 0.1 * divergence(want, far).mean()

    check(batch.prefill(rows, new_tokens=8))
    for token in (5, 6, 7):
        rows = [[*row, token] for row in rows]
        check(batch.step([token] * 3))
    more = [IDS[40:80], [], IDS[3:4]]
    rows = [row + new for row, new in zip(rows, more, strict=True)]
    check(batch.extend(more))
    rows = [[*row, 9] for row in rows]
    check(batch.step([9] * 3))
    assert batch.lengths == [45, 11, 133]
    single.prefill(rows[2][:120])
    assert np.abs(single.resume(rows[2]) - batch._logits[2, 0]).max() < 0.2
