"""The comparison of quantizers: its bars and table, and what decodes the peers' formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.benchmarks.lab.peers import quality
from edgepress.benchmarks.lab.peers.contract import CompressionTask, QuantizerVariant
from edgepress.benchmarks.lab.peers.quality import OURS, QuantizerResult
from edgepress.benchmarks.lab.peers.quantize import NOT_RUN, ToolLimits, quantize, with_earlier, write_raw
from edgepress.benchmarks.lab.peers.quantizers import edgepress_passes, onnxruntime_nbits
from edgepress.benchmarks.lab.peers.quantizers._dense import write_dense
from edgepress.benchmarks.lab.peers.quantizers.gptqmodel import decode_layer, unpack
from edgepress.benchmarks.lab.peers.workspace import Workspace, peers
from edgepress.compress.recipe import parse
from edgepress.storage import write_json
from safetensors.torch import load_file, save_file


def row(peer: str, kl: float | None, bits: int = 4, method: str = "GPTQ", **more: Any) -> QuantizerResult:
    metrics = {} if kl is None else {"wikipedia": {"kl": kl, "top1_agreement": 0.8, "perplexity": 20.0}}
    fields: dict[str, Any] = {
        "peer": peer,
        "title": peer,
        "variant": "v",
        "method": method,
        "bits": bits,
        "group_size": 64,
        "scale_bits": 16,
        "zero_bits": 0,
        "stored_bits": 4.25,
        "calibrated": True,
        "cpu_s": 100.0,
        "peak_rss_bytes": 10**9,
        "metrics": metrics,
    }
    return QuantizerResult(**{**fields, **more})


def test_quality_is_compared_at_the_same_bits() -> None:
    found = [
        row(OURS, 0.16),
        row("a", 0.21),
        row("b", 0.19),
        row("c", 0.01, bits=8),
        row("d", None, error="no"),
    ]
    bar = next(one for one in quality.bars(found) if one.where == "W4-g64" and one.name.startswith("KL"))
    assert bar.ratio == pytest.approx(0.19 / 0.16)
    assert bar.verdict == "missed"
    better = next(one for one in quality.bars([row(OURS, 0.15), *found[1:]]) if one.name.startswith("KL"))
    assert not any(one.where == "W8-g64" for one in quality.bars(found))
    assert better.target == pytest.approx(1.25)


def test_cost_is_compared_with_the_same_method() -> None:
    found = [
        row(OURS, 0.2, cpu_s=50.0, peak_rss_bytes=600_000_000),
        row("a", 0.2, cpu_s=100.0, peak_rss_bytes=900_000_000),
        row("fast", 0.2, method="RTN", cpu_s=1.0, peak_rss_bytes=1),
        row("wide", 0.2, group_size=32, cpu_s=1.0, peak_rss_bytes=1),
        row("broken", None, error="no", cpu_s=1.0, peak_rss_bytes=1),
    ]
    costs = {bar.name: bar for bar in quality.bars(found)}
    assert costs["CPU time of GPTQ"].ratio == pytest.approx(2.0)
    assert costs["CPU time of GPTQ"].verdict == "met"
    assert costs["peak RSS of GPTQ"].ratio == pytest.approx(1.5)
    assert costs["peak RSS of GPTQ"].verdict == "missed"


def test_a_plan_is_compared_with_uniform_schemes_that_are_no_larger() -> None:
    plan = row(OURS, 0.5, method="allocate", budget=3.5, stored_bits=3.5)
    found = [
        plan,
        row("larger", 0.2),
        row("same", 0.6, bits=3, group_size=32, stored_bits=3.5),
        row("smaller", 0.9, bits=3, stored_bits=3.25),
    ]
    bar = next(one for one in quality.bars(found) if one.where == "3.5 bits")
    assert bar.ratio == pytest.approx(1.2)
    assert bar.verdict == "met"
    assert next(one for one in quality.bars(found) if one.where == "W4-g64").ours == "–"


def test_perplexity_of_w8a8_is_held_against_the_original() -> None:
    one = row(OURS, 0.01, bits=8, group_size=None, activations=8, stored_bits=8.0)
    one.metrics["wikipedia"] |= {"original_perplexity": 19.95}
    bar = next(bar for bar in quality.bars([one]) if bar.where == "W8A8, wikipedia")
    assert bar.ratio == pytest.approx(19.95 / 20)
    assert bar.verdict == "met"


def test_the_page_lists_what_could_not_run() -> None:
    page = quality.page(
        [row(OURS, 0.2), row("a", None, error="needs \x1b[38;20mCUDA\x1b[0m 9|8")], ["a note"]
    )
    assert "| a GPTQ, W4-g64 | needs CUDA 9¦8 |" in page
    assert "| W4-g64 | edgepress_passes GPTQ | 4.25 | 0.2000 | 0.800 | 20.00 | 100 | 1000 |" in page
    assert "- a note" in page


def test_costs_are_compared_on_one_machine_only() -> None:
    found = [row(OURS, 0.2, machine="here"), row("a", 0.3, machine="there"), row("b", 0.3, machine="here")]
    costs = [bar for bar in quality.bars(found) if bar.name.startswith("CPU time")]
    assert [bar.peer.split()[0] for bar in costs] == ["b"]
    page = quality.page(found, [])
    assert "| 100 A | 1000 |" in page and "| 100 B | 1000 |" in page
    assert "A: here; B: there." in page


def test_what_an_earlier_run_knows_fills_the_gaps(tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "quality.jsonl"
    write_raw(raw, [row("a", 0.3), row("b", 0.4)])
    now = [row("a", None, error=NOT_RUN), row("b", 0.2), row("c", None, error="needs CUDA")]
    assert [one.kl for one in with_earlier(now, raw)] == [0.3, 0.2, None]
    assert with_earlier(now, tmp_path / "nothing") == now


def test_what_is_known_is_shown_without_running_anything(tmp_path: Path) -> None:
    workspace, limits = Workspace(tmp_path), ToolLimits(run=False)
    folder = tmp_path / "quantized" / "onnxruntime-nbits-w4-default"
    folder.mkdir(parents=True)
    cost = {"cpu_s": 3.0, "wall_s": 4.0, "peak_rss_bytes": 5, "versions": {}}
    write_json(folder / "made.json", {"error": "", **cost})
    write_json(folder / "quality.json", {"wikipedia": {"kl": 0.5}})
    known, missing = (
        quantize(workspace, "onnxruntime_nbits", onnxruntime_nbits, variant, limits, [])
        for variant in ("w4-default", "w2-default")
    )
    assert (known.kl, known.cpu_s, known.error) == (0.5, 3.0, "")
    (folder / "quality.json").unlink()  # made, and not judged: its costs are known
    cost_only = quantize(workspace, "onnxruntime_nbits", onnxruntime_nbits, "w4-default", limits, [])
    assert (cost_only.kl, cost_only.cpu_s, cost_only.error) == (None, 3.0, "")
    assert missing.error == NOT_RUN


@pytest.mark.parametrize("name", sorted(peers("quantizers")))
def test_quantizers_say_what_the_comparison_asks(name: str) -> None:
    module = peers("quantizers")[name]
    assert module.TITLE
    assert callable(module.quantize)
    for one in module.VARIANTS.values():
        assert one.budget is not None or 2 <= one.bits <= one.stored_bits <= one.bits + 1


@pytest.mark.parametrize("variant", sorted(edgepress_passes.VARIANTS))
def test_our_variants_are_recipes_of_the_bits_they_say(variant: str) -> None:
    chosen = edgepress_passes.VARIANTS[variant]
    recipe = parse({"name": variant, "passes": edgepress_passes.passes(variant)}, variant)
    scheme = next((step.weight_scheme for _, step in recipe.steps if step.weight_scheme is not None), None)
    if chosen.budget is not None:
        assert f"{chosen.budget:g} bits" in [step.label for _, step in recipe.steps]
        return
    assert scheme is not None
    assert (scheme.bits, scheme.group_size) == (chosen.bits, chosen.group_size)
    assert (scheme.activations is not None) == (chosen.activations == 8)
    assert recipe.calibrated == chosen.calibrated
    assert scheme.bits_per_weight(576) == pytest.approx(chosen.stored_bits, abs=0.03)


def packed(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """``[rows, columns]`` codes as a stream of bits along the rows, in int32 words: bit by bit."""
    words = torch.zeros(codes.shape[0] * bits // 32, codes.shape[1], dtype=torch.int64)
    for index in range(codes.shape[0]):
        for bit in range(bits):
            position = index * bits + bit
            words[position // 32] |= ((codes[index].long() >> bit) & 1) << (position % 32)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq_words_are_decoded(bits: int) -> None:
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(0, 2**bits, (64, 32), generator=generator)
    assert torch.equal(unpack(packed(codes, bits), bits), codes)
    zeros = torch.randint(1, 2**bits, (2, 32), generator=generator)
    scales = torch.rand(2, 32, generator=generator)
    group = torch.arange(64) // 32
    parts = {
        "qweight": packed(codes, bits),
        "qzeros": packed((zeros - 1).T.contiguous(), bits).T.contiguous(),
        "scales": scales,
        "g_idx": group.int(),
    }
    expected = torch.empty(32, 64)
    for out in range(32):
        for channel in range(64):
            one = int(group[channel])
            expected[out, channel] = (codes[channel, out] - zeros[one, out]) * scales[one, out]
    assert torch.equal(decode_layer(parts, bits), expected)


NAME = "model.layers.0.mlp.up_proj"


@pytest.fixture
def task(tmp_path: Path) -> CompressionTask:
    """A checkpoint with one linear layer and an embedding."""
    checkpoint, output = tmp_path / "checkpoint", tmp_path / "output"
    checkpoint.mkdir()
    output.mkdir()
    weight = torch.randn(24, 128, generator=torch.Generator().manual_seed(0))
    save_file(
        {f"{NAME}.weight": weight, "model.embed_tokens.weight": weight.clone()}, checkpoint / "m.safetensors"
    )
    (checkpoint / "config.json").write_text("{}", encoding="utf-8")
    return CompressionTask(checkpoint, tmp_path / "none.json", output)


def test_dense_weights_replace_only_the_linear_layers(task: CompressionTask) -> None:
    signs = torch.ones(24, 128)
    write_dense(task, QuantizerVariant("x", 2), {NAME: signs})
    before, after = (load_file(folder / "m.safetensors") for folder in (task.checkpoint, task.result))
    assert torch.equal(after[f"{NAME}.weight"], signs)
    assert torch.equal(after["model.embed_tokens.weight"], before["model.embed_tokens.weight"])


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({}, "was not quantized"),
        ({NAME: torch.ones(24, 64)}, "has the shape"),
        ({NAME: torch.randn(24, 128)}, "more than 2 bits can tell apart"),
        ({NAME: torch.ones(24, 128), "other.up_proj": torch.ones(1)}, "not in the checkpoint"),
    ],
)
def test_what_is_not_as_asked_is_refused(
    task: CompressionTask, weights: dict[str, torch.Tensor], said: str
) -> None:
    with pytest.raises(SystemExit, match=said):
        write_dense(task, QuantizerVariant("x", 2), weights)


@pytest.mark.chain
def test_onnxruntime_rounds_to_the_grid_it_was_asked_for(task: CompressionTask) -> None:
    onnxruntime_nbits.quantize(task, "w4-default")
    before, after = (
        load_file(folder / "m.safetensors")[f"{NAME}.weight"] for folder in (task.checkpoint, task.result)
    )
    step = before.reshape(24, 2, 64).abs().amax(-1) / 8
    assert ((before - after).reshape(24, 2, 64).abs().amax(-1) <= 1.001 * step).all()
    assert not torch.equal(before, after)
