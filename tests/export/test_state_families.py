"""Families whose blocks mix tokens by a state of fixed size, through the front door: every pass that they
take, and what only states ask of a runtime, which is to begin again and to go back.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.errors import BundleError, InputError, RecipeError
from edgepress.export.api import export_bundle
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine.batch_decoder import BatchDecoder
from edgepress.runtime.engine.decoder import Decoder

pytestmark = pytest.mark.chain

FAMILIES = ("lfm2", "mamba", "mamba2", "jamba")
IDS = [int(token) for token in np.random.default_rng(5).integers(3, 300, 160)]
ROWS = (40, 5, 17)
CALIBRATED: dict[str, Any] = {"samples": 4, "length": 32}
RECIPES = {
    "rtn": "{pass: rtn, scheme: W8A8}",
    "gptq": "{pass: gptq, scheme: W4A16-g16}",
    "gptq3": "{pass: gptq, scheme: W3A16-g32}",
    "awq": "{pass: awq, scheme: W4A16-g16}",
    "smoothquant": "{pass: smoothquant}",
    "hqq": "{pass: hqq, scheme: W4A16-g16}",
    "autoround": "{pass: autoround, scheme: W4A16-g16, iterations: 4}",
    "sparsegpt": "{pass: sparsegpt, sparsity: 0.5}, {pass: rtn, scheme: W8A16-g16}",
    "alps": "{pass: alps, sparsity: 0.5}",
    "prune": "{pass: prune, score: wanda, sparsity: 0.5}",
    "layers": "{pass: layers, keep: 0.7}, {pass: rtn, scheme: W4A16-g16}",
    "greedy": "{pass: layers, keep: 0.7, criterion: greedy, repair: none}, {pass: rtn, scheme: W4A16-g16}",
    "embedding": "{pass: embedding, scheme: W4A16-g16}, {pass: rtn, scheme: W4A16-g16}",
}
# All of these for every family, some of them among the slow tests, each of the others for one.
EACH = ("rtn", "gptq", "awq", "layers")
LATER = (
    *(
        ("lfm2", "rtn"),
        ("mamba2", "rtn"),
        ("lfm2", "gptq"),
        ("mamba2", "gptq"),
        ("mamba", "awq"),
        ("jamba", "awq"),
    ),
    *(("mamba", "layers"), ("mamba2", "layers")),
    *(("jamba", "rtn"), ("mamba", "gptq"), ("lfm2", "awq")),
)
OTHERS = [name for name in RECIPES if name not in EACH]
PAIRS = [
    pytest.param(family, name, marks=pytest.mark.slow if (family, name) in LATER else ())
    for name in EACH
    for family in FAMILIES
    if (family, name) != ("jamba", "layers")
]
PAIRS += [pytest.param(FAMILIES[place % 3], name) for place, name in enumerate(OTHERS)]
Made = Callable[[str], Path]


@pytest.fixture(scope="module")
def made(make_decoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The checkpoint of a family, made once."""
    root, known = tmp_path_factory.mktemp("states"), dict[str, Path]()

    def once(family: str) -> Path:
        if family not in known:
            known[family] = make_decoder(root / family, family)
        return known[family]

    return once


@pytest.fixture(scope="module")
def bundles(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Its bundle in float."""
    root = tmp_path_factory.mktemp("bundles")

    def once(family: str) -> Path:
        output = root / family
        return output if output.exists() else export_bundle(made(family), output=output, validate=False)

    return once


def compressed(model: Path, passes: str, text: Path, folder: Path) -> Path:
    (folder / "r.yaml").write_text(f"passes: [{passes}]")
    options: dict[str, Any] = {"calibration": str(text), **CALIBRATED, "recipe": str(folder / "r.yaml")}
    return compress_model(str(model), output=folder / "o", **options)


@torch.no_grad()
def torch_logits(model: Any, ids: list[int]) -> np.ndarray:
    return model(torch.tensor([ids]), use_cache=False).logits[0].numpy()  # type: ignore[no-any-return]


@pytest.mark.parametrize(("family", "name"), PAIRS)
def test_compressed_exported_and_answering(
    family: str, name: str, made: Made, pico_text: Path, tmp_path: Path
) -> None:
    """The proof of the export is torch's, and so are greedy tokens; plain transformers opens the rest."""
    from transformers import AutoModelForCausalLM

    out = compressed(made(family), RECIPES[name], pico_text, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    ours = load_model(out)
    # compressed-tensors rounds the activations of these.
    bound = 0.5 if name in ("rtn", "smoothquant") else 1e-4
    assert np.abs(torch_logits(plain, IDS) - torch_logits(ours, IDS)).max() < bound
    bundle = export_bundle(out, output=tmp_path / "b", activations="float32")
    theirs, ids = load_model(out, embedding=True), IDS[:40]
    decoder = Decoder.open(Bundle.open(bundle), threads=1)
    logits = decoder.prefill(ids, new_tokens=12)
    for _ in range(12):
        wanted, chosen = torch_logits(theirs, ids)[-1], int(logits.argmax())
        assert name in ("rtn", "smoothquant") or wanted.max() - wanted[chosen] < 1e-3
        ids.append(chosen)
        logits = decoder.step(chosen)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "passes", ["narrow, keep: 0.7", "width, keep: 0.7", "rotate", "qat, scheme: W4A16-g16", "ternary"]
)
def test_what_needs_attention_is_refused_before_anything_is_loaded(
    family: str, passes: str, made: Made, pico_text: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="blocks without attention"):
        compressed(made(family), f"{{pass: {passes}}}", pico_text, tmp_path)


def test_blocks_that_are_of_a_kind_by_their_number_stay(made: Made, pico_text: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="follows from its number"):
        compressed(made("jamba"), "{pass: layers, keep: 0.7}", pico_text, tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("format", ["onnx_hub", "gptq", "awq"])
def test_other_formats_refuse_it(family: str, format: str, made: Made, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"states of a|without attention"):
        export_bundle(made(family), output=tmp_path / "b", format=format)


@pytest.mark.parametrize("provider", ["cuda", "openvino"])
def test_other_providers_refuse_it(provider: str, made: Made, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="written for the CPU only"):
        export_bundle(made("lfm2"), output=tmp_path / "b", provider=provider)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_decoder_begins_again_goes_on_and_goes_back(family: str, made: Made, bundles: Made) -> None:
    decoder = Decoder.open(Bundle.open(bundles(family)), threads=1)
    want = torch_logits(load_model(made(family)), IDS)

    def check(found: np.ndarray, place: int) -> None:
        assert np.abs(found - want[place]).max() < 5e-5

    check(decoder.prefill(IDS[7:47], new_tokens=2) * 0 + want[3], 3)  # whatever the buffers hold now,
    check(decoder.prefill(IDS[:40]), 39)  # a new sequence begins without it
    check(decoder.step(IDS[40]), 40)
    check(decoder.extend(IDS[41:150]), 149)
    decoder.rewind(150)
    check(decoder.step(IDS[150]), 150)
    decoder.rewind(150)  # where the last prompt ended: the states are known
    check(decoder.step(IDS[150]), 150)
    decoder.rewind(60)  # and here they are not
    check(decoder.extend(IDS[60:70]), 69)
    decoder.rewind(0)
    check(decoder.extend(IDS[:5]), 4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_conversation_keeps_what_it_can(family: str, made: Made, bundles: Made) -> None:
    decoder = Decoder.open(Bundle.open(bundles(family)), threads=1)
    model = load_model(made(family))
    first, other = IDS[:30], [*IDS[:30], 9, 8, 7]
    decoder.prefill(first, new_tokens=4)
    decoder.step(5)
    for turn in (other, [*other, 3, 4], [*IDS[:10], 2], [*IDS[:10], 2]):
        assert np.abs(decoder.resume(turn) - torch_logits(model, turn)[-1]).max() < 5e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_unequal_length_side_by_side(family: str, made: Made, bundles: Made) -> None:
    decoder = Decoder.open(Bundle.open(bundles(family)), threads=1)
    batch, model = BatchDecoder(decoder.session, decoder.section), load_model(made(family))
    for start in (3, 0):  # the second batch in the buffers of the first
        rows = [IDS[start : start + count] for count in ROWS]
        found = batch.prefill(rows).copy()
        for more in (IDS[100:103], IDS[103:106]):
            for row, logits in zip(rows, found, strict=True):
                assert np.abs(logits - torch_logits(model, row)[-1]).max() < 5e-5
            rows = [[*row, token] for row, token in zip(rows, more, strict=True)]
            found = batch.step(more).copy()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"states": []}, "it has an input|not a usable manifest"),
        ({"states": [{"name": "conv.0", "shape": [1 << 14, 1 << 14]}]}, "not a usable manifest"),
        ({"states": [{"name": "conv.0", "shape": [3, 64]}]}, "the manifest says"),
        ({"attending": [0, 0, 1]}, "not a usable manifest"),
        ({"states": [{"name": "../x", "shape": [3, 64]}]}, "not a usable manifest"),
    ],
)
def test_a_manifest_that_lies_about_states_is_refused(
    family: str, changes: dict[str, Any], why: str, bundles: Made, tmp_path: Path
) -> None:
    folder = tmp_path / "b"
    shutil.copytree(bundles(family), folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["decoder"] |= changes
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=why):
        Decoder.open(Bundle.open(folder), threads=1)
