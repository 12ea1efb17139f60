"""Quantized key/value caches in compression: the range search against brute force, what is stored, and what
the torch reading of a checkpoint computes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.cli.verbs.inspect import inspect_checkpoint
from edgepress.compress.api import compress_model
from edgepress.compress.model.kv_scheme import KVScales, KVScheme
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.passes.kv_cache import (
    BINS,
    Histogram,
    KVCache,
    RangeSearch,
    error_of,
    search,
    span_to_scale,
)
from edgepress.errors import CheckpointError, RecipeError
from edgepress.files.hashed_tree import hash_tree
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

CALIBRATED: dict[str, Any] = {"samples": 12, "length": 32}
IDS = torch.randint(0, 300, (2, 48), generator=torch.Generator().manual_seed(3))


def recipe(folder: Path, *passes: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text("name: kv\npasses:\n" + "".join(f"  - {{pass: {entry}}}\n" for entry in passes))
    return str(path)


@pytest.fixture(scope="module")
def compress(pico_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A checkpoint made by the given passes."""

    def make(model: Path, *passes: str) -> Path:
        folder = tmp_path_factory.mktemp("kv")
        return compress_model(
            str(model),
            recipe=recipe(folder, *passes),
            output=folder / "out",
            calibration=str(pico_text),
            **CALIBRATED,
        )

    return make


@pytest.fixture(scope="module")
def kv8(pico_llama: Path, compress: Callable[..., Path]) -> Path:
    return compress(pico_llama, "gptq, scheme: W4A16-g32", "kv_cache, bits: 8")


def brute_force(values: torch.Tensor, bits: int) -> float:
    """The least sum of squared errors over the spans that the search tries, on the values themselves."""
    half, absmax = 1 << (bits - 1), values.abs().max()
    errors = []
    for factor in [1.0, *(1.07 * 0.955**step for step in range(36))]:
        scale = absmax * factor / ((2**bits - 1) / 2)
        codes = torch.clamp(torch.round(values / scale), -half, half - 1)
        errors.append(float((codes * scale - values).double().square().sum()))
    return min(errors)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("outliers", [False, True])
def test_mse_search_is_the_best_of_the_ladder(bits: int, outliers: bool) -> None:
    generator = torch.Generator().manual_seed(bits)
    values = torch.randn(3, 5000, generator=generator) * torch.tensor([[0.01], [1.0], [30.0]])
    if outliers:
        values[:, :3] *= 20
    histogram = Histogram(values.abs().amax(1))
    for part in values.split(700, dim=1):
        histogram.update(part)
    scale = search(histogram, bits, "mse", 100)
    half = 1 << (bits - 1)
    for row, one in zip(values, scale, strict=True):
        codes = torch.clamp(torch.round(row / one), -half, half - 1)
        found = float((codes * one - row).double().square().sum())
        assert found <= brute_force(row, bits) * 1.02
    if outliers and bits == 4:  # at 8 bits the steps are fine enough to span them
        assert float(scale[1]) < 0.7 * float(span_to_scale(histogram.absmax, bits)[1])


def test_percentile_search_spans_that_share() -> None:
    values = torch.arange(1, 10_001, dtype=torch.float32)[None] * torch.tensor([[1.0], [-1.0]])
    histogram = Histogram(values.abs().amax(1))
    histogram.update(values)
    span = search(histogram, 8, "percentile", 90) * 127.5
    assert (span - 9000).abs().max() <= 10_000 / (BINS / 2) + 1
    assert torch.equal(search(histogram, 8, "percentile", 100), search(histogram, 8, "absmax", 50))


@pytest.mark.chain
@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**20),
    bits=st.sampled_from([4, 8]),
    rule=st.sampled_from(["absmax", "percentile", "mse"]),
    micro_batches=st.integers(1, 5),
)
def test_search_is_deterministic_and_never_worse_than_absmax(
    seed: int, bits: int, rule: RangeSearch, micro_batches: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(2, 60, generator=generator).exp() - 1
    values[1] = 0  # a dead channel
    whole, parts = Histogram(values.abs().amax(1)), Histogram(values.abs().amax(1))
    whole.update(values)
    for part in reversed(values.chunk(micro_batches, dim=1)):
        parts.update(part)
    assert torch.equal(whole.counts, parts.counts)
    scale = search(whole, bits, rule, 99)
    assert bool((torch.isfinite(scale) & (scale > 0)).all())
    assert float(scale[1]) == 1
    if rule == "mse":
        plain = error_of(whole, span_to_scale(whole.absmax, bits), bits)
        assert bool((error_of(whole, scale, bits) <= plain).all())


@settings(max_examples=30)
@given(seed=st.integers(0, 2**20), bits=st.sampled_from([4, 8]))
def test_a_cache_gives_back_what_it_gave_back_before(seed: int, bits: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    key, value = torch.randn(2, 2, 3, 5, 8, generator=generator).unbind()
    scale = torch.rand(3, 1, 8, generator=generator) * 0.1 + 0.01
    scales = KVScales(KVScheme.model_validate({"bits": bits}), scale, scale * 2)
    once = scales.round(key, value)
    again = scales.round(*once)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    inside = key.abs() < scale * (1 << (bits - 1)) - scale
    assert bool(((once[0] - key).abs() <= scale.expand_as(key) * 0.5001)[inside].all())


@pytest.mark.chain
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "opt", "phi", "gemma2", "qwen3", "bitnet"])
def test_scales_are_those_of_keys_after_rope(
    family: str,
    make_decoder: Callable[..., Path],
    compress: Callable[..., Path],
    tmp_path: Path,
    pico_text: Path,
) -> None:
    """Rebuilt from transformers' own cache after a run over the same batches."""
    from edgepress.compress.text.calibration import calibration_from
    from edgepress.runtime.text.tokenizer import Tokenizer

    changes = {"sliding_window": 64} if family == "gemma2" else {}  # transformers forgets what has left it
    model = make_decoder(tmp_path / family, family, num_hidden_layers=1, **changes)
    out = compress(model, "kv_cache, bits: 8, search: absmax")
    calibration = calibration_from(
        str(pico_text), Tokenizer.open(model), kind="decoder", batch_size=8, **CALIBRATED
    )
    original = load_model(model)
    largest = []
    with torch.no_grad():
        for batch in calibration.batches:
            layer = original(batch.input_ids, use_cache=True).cache.layers[0]
            largest.append(torch.stack([layer.keys, layer.values]).abs().amax((1, 3)))
    absmax = torch.stack(largest).amax(0)
    source = WeightSource.open(out)
    scales = source.kv_scales(source.anatomy.blocks[0].attention)
    assert scales is not None
    for found, want in zip((scales.key, scales.value), absmax, strict=True):
        assert torch.allclose(found[:, 0] * 127.5, want, rtol=1e-5)


@pytest.mark.chain
@pytest.mark.parametrize("granularity", ["per-tensor", "per-channel"])
@pytest.mark.parametrize("bits", [8, 4])
def test_the_torch_reading_rounds_keys_and_values(
    granularity: str, bits: int, pico_llama: Path, compress: Callable[..., Path]
) -> None:
    """Against transformers' own cache, rounded by hand after every layer, in a model of one layer."""
    out = compress(pico_llama, f"kv_cache, bits: {bits}, granularity: {granularity}")
    source = WeightSource.open(out)
    assert source.kv_scheme == KVScheme.model_validate({"bits": bits, "granularity": granularity})
    plain = load_model(out, cache=False)
    with torch.no_grad():
        original = load_model(pico_llama)(IDS, use_cache=False).logits
        assert torch.equal(plain(IDS, use_cache=False).logits, original)
        rounded = load_model(out)(IDS, use_cache=False).logits
        seen = load_model(out)(IDS, use_cache=True).cache.layers[0]
        first = plain(IDS, use_cache=True).cache.layers[0]
    scales = source.kv_scales(source.anatomy.blocks[0].attention)
    assert scales is not None
    for found, want in zip((seen.keys, seen.values), scales.round(first.keys, first.values), strict=True):
        assert torch.equal(found, want)
    difference = float((rounded - original).abs().max())
    assert 0 < difference < (1.5 if bits == 8 else 6)


@pytest.mark.chain
def test_the_whole_checkpoint(kv8: Path, pico_llama: Path, compress: Callable[..., Path]) -> None:
    source = WeightSource.open(kv8)
    manifest = source.manifest
    assert manifest["scheme"] == "W4A16-g32 gptq + KV8-channel kv_cache"
    assert manifest["steps"][1]["layers"] == 6
    assert manifest["steps"][1]["damage"]["kl"] >= 0
    names = [layer["name"] for layer in manifest["layers"]]
    assert "model.layers.0.self_attn.k_proj" in names
    assert "model.layers.0.self_attn.key_cache" in names
    shown = inspect_checkpoint(kv8)
    assert shown["kv_cache"] == "KV8-channel"
    config = source.reader.config
    assert config["quantization_config"]["kv_cache_scheme"] is None
    assert config["edgepress_kv_cache"] == {"num_bits": 8, "strategy": "channel"}
    again = compress(pico_llama, "gptq, scheme: W4A16-g32", "kv_cache, bits: 8")
    assert hash_tree(again) == hash_tree(kv8)
    # The first block's weights do not depend on the cache; the inputs of those after it do.
    plain = WeightSource.open(compress(pico_llama, "gptq, scheme: W4A16-g32"))
    same = [
        torch.equal(plain.dense(linear.name), source.dense(linear.name)) for linear in plain.anatomy.linears()
    ]
    assert all(same[:7]) and not all(same[7:])


@pytest.mark.chain
def test_one_scale_a_layer_is_compressed_tensors_own_form(
    pico_llama: Path, compress: Callable[..., Path]
) -> None:
    from compressed_tensors.quantization import QuantizationConfig

    out = compress(pico_llama, "kv_cache, bits: 8, granularity: per-tensor")
    config = json.loads((out / "config.json").read_text())
    assert "edgepress_kv_cache" not in config
    parsed = QuantizationConfig.model_validate(config["quantization_config"])
    assert parsed.kv_cache_scheme is not None
    assert (parsed.kv_cache_scheme.num_bits, parsed.kv_cache_scheme.strategy) == (8, "tensor")
    assert load_file(out / "model.safetensors")["model.layers.1.self_attn.v_scale"].shape == (1,)


@pytest.mark.chain
def test_a_later_recipe_finds_new_scales_or_is_refused(kv8: Path, compress: Callable[..., Path]) -> None:
    with pytest.raises(RecipeError, match="KV8-channel"):
        compress(kv8, "rtn, scheme: W8A16-g32")
    again = compress(kv8, "kv_cache, bits: 4, granularity: per-tensor")
    source = WeightSource.open(again)
    assert source.kv_scheme == KVScheme(bits=4, granularity="per-tensor")
    assert set(source.schemes) == set(WeightSource.open(kv8).schemes)


def test_what_recipes_may_not_say(pico_llama: Path, pico_bert: Path, compress: Callable[..., Path]) -> None:
    with pytest.raises(RecipeError, match="last pass"):
        compress(pico_llama, "kv_cache, bits: 8", "rtn, scheme: W8A16-g32")
    with pytest.raises(RecipeError, match="one type"):
        compress(pico_llama, "kv_cache, bits: 8, ignore: [k]")
    with pytest.raises(RecipeError, match="bits"):
        compress(pico_llama, "kv_cache, bits: 3")
    with pytest.raises(RecipeError, match="no key/value cache"):
        compress(pico_bert, "kv_cache, bits: 8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edgepress_kv_cache": {"num_bits": 3, "strategy": "channel"}}, "not supported"),
        ({"edgepress_kv_cache": {"num_bits": 8, "strategy": "token"}}, "not supported"),
        ({"edgepress_kv_cache": 7}, "not supported"),
        ({"edgepress_kv_cache": None, "quantization_config": {"kv_cache_scheme": [8]}}, "not supported"),
        ({"edgepress_kv_cache": None}, "k_scale"),
    ],
)
def test_hostile_configs(kv8: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    copy = shutil.copytree(kv8, tmp_path / "c")
    config = json.loads((copy / "config.json").read_text())
    quantization = config["quantization_config"] | change.get("quantization_config", {})
    (copy / "config.json").write_text(json.dumps(config | change | {"quantization_config": quantization}))
    with pytest.raises(CheckpointError, match=message):
        load_model(copy)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (torch.zeros(2, 1, 16), "positive"),
        (torch.full((2, 1, 16), float("nan")), r"positive|not finite"),
        (torch.ones(2, 16), "shape"),
        (torch.ones(2, 1, 16, dtype=torch.int32), "floats"),
        (None, "no tensor"),
    ],
)
def test_hostile_scales(kv8: Path, tmp_path: Path, scale: torch.Tensor | None, message: str) -> None:
    copy = shutil.copytree(kv8, tmp_path / "c")
    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.self_attn.k_scale"]
    if scale is not None:
        tensors["model.layers.1.self_attn.k_scale"] = scale
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=message):
        load_model(copy)


def test_the_plan_counts_the_histograms() -> None:
    from edgepress.compress.model.block_anatomy import Linear

    linears = [Linear("k", "k", 32, 64, False), Linear("v", "v", 32, 64, False)]
    channel, whole = KVCache(bits=8), KVCache(bits=8, granularity="per-tensor")
    assert channel.working_bytes(linears) == 64 * whole.working_bytes(linears) > 64 * BINS * 8
