"""What plain transformers makes of a checkpoint is what we say: every family, and every scheme that the
writer has on each form of linears. A model that opens has all its weights, bit for bit; none opens with
random ones.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from edgepress.cli.program import edgepress
from edgepress.compress.api import compress_model
from edgepress.compress.model.anatomy import module_name
from edgepress.compress.model.block_anatomy import Attention, BlockAnatomy
from edgepress.compress.model.checkpoint.quantization_config import NEEDS_NEWER, NOT_THERE
from edgepress.compress.model.family import FAMILIES
from edgepress.compress.model.kv_scheme import KVScales, KVScheme, stored_scales
from edgepress.compress.model.opens_in import opens_in_transformers
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.fake_quant import input_scale_of
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.pipeline.block_shards import BlockWriter
from edgepress.compress.pipeline.stage import StageResult, assemble
from edgepress.export.api import export_bundle
from edgepress.files.storage import read_json, write_json
from edgepress.plugins import names
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...rounding import same_sums

pytestmark = pytest.mark.chain

POOLERLESS = ("distilbert", "electra", "eurobert", "modernbert", "deberta_v2")
POOLED = ("albert", "bert", "camembert", "gte", "mpnet", "nomic_bert", "roberta", "xlm_roberta")
ENCODERS = (*POOLERLESS, *POOLED)
DASHED = {"deberta_v2": "deberta-v2", "xlm_roberta": "xlm-roberta"}
ENCODER_DECODERS = ("bart", "marian", "mt5", "t5", "whisper")
MIXTURES = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "qwen2_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v3": {},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2},
}
STACKED = ("granitemoe", "gpt_oss")
STATES = ("mamba", "mamba2")  # no block attends
HYBRIDS = {"lfm2": {"layer_types": ["conv", "full_attention"]}}
LINEARS = [name for name in names(FAMILIES) if name not in MIXTURES]
VISION = ("dinov2", "vit")
TOWERS = {
    "clip_text_model": "CLIPTextModelWithProjection",
    "clip_vision_model": "CLIPVisionModelWithProjection",
    "siglip_text_model": "SiglipTextModel",
    "siglip_vision_model": "SiglipVisionModel",
}
# By role; one that is not named stays in float. Four schemes side by side, as `allocate` leaves them.
MANY = {"q": "W4A16-g32", "qkv": "W4A16-g32", "o": "W4A16_ASYM-g32", "up": "W8A8", "down": "W3A16-g16"}
SCHEMES = {
    **{
        name: name for name in ("W2A16-g16", "W3A16-g64", "W4A16-g32", "W8A16-channel", "W8A8", "W8A8_STATIC")
    },
    **{name: name for name in ("W4A16_ASYM-g32", "W8A16_ASYM-channel")},
    **{name: name for name in ("FP8_DYNAMIC", "FP8", "NVFP4A16", "MXFP4A16", "NVFP4", "MXFP4")},
    "many": MANY,
    "many floats": {"q": "NVFP4", "qkv": "NVFP4", "up": "FP8_DYNAMIC", "down": "MXFP4A16"},
    "some": {"up": "W4A16-g32"},
}
# One family for each form of linears (apart, fused, transposed, of an encoder) in every scheme, others in
# these.
FORMS = ("llama", "gpt_neox", "gpt2", "bert")
USUAL = ("W4A16-g32", "W8A8", "many", "some")
# Of those each other family has one scheme for all linears and one for some, by turns; the rest is slow.
BY_TURNS = (("W4A16-g32", "many"), ("W8A8", "some"), ("W4A16-g32", "some"), ("W8A8", "many"))
CACHES = [KVScheme(bits=8, granularity="per-tensor"), KVScheme(bits=4, granularity="per-channel")]


def scheme_of(label: str | dict[str, str], role: str) -> Scheme | None:
    name = label.get(role) if isinstance(label, dict) else label
    return None if name is None else Scheme.parse(name)


def quantized(source: WeightSource, name: str, scheme: Scheme) -> QTensor:
    found = quantize(source.dense(name), scheme)
    scale = input_scale_of(scheme, torch.full(found.codes.shape[1:], 4.0))
    return replace(found, input_scale=scale)


def written(model: Path, label: str | dict[str, str], folder: Path, cache: KVScheme | None = None) -> Path:
    """``model`` with its linears rounded as ``label`` says, as a recipe would leave it."""
    source = WeightSource.open(model)
    linears = source.anatomy.linears() if label else []
    wanted = {linear.name: scheme_of(label, linear.role) for linear in linears}
    schemes = {name: scheme for name, scheme in wanted.items() if scheme is not None}
    writer = BlockWriter(source, schemes, folder / "work")

    def part(block: BlockAnatomy) -> Path:
        mine = {one.name for one in block.linears()} & schemes.keys()
        codes = {name: quantized(source, name, schemes[name]) for name in sorted(mine)}
        extra = None
        if cache is not None and isinstance(block.mixer, Attention):
            extra = stored_scales({block.attention.module: of_a_cache(block, cache)})
        return writer.part(block, codes, {}, {}, extra)

    parts = [*map(part, source.anatomy.blocks), writer.outer()]
    assemble(source, StageResult(parts, [], schemes, writer.forms, kv_scheme=cache), folder / "o")
    return folder / "o"


def of_a_cache(block: BlockAnatomy, cache: KVScheme) -> KVScales:
    scale = torch.full(cache.scale_shape(block.attention), 0.25)
    return KVScales(cache, scale, scale.clone())


def opened(path: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
    import transformers
    from transformers import (
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoModelForSpeechSeq2Seq,
    )

    family = read_json(path / "config.json")["model_type"].replace("-", "_")
    plain: Any = AutoModelForSeq2SeqLM if family in ENCODER_DECODERS else AutoModelForCausalLM
    plain = AutoModelForSpeechSeq2Seq if family == "whisper" else plain
    plain = AutoModel if family in (*ENCODERS, *VISION) else plain
    plain = getattr(transformers, TOWERS[family]) if family in TOWERS else plain
    if family == "vit" or (family in ENCODERS and family not in POOLERLESS):
        options["add_pooling_layer"] = False
    model, info = plain.from_pretrained(path, output_loading_info=True, **options)
    return model.eval(), info


def outputs(model: Any) -> Tensor:
    if model.main_input_name == "pixel_values":
        with torch.no_grad():
            return model(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))[0]  # type: ignore[no-any-return]
    ids = torch.randint(3, 30, (2, 17), generator=torch.Generator().manual_seed(0))
    more = {"decoder_input_ids": ids[:, :5]} if model.config.is_encoder_decoder else {}
    read = ids
    if model.main_input_name == "input_features":
        read = torch.randn(2, 16, 200, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if more:  # as `generate` does, before the whole model runs
            model.get_encoder()(read)
        return model(read, **more)[0]  # type: ignore[no-any-return]


def check_what_we_say(path: Path) -> None:
    """Open it in plain transformers, and hold what happens against the answer."""
    source = WeightSource.open(path)
    said = opens_in_transformers(source)
    try:
        theirs, info = opened(path)
        found = outputs(theirs)  # the first run unpacks the weights
    except (RuntimeError, AttributeError, ValueError, re.error) as error:
        assert said.answer == "no" and said.why, error
        return
    assert not info["missing_keys"] and not info["mismatched_keys"]
    assert all(name.endswith(("k_scale", "v_scale")) for name in info["unexpected_keys"])
    routed = {linear.name for block in source.anatomy.blocks for linear in block.expert_linears()}
    for linear in source.anatomy.linears():
        if linear.name in routed:
            continue
        weight = theirs.get_submodule(module_name(source.anatomy, linear.name)).weight
        assert torch.equal(weight.T if source.conv1d else weight, source.dense(linear.name)), linear.name
    for block in source.anatomy.blocks:
        check_experts(theirs, source, block)
    ours = outputs(load_model(path))
    same = same_sums(found, ours)
    assert said.answer == ("yes" if same else "differs"), said
    assert (said.why is None) == same


def check_experts(theirs: Any, source: WeightSource, block: BlockAnatomy) -> None:
    """Their tensors of all experts are ours, as float16 where they have codes."""
    if block.experts is None:
        return
    held = theirs.get_submodule(module_name(source.anatomy, block.experts.prefix))
    for index in range(block.experts.count):
        *first, down = (source.tensor(name) for name in block.experts.stored(index))
        both, last = held.gate_up_proj[index], held.down_proj[index]
        if block.experts.stacked and len(first) == 1:  # stored [in, out]
            both, last = both.T, last.T
        for found, want in ((both, torch.cat(first)), (last, down)):
            assert ((found - want).abs() <= 2**-10 * want.abs() + 1e-7).all()


@pytest.fixture(scope="module")
def pico(
    make_decoder: Callable[..., Path],
    make_encoder: Callable[..., Path],
    make_encoder_decoder: Callable[..., Path],
    make_vision: Callable[..., Path],
    make_tower: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Path]:
    """A float32 model of a family, made once."""
    root = tmp_path_factory.mktemp("families")

    def make(family: str) -> Path:
        path = root / family
        if path.exists():
            return path
        if family in ENCODERS:
            return make_encoder(path, DASHED.get(family, family))
        if family in TOWERS:
            return make_tower(path, TOWERS[family])
        if family in VISION:
            return make_vision(path, family)
        if family in ENCODER_DECODERS:
            return make_encoder_decoder(path, family)
        own = MIXTURES.get(family, {}) | HYBRIDS.get(family, {})
        return make_decoder(path, family, num_hidden_layers=2, **own)

    return make


def soon(family: str, label: str) -> tuple[pytest.MarkDecorator, ...]:
    its_turn = label in BY_TURNS[LINEARS.index(family) % len(BY_TURNS)]
    return () if family in FORMS or its_turn else (pytest.mark.slow,)


@pytest.mark.parametrize(
    ("family", "label"),
    [
        pytest.param(family, label, marks=soon(family, label))
        for family in LINEARS
        for label in (SCHEMES if family in FORMS else USUAL)
    ],
)
def test_a_quantized_model(family: str, label: str, pico: Callable[[str], Path], tmp_path: Path) -> None:
    check_what_we_say(written(pico(family), SCHEMES[label], tmp_path))


# Experts that can be joined, that cannot, and experts in float.
OF_EXPERTS: dict[str, str | dict[str, str]] = {
    **{name: name for name in ("W4A16-g32", "W8A8", "W4A16_ASYM-g32")},
    "alike": {"q": "W8A16-channel", **dict.fromkeys(("gate", "up", "down"), "W4A16-g32")},
    "two": {**dict.fromkeys(("gate", "up"), "W4A16-g32"), "down": "W8A16-channel"},
    "attention": {"q": "W4A16-g32"},
}


@pytest.mark.parametrize(
    ("family", "label"),
    [
        *(("mixtral", label) for label in OF_EXPERTS),
        *(("deepseek_v3", label) for label in ("W4A16-g32", "W8A8", "attention")),
        *((family, label) for family in STACKED for label in ("W4A16-g32", "attention")),
    ],
)
def test_a_quantized_mixture(family: str, label: str, pico: Callable[[str], Path], tmp_path: Path) -> None:
    check_what_we_say(written(pico(family), OF_EXPERTS[label], tmp_path))


@pytest.mark.parametrize("family", names(FAMILIES))
def test_a_model_in_float(family: str, pico: Callable[[str], Path], tmp_path: Path) -> None:
    path = written(pico(family), "", tmp_path)
    check_what_we_say(path)
    assert opens_in_transformers(WeightSource.open(path)).answer == "yes"


CACHED = [name for name in LINEARS if name not in (*ENCODERS, *ENCODER_DECODERS, *VISION, *TOWERS, *STATES)]


# Both kinds of cache, over float and over codes: a family of each form of linears has all four, others two.
@pytest.mark.parametrize(
    ("family", "cache", "label"),
    [
        pytest.param(
            family,
            cache,
            label,
            marks=() if family in FORMS or (index + number + bool(label)) % 2 == 0 else pytest.mark.slow,
            id=f"{label}-{cache.name}-{family}",
        )
        for label in ("", "W4A16-g32")
        for number, cache in enumerate(CACHES)
        for index, family in enumerate(CACHED)
    ],
)
def test_a_quantized_cache(
    family: str, cache: KVScheme, label: str, pico: Callable[[str], Path], tmp_path: Path
) -> None:
    check_what_we_say(written(pico(family), label, tmp_path, cache))


UNEQUAL = "passes: [{pass: narrow, keep: 0.7}, {pass: rtn, scheme: %s}]"


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("scheme", ["W4A16-g16", "W4A16_ASYM-g16", "W8A8"])
def test_blocks_of_unequal_size(
    family: str, scheme: str, pico: Callable[[str], Path], pico_text: Path, tmp_path: Path
) -> None:
    (tmp_path / "r.yaml").write_text(UNEQUAL % scheme)
    options: dict[str, Any] = {"calibration": str(pico_text), "samples": 4, "length": 32}
    out = compress_model(str(pico(family)), recipe=str(tmp_path / "r.yaml"), output=tmp_path / "o", **options)
    check_what_we_say(out)
    assert opens_in_transformers(WeightSource.open(out)).answer == "no"


def test_gpt2_saved_without_its_head(pico: Callable[[str], Path], tmp_path: Path) -> None:
    model = shutil.copytree(pico("gpt2"), tmp_path / "m")
    tensors = load_file(model / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(bare, model / "model.safetensors", {"format": "pt"})
    check_what_we_say(written(model, "W4A16-g32", tmp_path))


def test_gpt2_as_it_was_stored_before_is_read_and_said_not_to_open(
    pico: Callable[[str], Path], tmp_path: Path
) -> None:
    """Its codes were ``[out, in]``, and its targets those of linears."""
    path = written(pico("gpt2"), MANY, tmp_path)
    expected, config = outputs(load_model(path)), read_json(path / "config.json")
    for group in config["quantization_config"]["config_groups"].values():
        group["targets"].remove(NOT_THERE)
    write_json(path / "config.json", config)
    assert torch.equal(outputs(load_model(path)), expected)
    assert opens_in_transformers(WeightSource.open(path)).answer == "no"


@pytest.mark.parametrize(("label", "stop"), [("W4A16-g32", NEEDS_NEWER), ("W8A8", NOT_THERE)])
def test_gpt2_is_never_opened_with_random_weights(
    label: str, stop: str, pico: Callable[[str], Path], tmp_path: Path
) -> None:
    """Also by a transformers that does not dequantize as it loads: before 5.23, it looked for the targets."""
    path = written(pico("gpt2"), label, tmp_path)
    words = re.escape(stop.removeprefix("re:(?P<").removesuffix(">)"))
    if label == "W4A16-g32":
        config = read_json(path / "config.json")
        del config["quantization_config"]["dequantize"]
        write_json(path / "config.json", config)
    with pytest.raises(re.error, match=words):
        opened(path)


@pytest.mark.parametrize("label", ["W4A16-g32", "W8A16-channel", "W3A16-g64"])
def test_in_bfloat16_a_scale_is_rounded_too(
    label: str, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    """To 8 bits, and so is the product with a code, each by at most 2⁻⁸ of itself."""
    path = written(make_decoder(tmp_path / "m", dtype=torch.bfloat16), label, tmp_path)
    theirs, info = opened(path)
    outputs(theirs)
    source = WeightSource.open(path)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    for linear in source.anatomy.linears():
        dense, found = source.dense(linear.name), theirs.get_submodule(linear.name).weight
        assert found.dtype == torch.bfloat16
        assert ((found.float() - dense).abs() <= ((1 + 2**-8) ** 2 - 1) * dense.abs()).all()
    exact, _ = opened(path, dtype=torch.float32)
    assert torch.equal(outputs(exact), outputs(load_model(path)))


@pytest.mark.parametrize(("scheme", "answer"), [("W8A8", "no"), ("W4A16-g32", "yes")])
def test_manifest_verbs_and_card_say_the_same(
    scheme: str, answer: str, pico: Callable[[str], Path], tmp_path: Path
) -> None:
    out, run = str(tmp_path / "o"), CliRunner().invoke
    shown = run(
        edgepress, ["compress", str(pico("gpt2")), "--scheme", scheme, "-o", out], catch_exceptions=False
    )
    said = read_json(tmp_path / "o" / "edgepress.json")["opens_in"]
    assert said["transformers"]["answer"] == answer
    assert json.loads(run(edgepress, ["inspect", out, "--json"]).stdout)["opens_in"] == said
    table = " ".join(run(edgepress, ["inspect", out]).stdout.split())
    assert f"transformers: {answer}" in table and f"opens in transformers: {answer}" in shown.stdout
    card = (export_bundle(out, output=tmp_path / "b", validate=False) / "README.md").read_text()
    assert ("checkpoint itself in plain transformers: no: linears of a gpt2" in card) == (answer == "no")
